package cli_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/internal/cli"
	"github.com/sealift/sealift/internal/registry"
	"github.com/sealift/sealift/internal/sigstore"
	"github.com/sealift/sealift/internal/sigstore/sigtest"
	"github.com/sealift/sealift/internal/trust"
	"github.com/sealift/sealift/manifest"
	"github.com/sealift/sealift/verify"
)

// signingKey is a key that somebody signs with. It is not encrypted: deriving a key from a password
// takes longer than everything else here.
type signingKey struct {
	private *ecdsa.PrivateKey
	public  []byte
	signer  *sigstore.Signer
}

var attackKeys = struct {
	sync.Mutex
	byName map[string]*signingKey
}{byName: map[string]*signingKey{}}

// key is the key of who is called name: the same one in every test.
func (s *stage) key(name string) *signingKey {
	s.t.Helper()
	attackKeys.Lock()
	defer attackKeys.Unlock()
	if k := attackKeys.byName[name]; k != nil {
		return k
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	s.ok(err)
	der, err := x509.MarshalPKCS8PrivateKey(private)
	s.ok(err)
	k := &signingKey{private: private}
	k.signer, err = sigstore.LoadSigner(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil)
	s.ok(err)
	k.public = k.signer.PublicKey().PEM
	attackKeys.byName[name] = k
	return k
}

// Two sigstores: the one that the sites trust, and one that somebody else runs.
var ownSigstore, foreignSigstore struct {
	sync.Once
	*sigtest.Virtual
}

func (s *stage) sigstore() *sigtest.Virtual {
	s.t.Helper()
	ownSigstore.Do(func() { ownSigstore.Virtual = sigtest.New(s.t) })
	return ownSigstore.Virtual
}

func (s *stage) foreign() *sigtest.Virtual {
	s.t.Helper()
	foreignSigstore.Do(func() { foreignSigstore.Virtual = sigtest.New(s.t) })
	return foreignSigstore.Virtual
}

// stage is where one attack plays: a site with its record and its registry, and the bundles that
// come to it.
type stage struct {
	t     *testing.T
	dir   string
	state string
	// now is the clock of the site.
	now      time.Time
	files    int
	registry *watchedRegistry
	// midway says that the attack is found out only while the bundle is sent.
	midway bool
	// weakened says that the operator has used a flag that the journal tells of before anything is
	// done.
	weakened bool
}

func newStage(t *testing.T) *stage {
	t.Helper()
	dir := t.TempDir()
	return &stage{t: t, dir: dir, state: filepath.Join(dir, "state"), now: time.Date(2026, 2, 1, 12, 0, 0, 0, time.UTC)}
}

func (s *stage) ok(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// attempt is a command that somebody at the site is brought to run.
type attempt struct {
	args []string
	// state is that of another site than the stage's, now another time.
	state string
	now   time.Time
	env   map[string]string
	// before is done first, after the other attempt.
	before func()
}

// run runs a command at the site.
func (s *stage) run(a attempt) (code int, stdout, stderr string) {
	s.t.Helper()
	env := map[string]string{"HOME": s.dir, "SEALIFT_STATE": s.state, "SEALIFT_CONFIG": filepath.Join(s.dir, "config.yaml")}
	if a.state != "" {
		env["SEALIFT_STATE"] = a.state
	}
	maps.Copy(env, a.env)
	now := a.now
	if now.IsZero() {
		now = s.now
	}
	var out, errs bytes.Buffer
	code = cli.Run(s.t.Context(), a.args, cli.Env{
		Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs, Now: func() time.Time { return now },
		LookupEnv: func(key string) (string, bool) { v, ok := env[key]; return v, ok },
	})
	return code, out.String(), errs.String()
}

// must runs a command that belongs to the setting, which has to succeed.
func (s *stage) must(args ...string) string {
	s.t.Helper()
	code, stdout, stderr := s.run(attempt{args: args})
	if code != 0 {
		s.t.Fatalf("%v: exit code %d\n%s", args, code, stderr)
	}
	return stdout
}

// file writes a file of its own directory.
func (s *stage) file(name string, content []byte) string {
	s.t.Helper()
	s.files++
	dir := filepath.Join(s.dir, strconv.Itoa(s.files))
	s.ok(os.Mkdir(dir, 0o755))
	path := filepath.Join(dir, name)
	s.ok(os.WriteFile(path, content, 0o600))
	return path
}

// policy writes a policy, in which $NAME stands for a public key, $sigstore and $foreign for
// trusted roots.
func (s *stage) policy(text string) string {
	s.t.Helper()
	all := sigtest.RootOptions{TSA: true, Log: true}
	text = "mediaType: " + trust.PolicyMediaType + "\n" + os.Expand(text, func(name string) string {
		switch name {
		case "sigstore":
			return strconv.Quote(string(s.sigstore().TrustedRoot(s.t, all)))
		case "foreign":
			return strconv.Quote(string(s.foreign().TrustedRoot(s.t, all)))
		}
		return strconv.Quote(string(s.key(name).public))
	})
	return s.file("trust.yaml", []byte(text))
}

// pin pins a policy at the site.
func (s *stage) pin(policy string) {
	s.t.Helper()
	s.must("trust", "init", s.policy(policy))
}

// vendorPolicy is what most sites pin: one vendor with one key, for one bundle.
const vendorPolicy = `
signers: {vendor: {key: $vendor}}
rules: [{name: shop, bundles: [shop], groups: [{threshold: 1, signers: [vendor]}]}]
`

// signature makes a signature over the bytes of a manifest.
type signature func(raw []byte) []byte

// by signs with a key.
func (s *stage) by(name string) signature {
	return func(raw []byte) []byte {
		sig, err := s.key(name).signer.Sign(raw)
		s.ok(err)
		return sig
	}
}

// keyless signs as a workflow does, with a certificate of a sigstore.
func (s *stage) keyless(v *sigtest.Virtual, issuer, subject string, o sigtest.Options) signature {
	return func(raw []byte) []byte { return v.SignBlob(s.t, issuer, subject, raw, o) }
}

// byIn signs with a key, and has that logged or stamped by a sigstore.
func (s *stage) byIn(name string, v *sigtest.Virtual, o sigtest.Options) signature {
	return func(raw []byte) []byte { return v.SignBlobWithKey(s.t, s.key(name).private, raw, o) }
}

// of is a signature that was made over other bytes than those that it is put on.
func of(other []byte, sign signature) signature {
	return func([]byte) []byte { return sign(other) }
}

// made is a bundle as somebody makes it.
type made struct {
	name, version, created, expires string
	// source of its image, and namespace of its chart; it has none without.
	source, namespace string
	// layer changes the content of the image.
	layer  string
	signed []signature
	trust  []*trust.SignedRoot
	// spoil changes the bytes of the manifest before they are signed.
	spoil func(raw []byte) []byte
}

// shop is a version of the bundle that is called so, signed by the vendor unless others are named.
func (s *stage) shop(version string, by ...signature) made {
	if len(by) == 0 {
		by = []signature{s.by("vendor")}
	}
	return made{name: "shop", version: version, signed: by}
}

const (
	configType = "application/vnd.oci.image.config.v1+json"
	imageType  = "application/vnd.oci.image.manifest.v1+json"
	layerType  = "application/vnd.oci.image.layer.v1.tar+gzip"
	layerBytes = 3000
)

// layerOf is the only layer of the image of m.
func layerOf(m made) []byte { return bytesOf(m.name+m.version+m.layer, layerBytes) }

// manifestOf is the manifest of m, and its blobs.
func (s *stage) manifestOf(m made) (*manifest.Manifest, [][]byte) {
	s.t.Helper()
	created := m.created
	if created == "" {
		created = "2026-01-02T03:04:05Z"
	}
	source := m.source
	if source == "" {
		source = "registry.example/shop/app:" + strings.ReplaceAll(m.version, "+", "_")
	}
	out := &manifest.Manifest{
		MediaType: manifest.MediaType, Format: manifest.Format, Name: m.name, Version: m.version,
		Channel: manifest.DefaultChannel, Created: created, Expires: m.expires, Platforms: []string{"linux/amd64"},
	}
	var blobs [][]byte
	add := func(mediaType string, content []byte) manifest.Descriptor {
		d := manifest.Descriptor{Digest: manifest.Digest(content), MediaType: mediaType, Size: int64(len(content))}
		out.Blobs = append(out.Blobs, manifest.Blob{Digest: d.Digest, Size: d.Size, MediaType: mediaType, Encoding: manifest.EncodingStored})
		blobs = append(blobs, content)
		return d
	}
	config, layer := []byte(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`), layerOf(m)
	image := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":%d},"layers":[{"mediaType":%q,"digest":%q,"size":%d}]}`,
		imageType, configType, manifest.Digest(config), len(config), layerType, manifest.Digest(layer), len(layer))
	d := add(imageType, image)
	out.Images = []manifest.Image{{
		Source: source, Digest: d.Digest, MediaType: d.MediaType, Size: d.Size, Platforms: out.Platforms,
		Reasons: []manifest.Reason{{Kind: manifest.ReasonSpec}},
	}}
	if m.namespace != "" {
		out.Charts = []manifest.Chart{{
			Name: "shop", Version: "1.0.0", Release: "shop", Namespace: m.namespace,
			Manifest: add(imageType, []byte(`{"schemaVersion":2}`)), Archive: add("application/vnd.cncf.helm.chart.content.v1.tar+gzip", []byte("chart")),
		}}
	}
	add(configType, config)
	add(layerType, layer)
	s.ok(manifest.Arrange(out, nil))
	return out, blobs
}

// bundle writes a bundle as m says, and returns its path.
func (s *stage) bundle(m made) string {
	s.t.Helper()
	content, blobs := s.manifestOf(m)
	raw, err := manifest.Encode(content)
	s.ok(err)
	if m.spoil != nil {
		good := raw
		if raw = m.spoil(bytes.Clone(raw)); bytes.Equal(raw, good) {
			s.t.Fatal("the manifest was not spoiled")
		}
	}
	return s.pack(fmt.Sprintf("%s-%s.tar.zst", m.name, m.version), raw, content.Entries, blobs, m)
}

// pack writes a file whose manifest is raw, whatever that is, signed as m says.
func (s *stage) pack(name string, raw []byte, entries []manifest.Entry, blobs [][]byte, m made) string {
	s.t.Helper()
	path := s.file(name, nil)
	s.ok(os.Remove(path))
	o := archive.SealOptions{Manifest: raw, Done: func(int64) {}}
	for _, sign := range m.signed {
		o.Signatures = append(o.Signatures, sign(raw))
	}
	for _, r := range m.trust {
		o.Trust = append(o.Trust, archive.Trust{Number: r.Root.Version, Body: r.File})
	}
	var err error
	o.Layout, err = archive.NewLayout(int64(len(raw)), 0, entries)
	s.ok(err)
	w, err := archive.NewWriter(archive.Plan{Path: path, Entries: entries, Head: o.Layout.Head(), Size: o.Layout.Size()})
	s.ok(err)
	for i := range entries {
		var of []byte
		switch entries[i].Name {
		case manifest.EntryOCILayout:
			of = manifest.OCILayout()
		case manifest.EntryIndex:
			of = s.index(m)
		default:
			of = blobs[i-2]
		}
		s.ok(w.Entry(i).Fill(s.t.Context(), bytes.NewReader(of), func(int64) {}))
	}
	s.ok(w.Seal(s.t.Context(), o))
	s.ok(w.Publish())
	return path
}

func (s *stage) index(m made) []byte {
	s.t.Helper()
	content, _ := s.manifestOf(m)
	idx, err := manifest.OCIIndex(content)
	s.ok(err)
	return idx
}

// head is what lies before the payload of a bundle.
func (s *stage) head(path string) *archive.Head {
	s.t.Helper()
	src, err := archive.OpenFile(path)
	s.ok(err)
	h, err := archive.ReadHead(src)
	s.ok(err)
	s.ok(src.Close())
	return h
}

// slot changes what the signature slot of a bundle holds.
func (s *stage) slot(path string, change func(*archive.SlotContent)) {
	s.t.Helper()
	files, err := verify.Find([]string{path})
	s.ok(err)
	s.ok(archive.Resign(s.t.Context(), files[0], func(h *archive.Head) (*archive.SlotContent, error) {
		c := h.Slot()
		change(c)
		return c, nil
	}))
}

// edit changes the bytes of a file in its place, without another inode.
func (s *stage) edit(path string, change func(b []byte) []byte) {
	s.t.Helper()
	b, err := os.ReadFile(path)
	s.ok(err)
	changed := change(bytes.Clone(b))
	if bytes.Equal(changed, b) {
		s.t.Fatalf("%s was not changed", path)
	}
	s.ok(os.WriteFile(path, changed, 0o600))
}

// swapLayer puts the layer of another bundle into the place of the one in path, with the framing
// that belongs to it.
func (s *stage) swapLayer(path string, from string, was, is made) {
	s.t.Helper()
	other, err := os.ReadFile(from)
	s.ok(err)
	s.edit(path, func(b []byte) []byte {
		// One frame: 13 bytes before the content, the padding, and 4 after it.
		const before, size = 13, 13 + (layerBytes+511)/512*512 + 4
		to, at := bytes.Index(b, layerOf(was)), bytes.Index(other, layerOf(is))
		if to < 0 || at < 0 {
			s.t.Fatal("no layer")
		}
		copy(b[to-before:], other[at-before:at-before+size])
		return b
	})
}

// verify and seed are the commands by which a bundle is looked at, and used.
func (s *stage) verify(path string, more ...string) attempt {
	return attempt{args: append([]string{"verify", path}, more...)}
}

func (s *stage) seed(path string, more ...string) attempt {
	s.t.Helper()
	return attempt{args: append([]string{"seed", "--registry", s.watch().addr, path}, more...)}
}

// accept lets the site use a bundle.
func (s *stage) accept(path string) {
	s.t.Helper()
	s.must(s.seed(path).args...)
}

// watchedRegistry is a registry that tells what it was asked.
type watchedRegistry struct {
	next http.Handler
	addr string
	// asked is done before each request.
	asked func()

	mu sync.Mutex
	// stored are the answers that say that something is kept, blobs those of them that are of a blob.
	requests, stored, blobs int
}

func (s *stage) watch() *watchedRegistry {
	s.t.Helper()
	if s.registry != nil {
		return s.registry
	}
	app, err := registry.New(s.t.Context(), registry.Options{Store: filepath.Join(s.dir, "store"), SparseIndexes: true})
	s.ok(err)
	s.registry = &watchedRegistry{next: app.Handler(), asked: func() {}}
	h := httptest.NewServer(s.registry)
	s.t.Cleanup(h.Close)
	s.registry.addr = strings.TrimPrefix(h.URL, "http://")
	return s.registry
}

// stored is the answer by which a registry says that it keeps something.
type storing struct {
	http.ResponseWriter
	w *watchedRegistry
	// blob says that it is asked to keep a blob by its digest, which it compares.
	blob bool
}

func (w storing) WriteHeader(code int) {
	if code == http.StatusCreated {
		w.w.mu.Lock()
		w.w.stored++
		if w.blob {
			w.w.blobs++
		}
		w.w.mu.Unlock()
	}
	w.ResponseWriter.WriteHeader(code)
}

func (w *watchedRegistry) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	w.requests++
	asked := w.asked
	w.mu.Unlock()
	asked()
	w.next.ServeHTTP(storing{rw, w, strings.Contains(r.URL.Path, "/blobs/uploads/")}, r)
}

// take returns how many requests there were, how many of them made the registry keep something,
// and how many of these a blob, since the last time.
func (w *watchedRegistry) take() (requests, stored, blobs int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	requests, stored, blobs = w.requests, w.stored, w.blobs
	w.requests, w.stored, w.blobs = 0, 0, 0
	return requests, stored, blobs
}

// snapshot is what a state directory holds. The lock is not part of it: taking it says nothing.
func (s *stage) snapshot(dir string) map[string]string {
	s.t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return nil
		}
		if err != nil || d.IsDir() || d.Name() == "lock" {
			return err
		}
		raw, err := os.ReadFile(path)
		all[path] = string(raw)
		return err
	})
	s.ok(err)
	return all
}

// accepted is what a site trusts and has accepted, of its record.
func (s *stage) accepted(dir string) (accepted map[string]any) {
	s.t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, "record.json"))
	s.ok(err)
	s.ok(json.Unmarshal(raw, &accepted))
	for _, name := range []string{"journal", "journalSize", "replaces"} {
		delete(accepted, name)
	}
	return accepted
}

// copyState makes another site that knows what this one knows.
func (s *stage) copyState() string {
	s.t.Helper()
	s.files++
	to := filepath.Join(s.dir, "state-"+strconv.Itoa(s.files))
	s.ok(os.CopyFS(to, os.DirFS(s.state)))
	return to
}

// Roots of vendors.

// firstRoot is the first root of a vendor, with these release keys, and three root keys of which two
// have to sign.
func (s *stage) firstRoot(vendor string, release ...string) *trust.Root {
	s.t.Helper()
	r, err := trust.NewRoot(trust.RootChange{
		Name: vendor, Expires: s.now.AddDate(2, 0, 0), RootKeys: s.publicKeys(vendor+"-root-1", vendor+"-root-2", vendor+"-root-3"),
		ReleaseKeys: s.publicKeys(release...),
	}, s.now.AddDate(0, -1, 0))
	s.ok(err)
	return r
}

func (s *stage) nextRoot(prev *trust.Root, change trust.RootChange) *trust.Root {
	s.t.Helper()
	r, err := trust.NextRoot(prev, change, s.now)
	s.ok(err)
	return r
}

func (s *stage) publicKeys(names ...string) []sigstore.PublicKey {
	s.t.Helper()
	var keys []sigstore.PublicKey
	for _, n := range names {
		keys = append(keys, s.key(n).signer.PublicKey())
	}
	return keys
}

// signRoot is a root with signatures.
func (s *stage) signRoot(r *trust.Root, by ...string) *trust.SignedRoot {
	s.t.Helper()
	raw, err := trust.EncodeRoot(r)
	s.ok(err)
	var sigs [][]byte
	for _, name := range by {
		sigs = append(sigs, s.by(name)(raw))
	}
	return s.sealRoot(raw, sigs)
}

func (s *stage) sealRoot(raw []byte, sigs [][]byte) *trust.SignedRoot {
	s.t.Helper()
	file, err := trust.SealRoot(raw, sigs)
	s.ok(err)
	signed, err := trust.ParseRootFile(file)
	s.ok(err)
	return signed
}

// rootFile writes a root as it travels alone.
func (s *stage) rootFile(r *trust.SignedRoot) string {
	s.t.Helper()
	return s.file(r.FileName(), r.File)
}

// pinRoot pins the first root of a vendor for the bundle shop.
func (s *stage) pinRoot(r *trust.SignedRoot) {
	s.t.Helper()
	s.must("trust", "init", "--root", s.rootFile(r), "--bundles", "shop")
}
