package verify_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/internal/progress"
	"github.com/sealift/sealift/manifest"
	"github.com/sealift/sealift/verify"
)

// random is n bytes that no frame is like another one in.
func random(n int) []byte {
	b := make([]byte, n)
	x := uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}

// spread is a signed bundle in volumes of 2 MiB, each of which lies in a directory of its own.
func spread(t *testing.T, k keys) (p *packed, dirs []string) {
	t.Helper()
	p = newPacked(image, random(9<<20))
	p.encode(bytes.Repeat([]byte("layer "), 50000))
	p.write(t, 2<<20, k.signer)
	root := t.TempDir()
	for n := 1; ; n++ {
		from := archive.VolumeName(p.path, n)
		if _, err := os.Stat(from); errors.Is(err, os.ErrNotExist) {
			return p, dirs
		}
		dir := filepath.Join(root, fmt.Sprint("disk", n))
		dirs = append(dirs, dir)
		if err := errors.Join(os.Mkdir(dir, 0o700), os.Rename(from, filepath.Join(dir, filepath.Base(from)))); err != nil {
			t.Fatal(err)
		}
	}
}

// one finds the only bundle at paths.
func one(t *testing.T, paths ...string) *verify.Files {
	t.Helper()
	found, err := verify.Find(paths)
	if err != nil || len(found) != 1 {
		t.Fatalf("%d bundles, %v", len(found), err)
	}
	return found[0]
}

// TestVolumes: read where they lie, in any order that their directories are named in.
func TestVolumes(t *testing.T) {
	k := vendor(t)
	p, dirs := spread(t, k)
	if len(dirs) != 5 {
		t.Fatalf("%d volumes", len(dirs))
	}
	for _, order := range [][]int{{0, 1, 2, 3, 4}, {4, 3, 2, 1, 0}, {2, 0, 4, 1, 3}} {
		var named []string
		for _, i := range order {
			named = append(named, dirs[i])
		}
		b, err := verify.Open(context.Background(), one(t, named...), k.policy)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Check(context.Background(), progress.Discard); err != nil {
			t.Error(err)
		}
		for i, blob := range p.m.Blobs {
			if raw, err := b.ReadBlob(blob.Digest, 1<<30); err != nil || !bytes.Equal(raw, p.blobs[i]) {
				t.Errorf("blob %d: %d bytes, %v", i, len(raw), err)
			}
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestBadVolumes are named, by what opens a bundle and by what checks it.
func TestBadVolumes(t *testing.T) {
	k := vendor(t)
	_, dirs := spread(t, k)
	ctx := context.Background()
	problems := func(err error) string {
		var content *verify.ContentError
		var v *archive.VolumesError
		if !errors.As(err, &content) || !errors.As(err, &v) {
			return fmt.Sprint(err)
		}
		s := ""
		for _, p := range v.Problems {
			s += fmt.Sprintf("%d %s ", p.Number, p.Kind)
		}
		return s
	}
	t.Run("missing", func(t *testing.T) {
		files := one(t, dirs[0], dirs[1], dirs[3], dirs[4])
		if _, err := verify.Open(ctx, files, k.policy); problems(err) != "3 missing " {
			t.Errorf("opening: %v", err)
		}
		b, err := verify.OpenIncomplete(ctx, files, k.policy)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		if err := b.Check(ctx, progress.Discard); problems(err) != "3 missing " {
			t.Errorf("checking: %v", err)
		}
		// What does not lie in it is there.
		if raw, err := b.ReadBlob(manifest.Digest(image), 100); err != nil || !bytes.Equal(raw, image) {
			t.Errorf("a blob that is there: %q, %v", raw, err)
		}
		var content *verify.ContentError
		if _, err := b.ReadBlob(b.Manifest().Blobs[1].Digest, 1<<30); !errors.As(err, &content) {
			t.Errorf("a blob that is not: %v", err)
		}
	})
	t.Run("first missing", func(t *testing.T) {
		if _, err := verify.OpenIncomplete(ctx, one(t, dirs[1:]...), k.policy); problems(err) != "1 missing " {
			t.Error(err)
		}
	})
	t.Run("damaged", func(t *testing.T) {
		path := filepath.Join(dirs[2], "b.tar.zst.003")
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		raw[1<<20] ^= 1
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		b, err := verify.Open(ctx, one(t, dirs...), k.policy)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		if err := b.Check(ctx, progress.Discard); problems(err) != "3 damaged " {
			t.Error(err)
		}
		// Damage and a missing one are told together.
		b, err = verify.OpenIncomplete(ctx, one(t, dirs[:4]...), k.policy)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		if err := b.Check(ctx, progress.Discard); problems(err) != "3 damaged 5 missing " {
			t.Error(err)
		}
	})
}

// TestCutFile: a part of a file tells how large the whole is.
func TestCutFile(t *testing.T) {
	k := vendor(t)
	path, _, _ := bundle(t, "1.0.0", k.signer)
	if err := os.Truncate(path, 1<<20); err != nil {
		t.Fatal(err)
	}
	var size *archive.SizeError
	if _, err := open(path, k.policy); !errors.As(err, &size) || size.Got != 1<<20 {
		t.Errorf("opening: %v", err)
	}
	b, err := verify.OpenIncomplete(context.Background(), one(t, path), k.policy)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	var content *verify.ContentError
	if err := b.Check(context.Background(), progress.Discard); !errors.As(err, &size) || !errors.As(err, &content) {
		t.Errorf("checking: %v", err)
	}
}

// TestEncodedBlobs are given out as what they are encoded from.
func TestEncodedBlobs(t *testing.T) {
	k := vendor(t)
	body := bytes.Repeat([]byte("layer "), 500000)
	p := newPacked([]byte("stored"))
	p.encode(body)
	p.encode(nil)
	p.write(t, 0, k.signer)
	b, err := open(p.path, k.policy)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.Check(context.Background(), progress.Discard); err != nil {
		t.Error(err)
	}
	for i, blob := range p.m.Blobs {
		if raw, err := b.ReadBlob(blob.Digest, blob.Size); err != nil || !bytes.Equal(raw, p.blobs[i]) {
			t.Errorf("blob %d: %d bytes, %v", i, len(raw), err)
		}
	}
	if _, err := b.ReadBlob(manifest.Digest(body), int64(len(body))-1); err == nil {
		t.Error("the limit was not kept")
	}
}

// TestEncodedAsSomethingElse: the vendor signed an entry that does not decode to its blob. The
// entry is what the manifest says, and yet the bundle is not.
func TestEncodedAsSomethingElse(t *testing.T) {
	k := vendor(t)
	body := bytes.Repeat([]byte("layer "), 500000)
	digest := manifest.Digest(body)
	for name, swap := range map[string][]byte{
		"another blob": encoded(t, bytes.Repeat([]byte("LAYER "), 500000)),
		"less":         encoded(t, body[:len(body)-1]),
		"more":         encoded(t, append(bytes.Clone(body), 0)),
		"garbage":      random(5000),
		"itself":       body,
		"a second one": append(encoded(t, body), encoded(t, []byte("more"))...),
	} {
		for _, volume := range []int64{0, 1 << 20} {
			t.Run(fmt.Sprint(name, volume), func(t *testing.T) {
				p := newPacked(image)
				p.encode(body)
				p.writeSwapped(t, volume, map[string][]byte{digest: swap}, k.signer)
				b, err := open(p.path, k.policy)
				if err != nil {
					t.Fatal(err)
				}
				defer b.Close()
				var content *verify.ContentError
				if err := b.Check(context.Background(), progress.Discard); !errors.As(err, &content) {
					t.Errorf("checking: %v, want *ContentError", err)
				}
				r, err := b.Blob(digest)
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				if n, err := io.Copy(io.Discard, r); !errors.As(err, &content) || n >= int64(len(body)) {
					t.Errorf("reading: %d bytes, %v", n, err)
				}
				if volume > 0 {
					return
				}
				file, err := os.ReadFile(p.path)
				if err != nil {
					t.Fatal(err)
				}
				if err := mustStream(t, file, k).Check(context.Background(), progress.Discard); !errors.As(err, &content) {
					t.Errorf("checking a stream: %v", err)
				}
			})
		}
	}
}

// TestDetachedBesideVolumes: in any of their directories, and one that is worth nothing beside it.
func TestDetachedBesideVolumes(t *testing.T) {
	k := vendor(t)
	p := newPacked(image, random(3<<20))
	p.write(t, 1<<20)
	disk := t.TempDir()
	if err := os.Rename(archive.VolumeName(p.path, 3), filepath.Join(disk, "b.tar.zst.003")); err != nil {
		t.Fatal(err)
	}
	sig, err := k.signer.Sign(p.raw)
	if err != nil {
		t.Fatal(err)
	}
	for dir, raw := range map[string][]byte{disk: sig, filepath.Dir(p.path): make([]byte, 1<<20)} {
		if err := os.WriteFile(filepath.Join(dir, "b.tar.zst"+verify.DetachedSuffix), raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b, err := verify.Open(context.Background(), one(t, p.path, disk), k.policy)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if e := b.Evidence(); !e.Signed[0].Detached || e.Ignored != 1 {
		t.Errorf("%+v", e)
	}
}
