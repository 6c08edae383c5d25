package install

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sealift/sealift/internal/ledger"
	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/internal/oci/ocitest"
	"github.com/sealift/sealift/internal/progress"
	"github.com/sealift/sealift/manifest"
)

func TestParseOwned(t *testing.T) {
	hex := strings.Repeat("a", 16)
	digest := "sha256:" + strings.Repeat("a", 64)
	for _, version := range []string{"1.0.0", "1.0.0-rc.1", "1.2.3+build.5", "1.2.3-a.b+c"} {
		name, got, whole, ok := parseOwned(ownedTag(&manifest.Manifest{Name: "shop-eu", Version: version}, digest))
		if name != "shop-eu" || got != version || !whole || !ok {
			t.Errorf("%s: got %q %q %v %v", version, name, got, whole, ok)
		}
	}
	for _, long := range []int{90, 97, 98, 110} {
		m := &manifest.Manifest{Name: "shop", Version: "1.0.0-" + strings.Repeat("x", long)}
		name, got, whole, ok := parseOwned(ownedTag(m, digest))
		if name != "shop" || !ok || whole && got != m.Version {
			t.Errorf("%d: got %q %q %v %v", long, name, got, whole, ok)
		}
	}
	for _, tag := range []string{"1.0.0", "sealift.shop", "sealift.shop.1.0.0", "sealift.shop.1.0.0." + hex[1:], "sealift.shop.1.0." + hex, "sealift.Shop.1.0.0." + hex, "sealift..1.0.0." + hex, "sealift." + hex, "xsealift.shop.1.0.0." + hex} {
		if name, version, _, ok := parseOwned(tag); ok {
			t.Errorf("%s: got %q %q", tag, name, version)
		}
	}
}

func FuzzParseOwned(f *testing.F) {
	for _, s := range []string{"sealift.a.1.0.0.0123456789abcdef", "sealift..", "sealift.a.1.0.0_x.0123456789abcdef", "sealift"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, tag string) {
		name, version, whole, ok := parseOwned(tag)
		if ok && whole && ownedTag(&manifest.Manifest{Name: name, Version: version}, "sha256:"+tag[len(tag)-16:]) != tag {
			t.Errorf("%q is %q %q", tag, name, version)
		}
	})
}

// place is a repository with versions of a bundle in it.
type place struct {
	t    *testing.T
	repo *oci.Repository
	reg  *ocitest.Registry
}

func newPlace(t *testing.T, kind string) *place {
	r := ocitest.New(t, kind)
	return &place{t, r.Open(t, "p/app"), r}
}

// seed puts an image there as a version of a bundle.
func (p *place) seed(bundle, version, tag, seed string) string {
	p.t.Helper()
	digest := ocitest.Image(p.t, p.repo, tag, "amd64", seed)
	p.own(bundle, version, digest)
	return digest
}

func (p *place) own(bundle, version, digest string) {
	p.t.Helper()
	c, err := p.repo.Manifest(p.t.Context(), digest)
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.repo.PutManifest(p.t.Context(), ownedTag(&manifest.Manifest{Name: bundle, Version: version}, digest), c); err != nil {
		p.t.Fatal(err)
	}
}

func (p *place) options() PruneOptions {
	return PruneOptions{
		Client: ocitest.Client(), Target: Target{Registry: p.reg.Addr, Prefix: "p"}, Keep: 1, Repositories: []string{"p/app", "p/missing", "other/app"},
		Needed: NeededBy(nil, p.reg.Addr, true), OtherTags: true, Progress: progress.Discard,
	}
}

func (p *place) run(o PruneOptions) (*PruneResult, error) {
	p.t.Helper()
	pruning, err := PreparePrune(p.t.Context(), o)
	if err != nil {
		p.t.Fatal(err)
	}
	preview := pruning.Preview()
	p.reg.Requests()
	done, err := pruning.Run(p.t.Context())
	if err == nil && (len(done.Tags) > len(preview.Tags) || len(done.Manifests) > len(preview.Manifests)) {
		p.t.Errorf("more was removed than shown: %+v, %+v", done, preview)
	}
	return done, err
}

// tags are the tags that are left, those of bundles as NAME@VERSION.
func (p *place) tags() string {
	p.t.Helper()
	list, err := p.repo.Tags(p.t.Context())
	if err != nil && !oci.IsNotFound(err) {
		p.t.Fatal(err)
	}
	var all []string
	for _, tag := range list {
		if digest, err := p.repo.ManifestDigest(p.t.Context(), tag); err != nil {
			p.t.Fatal(err)
		} else if digest == "" {
			continue
		}
		if name, version, _, ok := parseOwned(tag); ok {
			tag = name + "@" + version
		}
		all = append(all, tag)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func (p *place) has(digest string) bool {
	p.t.Helper()
	got, err := p.repo.ManifestDigest(p.t.Context(), digest)
	if err != nil {
		p.t.Fatal(err)
	}
	return got != ""
}

func why(list []PrunedTag) map[string]string {
	all := map[string]string{}
	for _, t := range list {
		all[t.Tag] = t.Why
	}
	return all
}

func TestPrune(t *testing.T) {
	for _, kind := range ocitest.Kinds {
		p := newPlace(t, kind)
		one := p.seed("shop", "1.0.0", "1.0.0", "one")
		two := p.seed("shop", "2.0.0-rc.1", "2.0.0-rc.1", "two")
		three := p.seed("shop", "2.0.0", "2.0.0", "three")
		p.seed("shop", "10.0.0", "10.0.0", "ten")
		p.seed("shop", "9.0.0", "9.0.0", "nine")
		// One that another bundle has too, and one that no bundle has.
		p.own("tools", "1.0.0", three)
		ocitest.Image(t, p.repo, "own", "amd64", "own")
		o := p.options()
		o.Keep = 2
		// Without --other-tags the vendor's tags are nobody's.
		o.OtherTags = false
		o.Needed.Vendors["p/app:1.0.0"] = map[string]bool{one: true}
		o.Needed.Vendors["p/app:2.0.0-rc.1"] = map[string]bool{one: true}
		done, err := p.run(o)
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		if got, want := p.tags(), "10.0.0 2.0.0 2.0.0-rc.1 9.0.0 own shop@10.0.0 shop@9.0.0 tools@1.0.0"; got != want {
			t.Errorf("%s: got %s, want %s", kind, got, want)
		}
		left := why(done.Left)
		if !strings.Contains(left["2.0.0"], "tools 1.0.0 has it too") || !strings.Contains(left["2.0.0-rc.1"], "no receipt") {
			t.Errorf("%s: got %v", kind, left)
		}
		if !p.has(one) || !p.has(two) {
			t.Errorf("%s: an image was deleted by digest", kind)
		}
		if len(done.Manifests) != 0 || done.AtMost == 0 {
			t.Errorf("%s: got %+v", kind, done)
		}
	}
}

// What is needed stays, whatever its age.
func TestPruneNeeded(t *testing.T) {
	receipt := func(version, outcome string, images ...ledger.Image) ledger.Receipt {
		return ledger.Receipt{Version: version, Outcome: outcome, Images: images}
	}
	p := newPlace(t, ocitest.WithoutAPI)
	digests := map[string]string{}
	for i := range 9 {
		v := fmt.Sprintf("%d.0.0", i+1)
		digests[v] = p.seed("shop", v, v, v)
	}
	index, children := ocitest.Index(t, p.repo, "0.1.0", "index", "amd64", "arm64")
	p.own("shop", "0.1.0", index)
	c, err := p.repo.Manifest(t.Context(), digests["6.0.0"])
	if err != nil {
		t.Fatal(err)
	}
	named, err := oci.ParseNamed(c.Raw)
	if err != nil {
		t.Fatal(err)
	}
	installed := receipt("2.0.0", ledger.OutcomeDone, ledger.Image{Target: p.reg.Addr + "/p/app:2.0.0", Digest: digests["2.0.0"]})
	states := []*ledger.State{{
		Name: "shop", Installed: &installed,
		History: []ledger.Receipt{
			receipt("1.0.0", ledger.OutcomeDone, ledger.Image{Target: p.reg.Addr + "/p/app:1.0.0@" + digests["1.0.0"], Digest: digests["1.0.0"]}),
			receipt("3.0.0", ledger.OutcomeBack),
		},
		Open: &ledger.Transaction{Phase: ledger.PhaseStaged, Receipt: receipt("4.0.0", "")},
	}}
	run := func(history bool) map[string]string {
		o := p.options()
		o.Needed = NeededBy(states, p.reg.Addr, history)
		o.Needed.Running(map[string]string{
			"docker-pullable://other.site/app@" + digests["5.0.0"]:  "pod a/b",
			"sha256:" + strings.TrimPrefix(named.Config, "sha256:"): "pod a/c",
			"registry.other.name/p/app:7.0.0":                       "pod a/d",
			p.reg.Addr + "/p/app@" + children[1]:                    "pod a/e",
			"not a reference at all":                                "pod a/f",
		})
		pruning, err := PreparePrune(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		goes := map[string]string{}
		for _, tag := range pruning.Preview().Tags {
			goes[tag.Tag] = tag.Digest
		}
		return goes
	}
	for version, goes := range map[string]bool{
		"0.1.0": false, "1.0.0": false, "2.0.0": false, "3.0.0": true, "4.0.0": false, "5.0.0": false, "6.0.0": false, "7.0.0": false, "8.0.0": true, "9.0.0": false,
	} {
		if _, got := run(true)[version]; got != goes {
			t.Errorf("%s goes: %v, want %v", version, got, goes)
		}
	}
	if _, goes := run(false)["1.0.0"]; !goes {
		t.Error("1.0.0 stays, though the history is not to count")
	}
}

// What is deleted by digest takes along what is below it, and about it, and nothing that is needed.
func TestPruneForce(t *testing.T) {
	for _, kind := range ocitest.Kinds {
		p := newPlace(t, kind)
		old, oldChildren := ocitest.Index(t, p.repo, "1.0.0", "base", "amd64", "arm64")
		p.own("shop", "1.0.0", old)
		sig := ocitest.Tag(t, p.repo, old, ".sig", ocitest.SBOM("signature"))
		sbom := ocitest.Attach(t, p.repo, oldChildren[0], "application/spdx+json", ocitest.SBOM("sbom"))
		// The new one has one of the children.
		raw, err := p.repo.Manifest(t.Context(), oldChildren[1])
		if err != nil {
			t.Fatal(err)
		}
		list := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":%d}]}`, ocitest.MediaTypeIndex, raw.MediaType, raw.Digest, raw.Size)
		fresh := ocitest.PutManifest(t, p.repo, "2.0.0", ocitest.MediaTypeIndex, []byte(list))
		p.own("shop", "2.0.0", fresh)
		freshSig := ocitest.Tag(t, p.repo, fresh, ".sig", ocitest.SBOM("another signature"))
		o := p.options()
		o.Force = true
		done, err := p.run(o)
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		for what, test := range map[string]struct {
			digest string
			want   bool
		}{
			"old index": {old, false}, "old child": {oldChildren[0], false}, "shared child": {oldChildren[1], true}, "old signature": {sig, false},
			"SBOM": {sbom, false}, "new index": {fresh, true}, "new signature": {freshSig, true},
		} {
			if got := p.has(test.digest); got != test.want {
				t.Errorf("%s: %s is there: %v, want %v", kind, what, got, test.want)
			}
		}
		if got := p.tags(); !strings.Contains(got, "2.0.0") || strings.Contains(got, "1.0.0") || strings.Contains(got, oci.ReferrersTag(old)) {
			t.Errorf("%s: got %s", kind, got)
		}
		if len(done.Manifests) < 4 {
			t.Errorf("%s: got %+v", kind, done.Manifests)
		}
		// A second run has nothing to do.
		again, err := p.run(o)
		if err != nil || len(again.Tags)+len(again.Manifests) != 0 || ocitest.Writes(p.reg.Requests()) != 0 {
			t.Errorf("%s: got %+v, %v", kind, again, err)
		}
	}
}

func TestPruneRegistries(t *testing.T) {
	refuseTags := func(w http.ResponseWriter, req *http.Request) bool {
		if req.Method != http.MethodDelete || strings.Contains(req.URL.Path, "sha256:") {
			return false
		}
		w.WriteHeader(http.StatusMethodNotAllowed)
		_, _ = io.WriteString(w, `{"errors":[{"code":"UNSUPPORTED"}]}`)
		return true
	}
	shared := func(t *testing.T) (*place, string) {
		p := newPlace(t, ocitest.WithoutAPI)
		one := p.seed("shop", "1.0.0", "1.0.0", "one")
		p.seed("shop", "2.0.0", "2.0.0", "two")
		three := p.seed("shop", "0.1.0", "latest", "three")
		p.own("shop", "2.0.0", three)
		return p, one
	}
	t.Run("no tags", func(t *testing.T) {
		p, one := shared(t)
		before := p.tags()
		p.reg.Intercept(refuseTags)
		var no *NoTagDeletionError
		if _, err := p.run(p.options()); !errors.As(err, &no) || no.All || !errors.Is(err, oci.ErrNoDelete) {
			t.Errorf("got %v", err)
		}
		if got := p.tags(); got != before || !p.has(one) {
			t.Errorf("got %s, want %s", got, before)
		}
		o := p.options()
		o.Force = true
		done, err := p.run(o)
		if err != nil || p.has(one) {
			t.Errorf("got %v", err)
		}
		if got, want := p.tags(), "2.0.0 latest shop@0.1.0 shop@2.0.0 shop@2.0.0"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if left := fmt.Sprint(why(done.Left)); !strings.Contains(left, "deletes no tags") {
			t.Errorf("got %s", left)
		}
	})
	t.Run("nothing", func(t *testing.T) {
		p, one := shared(t)
		p.reg.Intercept(func(w http.ResponseWriter, req *http.Request) bool {
			if req.Method == http.MethodDelete {
				w.WriteHeader(http.StatusMethodNotAllowed)
			}
			return req.Method == http.MethodDelete
		})
		o := p.options()
		o.Force = true
		var no *NoTagDeletionError
		if _, err := p.run(o); !errors.As(err, &no) || !no.All || !p.has(one) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("says so and does not", func(t *testing.T) {
		p, _ := shared(t)
		p.reg.Intercept(func(w http.ResponseWriter, req *http.Request) bool {
			if req.Method == http.MethodDelete {
				w.WriteHeader(http.StatusAccepted)
			}
			return req.Method == http.MethodDelete
		})
		var no *NoTagDeletionError
		if _, err := p.run(p.options()); !errors.As(err, &no) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a tag takes the image along", func(t *testing.T) {
		p, _ := shared(t)
		before := p.tags()
		p.reg.Intercept(func(w http.ResponseWriter, req *http.Request) bool {
			tag := req.URL.Path[strings.LastIndex(req.URL.Path, "/")+1:]
			if req.Method != http.MethodDelete || strings.HasPrefix(tag, "sha256:") || !strings.Contains(tag, ".0.1.0.") {
				return false
			}
			digest, err := p.repo.ManifestDigest(context.Background(), tag)
			if err == nil {
				err = p.repo.DeleteManifest(context.Background(), digest)
			}
			if err != nil {
				w.WriteHeader(http.StatusTeapot)
				return true
			}
			w.WriteHeader(http.StatusAccepted)
			return true
		})
		var takes *TagTakesImageError
		o := p.options()
		_, err := p.run(o)
		if !errors.As(err, &takes) || len(takes.Back) != 2 {
			t.Errorf("got %v", err)
		}
		// All but what was to be removed.
		want := strings.NewReplacer(" 1.0.0", "", "shop@0.1.0 ", "", "shop@1.0.0 ", "", "1.0.0 ", "").Replace(before)
		if got := p.tags(); got != want && got != "1.0.0 "+want && !strings.Contains(got, "latest shop@") {
			t.Errorf("got %s, want %s", got, want)
		}
		if got := p.tags(); !strings.Contains(got, "latest") || !strings.Contains(got, "shop@2.0.0 shop@2.0.0") {
			t.Errorf("got %s", got)
		}
	})
	t.Run("a tag takes the child of an index along", func(t *testing.T) {
		p := newPlace(t, ocitest.WithoutAPI)
		index, children := ocitest.Index(t, p.repo, "2.0.0", "seed", "amd64", "arm64")
		p.own("shop", "2.0.0", index)
		p.own("shop", "1.0.0", children[0])
		p.reg.Intercept(func(w http.ResponseWriter, req *http.Request) bool {
			tag := req.URL.Path[strings.LastIndex(req.URL.Path, "/")+1:]
			if req.Method != http.MethodDelete || strings.HasPrefix(tag, "sha256:") {
				return false
			}
			digest, err := p.repo.ManifestDigest(context.Background(), tag)
			if err == nil {
				err = p.repo.DeleteManifest(context.Background(), digest)
			}
			if err != nil {
				w.WriteHeader(http.StatusTeapot)
				return true
			}
			w.WriteHeader(http.StatusAccepted)
			return true
		})
		var takes *TagTakesImageError
		if _, err := p.run(p.options()); !errors.As(err, &takes) || len(takes.Back) != 0 || !strings.Contains(err.Error(), "something else needs it") {
			t.Errorf("got %v", err)
		}
		if !p.has(children[0]) || !p.has(index) {
			t.Errorf("an image of the version that stays is gone: %s", p.tags())
		}
	})
	for _, status := range []int{401, 403} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			p, one := shared(t)
			p.reg.Intercept(func(w http.ResponseWriter, req *http.Request) bool {
				if req.Method == http.MethodDelete {
					w.WriteHeader(status)
				}
				return req.Method == http.MethodDelete
			})
			if _, err := p.run(p.options()); !oci.IsDenied(err) || !p.has(one) {
				t.Errorf("got %v", err)
			}
		})
	}
	t.Run("no catalog", func(t *testing.T) {
		p, _ := shared(t)
		p.reg.Intercept(func(w http.ResponseWriter, req *http.Request) bool {
			if req.URL.Path == "/v2/_catalog" {
				w.WriteHeader(http.StatusForbidden)
				return true
			}
			return false
		})
		o := p.options()
		o.Repositories = nil
		var none *NoRepositoriesError
		if _, err := PreparePrune(t.Context(), o); !errors.As(err, &none) {
			t.Errorf("got %v", err)
		}
		// Receipts know some.
		o.Needed.Vendors["p/app:1.0.0"] = map[string]bool{}
		if pruning, err := PreparePrune(t.Context(), o); err != nil || len(pruning.Preview().Tags) == 0 {
			t.Errorf("got %v", err)
		}
	})
}

// What is changed between looking and removing stays.
func TestPruneMeanwhile(t *testing.T) {
	for _, force := range []bool{false, true} {
		p := newPlace(t, ocitest.WithoutAPI)
		p.seed("shop", "1.0.0", "1.0.0", "one")
		gone := p.seed("shop", "1.1.0", "1.1.0", "gone")
		again := p.seed("shop", "1.2.0", "1.2.0", "again")
		p.seed("shop", "2.0.0", "2.0.0", "two")
		o := p.options()
		o.Force = force
		pruning, err := PreparePrune(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		// A tag moves, an image goes, and one gets a new tag.
		moved := ocitest.Image(t, p.repo, "1.0.0", "amd64", "moved")
		if err := p.repo.DeleteManifest(t.Context(), gone); err != nil {
			t.Fatal(err)
		}
		ocitest.Image(t, p.repo, "new", "amd64", "again")
		done, err := pruning.Run(t.Context())
		if err != nil {
			t.Fatalf("%v: %v", force, err)
		}
		if !p.has(moved) || !p.has(again) {
			t.Errorf("%v: what was changed meanwhile is gone", force)
		}
		tags := p.tags()
		for tag, want := range map[string]bool{"1.0.0": true, "new": true, "1.1.0": false, "shop@1.0.0": false, "shop@2.0.0": true, "shop@1.2.0": force} {
			if got := slices.Contains(strings.Fields(tags), tag); got != want {
				t.Errorf("force %v: %s is there: %v, want %v", force, tag, got, want)
			}
		}
		if left := why(done.Left); left["1.0.0"] != movedWhy {
			t.Errorf("%v: got %v", force, left)
		}
	}
}

// The bytes that are said to become free are those that nothing else has.
func TestPruneBytes(t *testing.T) {
	p := newPlace(t, ocitest.WithoutAPI)
	blob := func(text string) string {
		ocitest.PutBlob(t, p.repo, []byte(text))
		return fmt.Sprintf(`{"mediaType":"x/y","digest":%q,"size":%d}`, manifest.Digest([]byte(text)), len(text))
	}
	put := func(version string, layers ...string) int64 {
		raw := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":%s,"layers":[%s]}`, ocitest.MediaTypeManifest, blob("config "+version), strings.Join(layers, ","))
		p.own("shop", version, ocitest.PutManifest(t, p.repo, version, ocitest.MediaTypeManifest, []byte(raw)))
		return int64(len(raw) + len("config "+version))
	}
	own := put("1.0.0", blob("shared by all"), blob("of one only"))
	own += put("1.1.0", blob("shared by all"), blob("of two that go"))
	own += put("1.2.0", blob("shared by all"), blob("of two that go"))
	put("2.0.0", blob("shared by all"), blob("of what stays"))
	pruning, err := PreparePrune(t.Context(), p.options())
	if err != nil {
		t.Fatal(err)
	}
	r := pruning.Preview()
	if want := own + int64(len("of one only")+len("of two that go")); r.AtMost != want || r.Blobs != 5 || len(r.Manifests) != 3 {
		t.Errorf("got %d bytes of %d blobs in %d manifests, want %d", r.AtMost, r.Blobs, len(r.Manifests), want)
	}
}

// TestPruneDebian: docker-registry as Debian has it, when it may delete.
func TestPruneDebian(t *testing.T) {
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Skip("docker-registry is not installed")
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yml")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, fmt.Appendf(nil,
		"version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}, delete: {enabled: true}}\nhttp: {addr: %s}\n", dir, addr), 0o600); err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), program, "serve", config)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	client := oci.NewClient(oci.Options{Side: "test registry", Transport: oci.NewTransport(nil), Budget: oci.Budget{Wait: 10 * time.Millisecond, LongestWait: 50 * time.Millisecond}})
	repo, err := client.Repository(t.Context(), addr, "p/app", true)
	for n := 0; err != nil && n < 100; n++ {
		time.Sleep(50 * time.Millisecond)
		repo, err = client.Repository(t.Context(), addr, "p/app", true)
	}
	if err != nil {
		t.Fatal(err)
	}
	p := &place{t, repo, &ocitest.Registry{Addr: addr}}
	one := p.seed("shop", "1.0.0", "1.0.0", "one")
	two := p.seed("shop", "2.0.0", "2.0.0", "two")
	o := p.options()
	o.Client, o.Repositories = client, nil
	_, err = p.run(o)
	var no *NoTagDeletionError
	if err != nil && !errors.As(err, &no) {
		t.Fatal(err)
	}
	t.Logf("without force: %v", err)
	o.Force = true
	if _, err := p.run(o); err != nil {
		t.Fatal(err)
	}
	if got := p.tags(); got != "2.0.0 shop@2.0.0" || !p.has(two) || no != nil && p.has(one) {
		t.Errorf("got %s", got)
	}
}

// TestNeededByClusters: what any of the clusters needs stays.
func TestNeededByClusters(t *testing.T) {
	state := func(name, version, digest string) *ledger.State {
		return &ledger.State{Name: name, Installed: &ledger.Receipt{Version: version, Images: []ledger.Image{{Target: "reg.example/p/app:" + version, Digest: digest}}}}
	}
	n := NeededBy([]*ledger.State{state("shop", "2.0.0", "sha256:b")}, "reg.example", true)
	more := NeededBy([]*ledger.State{state("shop", "1.0.0", "sha256:a"), state("mail", "1.0.0", "sha256:c")}, "reg.example", true)
	more.Running(map[string]string{"reg.example/p/app:0.9.0": "pod a/b"})
	n.Add(more)
	for _, version := range []string{"1.0.0", "2.0.0"} {
		if n.Versions["shop"][version] == "" {
			t.Errorf("version %s does not stay", version)
		}
	}
	for _, digest := range []string{"sha256:a", "sha256:b", "sha256:c"} {
		if n.Digests[digest] == "" {
			t.Errorf("%s does not stay", digest)
		}
	}
	if n.Versions["mail"]["1.0.0"] == "" || n.Tags["p/app:0.9.0"] == "" || !n.Vendors["p/app:1.0.0"]["sha256:a"] || !n.Vendors["p/app:1.0.0"]["sha256:c"] {
		t.Errorf("got %+v", n)
	}
}
