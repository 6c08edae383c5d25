package registry_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sealift/sealift/internal/registry"
)

// Media types of what is pushed here.
const (
	mediaImage = "application/vnd.oci.image.manifest.v1+json"
	mediaIndex = "application/vnd.oci.image.index.v1+json"
	mediaConf  = "application/vnd.oci.image.config.v1+json"
	mediaTar   = "application/vnd.oci.image.layer.v1.tar"
	mediaList  = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// pusher pushes to a store by HTTP.
type pusher struct {
	t    *testing.T
	base string
}

// desc is an OCI descriptor.
type desc struct {
	MediaType string            `json:"mediaType"`
	Digest    string            `json:"digest"`
	Size      int               `json:"size"`
	Platform  map[string]string `json:"platform,omitempty"`
}

func (p *pusher) blob(repo, mediaType, content string) desc {
	p.t.Helper()
	resp, raw := request(p.t, http.MethodPost, p.base+"/v2/"+repo+"/blobs/uploads/", nil)
	wantStatus(p.t, resp, raw, http.StatusAccepted)
	d := desc{MediaType: mediaType, Digest: digestOf([]byte(content)), Size: len(content)}
	resp, raw = request(p.t, http.MethodPut, location(p.t, resp, p.base)+"&digest="+d.Digest, strings.NewReader(content))
	wantStatus(p.t, resp, raw, http.StatusCreated)
	return d
}

// manifest pushes one, under a tag or, where it is empty, its digest.
func (p *pusher) manifest(repo, tag, mediaType string, m map[string]any) desc {
	p.t.Helper()
	m["schemaVersion"], m["mediaType"] = 2, mediaType
	content, err := json.Marshal(m)
	if err != nil {
		p.t.Fatal(err)
	}
	d := desc{MediaType: mediaType, Digest: digestOf(content), Size: len(content)}
	if tag == "" {
		tag = d.Digest
	}
	resp, raw := request(p.t, http.MethodPut, p.base+"/v2/"+repo+"/manifests/"+tag, bytes.NewReader(content), "Content-Type", mediaType)
	wantStatus(p.t, resp, raw, http.StatusCreated)
	return d
}

// image pushes an image of one layer, whose content is what.
func (p *pusher) image(repo, tag, what string, subject ...desc) desc {
	p.t.Helper()
	m := map[string]any{
		"config": p.blob(repo, mediaConf, `{"architecture":"amd64","os":"linux","of":"`+what+`"}`),
		"layers": []desc{p.blob(repo, mediaTar, what)},
	}
	if len(subject) > 0 {
		m["subject"] = subject[0]
	}
	return p.manifest(repo, tag, mediaImage, m)
}

// index pushes an index of images.
func (p *pusher) index(repo, tag, mediaType string, children ...desc) desc {
	p.t.Helper()
	for i := range children {
		children[i].Platform = map[string]string{"os": "linux", "architecture": fmt.Sprintf("a%d", i)}
	}
	return p.manifest(repo, tag, mediaType, map[string]any{"manifests": children})
}

// derived is the tag of what belongs to a manifest.
func derived(d desc, ending string) string { return strings.Replace(d.Digest, ":", "-", 1) + ending }

func (p *pusher) has(repo, identifier string) bool {
	p.t.Helper()
	resp, _ := request(p.t, http.MethodHead, p.base+"/v2/"+repo+"/manifests/"+identifier, nil, "Accept", strings.Join([]string{mediaImage, mediaIndex, mediaList}, ","))
	return resp.StatusCode == http.StatusOK
}

func (p *pusher) hasBlob(repo, content string) bool {
	p.t.Helper()
	resp, _ := request(p.t, http.MethodHead, p.base+"/v2/"+repo+"/blobs/"+digestOf([]byte(content)), nil)
	return resp.StatusCode == http.StatusOK
}

// pruned closes a server, prunes what it served, and opens it again. A dry run before says the same.
func pruned(t *testing.T, store string, end func(), o registry.PruneOptions) (*pusher, *registry.PruneReport) {
	t.Helper()
	end()
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	before := contentOfStore(t, store)
	o.DryRun = true
	said, err := registry.Prune(t.Context(), store, o)
	if err != nil {
		t.Fatal(err)
	}
	if after := contentOfStore(t, store); !slices.Equal(before, after) {
		t.Fatalf("a dry run changed the store:\n%s\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
	o.DryRun = false
	r, err := registry.Prune(t.Context(), store, o)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprintf("%+v", *r), fmt.Sprintf("%+v", *said); got != want {
		t.Errorf("pruned\n%s, but a dry run said\n%s", got, want)
	}
	again, err := registry.Prune(t.Context(), store, o)
	if err != nil || len(again.Blobs)+len(again.Manifests)+again.Uploads+again.Leftovers > 0 || again.Kept != r.Kept {
		t.Errorf("the second time: %+v, %v", again, err)
	}
	base, _ := openServer(t, registry.Options{Store: store, SparseIndexes: true})
	return &pusher{t, base}, r
}

// contentOfStore lists all paths with their sizes.
func contentOfStore(t *testing.T, store string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(store, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil && !e.IsDir() {
			path = fmt.Sprintf("%s %d", path, info.Size())
		}
		all = append(all, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func newPusher(t *testing.T) (p *pusher, store string, end func()) {
	t.Helper()
	store = t.TempDir()
	base, end := openServer(t, registry.Options{Store: store, SparseIndexes: true})
	return &pusher{t, base}, store, end
}

// TestPruneUntagged has every way that leads to a manifest, and none.
func TestPruneUntagged(t *testing.T) {
	p, store, end := newPusher(t)
	const repo = "team/app"
	kept, gone := map[string]desc{}, map[string]desc{}

	kept["tagged"] = p.image(repo, "1", "tagged")
	gone["untagged"] = p.image(repo, "", "untagged")
	gone["moved away from"] = p.image(repo, "latest", "old")
	kept["moved to"] = p.image(repo, "latest", "new")

	kept["child"] = p.image(repo, "", "child")
	absent := desc{MediaType: mediaImage, Digest: digestOf([]byte("absent")), Size: 6}
	kept["sparse index"] = p.index(repo, "multi", mediaIndex, kept["child"], absent)
	kept["inner child"] = p.image(repo, "", "inner child")
	inner := p.index(repo, "", mediaIndex, kept["inner child"])
	kept["inner index"], kept["outer index"] = inner, p.index(repo, "nested", mediaIndex, inner)
	kept["child of Docker's"] = p.image(repo, "", "child of Docker's")
	kept["list of Docker's"] = p.index(repo, "docker", mediaList, kept["child of Docker's"])
	gone["child of an untagged index"] = p.image(repo, "", "lost child")
	gone["untagged index"] = p.index(repo, "", mediaIndex, gone["child of an untagged index"])

	kept["referrer by subject"] = p.image(repo, "", "sbom", kept["child"])
	kept["referrer of a referrer"] = p.image(repo, "", "signature of the sbom", kept["referrer by subject"])
	gone["referrer of what goes"] = p.image(repo, "", "lost sbom", gone["untagged"])
	kept["listed referrer"] = p.image(repo, "", "listed")
	kept["fallback"] = p.index(repo, derived(kept["tagged"], ""), mediaIndex, kept["listed referrer"])
	gone["lost listed referrer"] = p.image(repo, "", "lost listed")
	gone["lost fallback"] = p.index(repo, derived(gone["untagged"], ""), mediaIndex, gone["lost listed referrer"])
	for _, ending := range []string{".sig", ".att", ".sbom"} {
		kept[ending] = p.image(repo, derived(kept["sparse index"], ending), "kept"+ending)
		gone[ending] = p.image(repo, derived(gone["untagged"], ending), "gone"+ending)
	}
	kept["signature of a signature"] = p.image(repo, derived(kept[".sig"], ".sig"), "signature of a signature")
	elsewhere := desc{Digest: digestOf([]byte("in another registry"))}
	kept["signature of what is elsewhere"] = p.image(repo, derived(elsewhere, ".sig"), "elsewhere")

	kept["signature in another repository"] = p.image("team/signatures", derived(kept["tagged"], ".sig"), "far signature")
	gone["signature in another repository of what goes"] = p.image("team/signatures", derived(gone["untagged"], ".sig"), "lost far signature")

	gone["all of a repository"] = p.image("old/one", "", "all of a repository")

	p, r := pruned(t, store, end, registry.PruneOptions{Untagged: true})
	repoOf := func(what string) string {
		switch {
		case strings.HasPrefix(what, "signature in another repository"):
			return "team/signatures"
		case what == "all of a repository":
			return "old/one"
		}
		return repo
	}
	for what, d := range kept {
		if !p.has(repoOf(what), d.Digest) {
			t.Errorf("%s is gone", what)
		}
	}
	for what, d := range gone {
		if p.has(repoOf(what), d.Digest) {
			t.Errorf("%s is still there", what)
		}
	}
	for _, content := range []string{"tagged", "child", "inner child", "child of Docker's", "sbom", "listed", "kept.sig", "elsewhere"} {
		if !p.hasBlob(repo, content) {
			t.Errorf("the blob of %q is gone", content)
		}
	}
	for _, content := range []string{"untagged", "old", "lost child", "lost sbom", "gone.sig"} {
		if p.hasBlob(repo, content) {
			t.Errorf("the blob of %q is still there", content)
		}
	}
	if len(r.Manifests) != len(gone) {
		t.Errorf("%d manifests were removed, want %d: %+v", len(r.Manifests), len(gone), r.Manifests)
	}
	resp, raw := request(t, http.MethodGet, p.base+"/v2/"+repo+"/tags/list", nil)
	wantStatus(t, resp, raw, http.StatusOK)
	for what, tag := range map[string]string{"fallback": derived(gone["untagged"], ""), "signature": derived(gone["untagged"], ".sig")} {
		if bytes.Contains(raw, []byte(tag+`"`)) {
			t.Errorf("the tag of a %s that is gone is still there: %s", what, raw)
		}
	}
	if resp, raw := request(t, http.MethodGet, p.base+"/v2/_catalog", nil); !bytes.Contains(raw, []byte(`["team/app","team/signatures"]`)) {
		t.Errorf("catalog %d: %s", resp.StatusCode, raw)
	}
}

// TestPruneBlobs leaves manifests alone, and spares what is new.
func TestPruneBlobs(t *testing.T) {
	for _, spare := range []time.Duration{0, time.Hour} {
		t.Run(spare.String(), func(t *testing.T) {
			p, store, end := newPusher(t)
			tagged, untagged := p.image("a", "1", "tagged"), p.image("a", "", "untagged")
			deleted := p.image("a", "2", "deleted")
			resp, raw := request(t, http.MethodDelete, p.base+"/v2/a/manifests/"+deleted.Digest, nil)
			wantStatus(t, resp, raw, http.StatusAccepted)
			p.blob("a", mediaTar, "without a manifest")
			p.blob("b", mediaTar, "tagged")
			p.blob("c", mediaTar, "without a manifest")
			resp, raw = request(t, http.MethodPost, p.base+"/v2/a/blobs/uploads/", nil)
			wantStatus(t, resp, raw, http.StatusAccepted)
			upload := location(t, resp, p.base)
			resp, raw = request(t, http.MethodPatch, upload, strings.NewReader("unfinished"))
			wantStatus(t, resp, raw, http.StatusAccepted)
			p, r := pruned(t, store, end, registry.PruneOptions{BlobsOlder: spare, UploadsOlder: spare})
			if !p.has("a", tagged.Digest) || !p.has("a", untagged.Digest) || !p.hasBlob("a", "tagged") || !p.hasBlob("a", "untagged") || !p.hasBlob("b", "tagged") {
				t.Error("what is needed is gone")
			}
			left := spare > 0
			for _, content := range []string{"deleted", "without a manifest"} {
				if p.hasBlob("a", content) != left {
					t.Errorf("the blob of %q is there: %v", content, !left)
				}
			}
			if wantUploads := map[bool]int{false: 1}[left]; r.Uploads != wantUploads {
				t.Errorf("%d uploads were removed, want %d", r.Uploads, wantUploads)
			}
			// The manifest, the configuration and the layer of the deleted one, and the blob without any.
			if want := map[bool]int{false: 4}[left]; len(r.Blobs) != want || len(r.Manifests) != 0 {
				t.Errorf("removed %+v, want %d blobs", r, want)
			}
			if left {
				if r.Bytes != 0 {
					t.Errorf("removed %d bytes", r.Bytes)
				}
				// The transfer goes on.
				_, below, _ := strings.Cut(upload, "/v2/")
				resp, raw = request(t, http.MethodGet, p.base+"/v2/"+below, nil)
				wantStatus(t, resp, raw, http.StatusNoContent)
				p.manifest("c", "1", mediaImage, map[string]any{"config": p.blob("c", mediaConf, "{}"), "layers": []desc{{mediaTar, digestOf([]byte("without a manifest")), 18, nil}}})
			}
		})
	}
}

// TestPruneLaterSparesNothing is for the clock that is given.
func TestPruneLaterSparesNothing(t *testing.T) {
	p, store, end := newPusher(t)
	p.blob("a", mediaTar, "without a manifest")
	_, r := pruned(t, store, end, registry.PruneOptions{Now: time.Now().Add(2 * time.Hour), BlobsOlder: time.Hour})
	if len(r.Blobs) != 1 || r.Bytes != 18 {
		t.Errorf("removed %+v", r)
	}
}

// TestPruneWhatACrashLeft has what processes leave that were killed at the worst time.
func TestPruneWhatACrashLeft(t *testing.T) {
	p, store, end := newPusher(t)
	whole := p.image("a", "1", "whole")
	end()
	root := filepath.Join(store, "docker/registry/v2")
	hex := strings.TrimPrefix(whole.Digest, "sha256:")
	for path, content := range map[string]string{
		// A tag that was linked and not set; one that was being set.
		"repositories/a/_manifests/tags/half/index/sha256/" + hex + "/link": whole.Digest,
		"repositories/a/_manifests/tags/1/current/link.ABC.tmp":             whole.Digest[:20],
		// A blob whose name was made, and a manifest that was being written.
		"blobs/sha256/ab/ab" + strings.Repeat("0", 62) + "/data.XYZ.tmp": "half a manifest",
		// What cannot be followed.
		"repositories/a/_layers/sha256/" + strings.Repeat("1", 64) + "/link": "sha256:" + strings.Repeat("1", 64),
		"repositories/a/_layers/sha256/" + strings.Repeat("2", 64) + "/link": "",
		"repositories/a/_manifests/tags/broken/current/link":                 "sha2",
	} {
		full := filepath.Join(root, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(full), 0o755), os.WriteFile(full, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	base, end := openServer(t, registry.Options{Store: store})
	if resp, raw := request(t, http.MethodGet, base+"/v2/a/tags/list", nil); !bytes.Contains(raw, []byte(`["1","broken"]`)) {
		t.Errorf("tags before: %d %s", resp.StatusCode, raw)
	}
	p, r := pruned(t, store, end, registry.PruneOptions{})
	if r.Leftovers != 3 {
		t.Errorf("%d leftovers, want 3: %+v", r.Leftovers, r)
	}
	if !p.has("a", "1") || !p.hasBlob("a", "whole") {
		t.Error("what is whole is gone")
	}
	for _, path := range contentOfStore(t, store) {
		if strings.Contains(path, ".tmp") || strings.Contains(path, "/half") || strings.Contains(path, "ab0000") {
			t.Errorf("left: %s", path)
		}
	}
}

// TestPruneKeepsWhatItCannotRead: a manifest that is damaged keeps all of its repository.
func TestPruneKeepsWhatItCannotRead(t *testing.T) {
	p, store, end := newPusher(t)
	damaged := p.image("a", "1", "damaged")
	p.blob("a", mediaTar, "perhaps needed")
	p.image("a", "", "untagged beside it")
	p.blob("b", mediaTar, "not needed")
	end()
	hex := strings.TrimPrefix(damaged.Digest, "sha256:")
	if err := os.WriteFile(filepath.Join(store, "docker/registry/v2/blobs/sha256", hex[:2], hex, "data"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	p, r := pruned(t, store, end, registry.PruneOptions{Untagged: true})
	if len(r.Unread) != 1 || r.Unread[0].Digest != damaged.Digest || r.Unread[0].Repository != "a" {
		t.Errorf("unread: %+v", r.Unread)
	}
	for _, content := range []string{"damaged", "perhaps needed", "untagged beside it"} {
		if !p.hasBlob("a", content) {
			t.Errorf("the blob of %q is gone", content)
		}
	}
	if p.hasBlob("b", "not needed") || len(r.Blobs) != 1 {
		t.Errorf("removed %+v", r.Blobs)
	}
}

func TestPruneNoStore(t *testing.T) {
	var none *registry.NoStoreError
	for _, dir := range []string{t.TempDir(), filepath.Join(t.TempDir(), "missing")} {
		if _, err := registry.Prune(t.Context(), dir, registry.PruneOptions{Now: time.Now()}); !errors.As(err, &none) {
			t.Errorf("%s: %v", dir, err)
		}
	}
}

// TestPruneWhileServedReadOnly: those who read find each other things, or nothing.
func TestPruneWhileServedReadOnly(t *testing.T) {
	p, store, end := newPusher(t)
	p.image("a", "1", "tagged")
	p.image("a", "", "untagged")
	end()
	base, _ := openServer(t, registry.Options{Store: store, ReadOnly: true})
	reader := &pusher{t, base}
	if !reader.hasBlob("a", "untagged") {
		t.Fatal("not there before")
	}
	if _, err := registry.Prune(t.Context(), store, registry.PruneOptions{Now: time.Now(), Untagged: true}); err != nil {
		t.Fatal(err)
	}
	if reader.hasBlob("a", "untagged") || !reader.hasBlob("a", "tagged") || !reader.has("a", "1") {
		t.Error("the one that serves does not see what was removed")
	}
}
