package registry

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// sweepRepository removes from a repository what leads to blobs that go, uploads that were given up
// and what a crash has left; and the repository where nothing is left of it.
func (p *pruner) sweepRepository(r *stored) error {
	dir := repositoryPath(p.store, r.name)
	links := 0
	err := p.links(layersOf(p.store, r.name), func(d digest.Digest, path string, age time.Time) error {
		if !p.named[d] && p.isNew(age, p.o.BlobsOlder) {
			p.named[d] = true // its manifest may still come
		}
		if p.named[d] || p.isNewBlob(d) {
			links++
			return nil
		}
		return p.remove(path)
	})
	if err != nil {
		return err
	}
	uploads, err := p.sweepUploads(filepath.Join(dir, "_uploads"))
	if err != nil {
		return err
	}
	if err := p.sweepLeftovers(dir); err != nil {
		return err
	}
	kept := 0
	for d := range r.revisions {
		if p.manifests[d].kept {
			kept++
		}
	}
	if links+uploads+kept > 0 || p.o.DryRun {
		return nil
	}
	return p.removeRepository(dir)
}

// removeRepository removes a repository that has nothing any more, and what is empty above it.
func (p *pruner) removeRepository(dir string) error {
	for _, name := range []string{"_layers", "_uploads", "_manifests"} {
		if err := p.remove(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	rel, err := p.within(dir)
	if err != nil {
		return err
	}
	root := filepath.Join(p.store, contentDir, "repositories")
	for dir != root && p.root.Remove(rel) == nil { // it fails where something is in it, such as other repositories
		dir, rel = filepath.Dir(dir), filepath.Dir(rel)
	}
	return nil
}

// isNewBlob reports whether a blob itself is spared.
func (p *pruner) isNewBlob(d digest.Digest) bool {
	if p.o.BlobsOlder <= 0 {
		return false
	}
	info, err := os.Stat(blobPath(p.store, d))
	return err == nil && p.isNew(info.ModTime(), p.o.BlobsOlder)
}

// sweepUploads removes uploads that were given up, and returns how many stay.
func (p *pruner) sweepUploads(dir string) (kept int, err error) {
	ids, err := p.entries(dir)
	if err != nil {
		return 0, err
	}
	for _, id := range ids {
		path := filepath.Join(dir, id)
		size, age, err := measure(path)
		if err != nil {
			return 0, err
		}
		if p.isNew(age, p.o.UploadsOlder) {
			kept++
			continue
		}
		p.report.Uploads++
		p.report.Bytes += size
		if err := p.remove(path); err != nil {
			return 0, err
		}
	}
	return kept, nil
}

// measure returns how much is in a directory, and when the last of it was changed.
func measure(dir string) (size int64, age time.Time, err error) {
	err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if info.ModTime().After(age) {
			age = info.ModTime()
		}
		if info.Mode().IsRegular() {
			size += info.Size()
		}
		return nil
	})
	return size, age, err
}

// sweepLeftovers removes files that were never finished, and tags that never got a manifest.
func (p *pruner) sweepLeftovers(dir string) error {
	for _, part := range []string{"_manifests", "_layers"} {
		if _, err := p.within(filepath.Join(dir, part)); err != nil {
			return err
		}
		err := filepath.WalkDir(filepath.Join(dir, part), func(path string, e fs.DirEntry, err error) error {
			switch {
			case errors.Is(err, fs.ErrNotExist):
				return nil
			case err != nil:
				return err
			case p.ctx.Err() != nil:
				return p.ctx.Err()
			case !e.IsDir() && strings.HasSuffix(path, temporary):
				return p.leftover(path, e)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	tags := filepath.Join(dir, "_manifests", "tags")
	names, err := p.entries(tags)
	if err != nil {
		return err
	}
	for _, tag := range names {
		if _, err := os.Stat(filepath.Join(tags, tag, "current", "link")); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		p.report.Leftovers++
		if err := p.remove(filepath.Join(tags, tag)); err != nil {
			return err
		}
	}
	return nil
}

// leftover removes a file that was never finished. While others write, such are no leftovers.
func (p *pruner) leftover(path string, e fs.DirEntry) error {
	info, err := e.Info()
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	p.report.Leftovers++
	p.report.Bytes += info.Size()
	return p.remove(path)
}

// sweepBlobs removes the blobs that nothing names.
func (p *pruner) sweepBlobs() error {
	root := filepath.Join(p.store, contentDir, "blobs")
	algorithms, err := p.entries(root)
	if err != nil {
		return err
	}
	for _, algorithm := range algorithms {
		firsts, err := p.entries(filepath.Join(root, algorithm))
		if err != nil {
			return err
		}
		for _, first := range firsts {
			dir := filepath.Join(root, algorithm, first)
			hexes, err := p.entries(dir)
			if err != nil {
				return err
			}
			for _, hex := range hexes {
				if err := p.ctx.Err(); err != nil {
					return err
				}
				d := digest.NewDigestFromEncoded(digest.Algorithm(algorithm), hex)
				if d.Validate() != nil {
					continue // nothing that the registry has made
				}
				if err := p.sweepBlob(d, filepath.Join(dir, hex)); err != nil {
					return err
				}
			}
		}
	}
	slices.SortFunc(p.report.Blobs, func(a, b PrunedBlob) int { return strings.Compare(a.Digest, b.Digest) })
	return nil
}

func (p *pruner) sweepBlob(d digest.Digest, dir string) error {
	if _, err := p.within(dir); err != nil {
		return err
	}
	list, err := os.ReadDir(dir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	var data fs.FileInfo
	for _, e := range list {
		switch {
		case e.Name() == "data":
			if data, err = e.Info(); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		case strings.HasSuffix(e.Name(), temporary):
			if err := p.leftover(filepath.Join(dir, e.Name()), e); err != nil {
				return err
			}
		}
	}
	if data != nil && (p.named[d] || p.isNew(data.ModTime(), p.o.BlobsOlder)) {
		p.report.Kept++
		p.report.KeptBytes += data.Size()
		return nil
	}
	if data != nil {
		p.report.Blobs = append(p.report.Blobs, PrunedBlob{d.String(), data.Size()})
		p.report.Bytes += data.Size()
	}
	return p.remove(dir)
}
