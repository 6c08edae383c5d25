package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// Exit codes of sealift, from docs/exit-codes.md.
const (
	exitUnsigned   = 11
	exitNotTrusted = 12
)

// asCosign in the environment makes the test binary behave as the cosign CLI, so that nothing
// but the test has to be built and linked.
const asCosign = "SEALIFT_INTEROP_AS_COSIGN"

// trustedRoot names no authority at all: cosign v2 wants a trusted root even where a key is
// all there is to check.
const trustedRoot = `{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}`

func TestMain(m *testing.M) {
	if os.Getenv(asCosign) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// site is a directory with everything that the tests need: a spec whose image is in a
// registry on loopback, and an environment in which nothing can call out unnoticed.
type site struct {
	t       *testing.T
	sealift string
	dir     string
	env     []string
}

func newSite(t *testing.T) *site {
	t.Helper()
	bin := os.Getenv("SEALIFT_BIN")
	if bin == "" {
		t.Skip("SEALIFT_BIN does not name a sealift binary: run 'make interop' in the root of the repository")
	}
	bin, err := filepath.Abs(bin)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s := &site{t: t, sealift: bin, dir: dir}

	// Whoever wants to leave the machine through HTTP is seen here.
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t.Errorf("something called out: %s %s", r.Method, r.URL)
		http.Error(w, "the test has no network", http.StatusBadGateway)
	}))
	t.Cleanup(proxy.Close)
	s.env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + dir, "COSIGN_PASSWORD=pw", "SEALIFT_STATE=" + filepath.Join(dir, "state"),
		"SEALIFT_STATE=" + s.path("state"), "TUF_ROOT=" + s.path("tuf"), "DOCKER_CONFIG=" + s.path("docker"), "SOURCE_DATE_EPOCH=1767323045",
		"HTTP_PROXY=" + proxy.URL, "HTTPS_PROXY=" + proxy.URL, "NO_PROXY=127.0.0.1,localhost",
	}
	s.write("trusted_root.json", []byte(trustedRoot))

	reg := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(reg.Close)
	ref := strings.TrimPrefix(reg.URL, "http://") + "/x/y:1"
	push(t, ref)
	s.write("sealift.yaml", fmt.Appendf(nil, "apiVersion: sealift/v1\nkind: Bundle\nname: interop\nversion: 1.0.0\n"+
		"platforms: [linux/amd64]\nimages:\n  - ref: %s\n", ref))
	return s
}

// push puts a small random image for linux/amd64 into a registry.
func push(t *testing.T, ref string) {
	t.Helper()
	tag, err := name.NewTag(ref, name.StrictValidation)
	if err != nil {
		t.Fatal(err)
	}
	img, err := random.Image(3000, 2)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	cfg = cfg.DeepCopy()
	cfg.OS, cfg.Architecture = "linux", "amd64"
	if img, err = mutate.ConfigFile(img, cfg); err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(tag, img); err != nil {
		t.Fatal(err)
	}
}

func (s *site) path(elem ...string) string { return filepath.Join(append([]string{s.dir}, elem...)...) }

func (s *site) write(name string, content []byte) {
	s.t.Helper()
	if err := os.WriteFile(s.path(name), content, 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) read(elem ...string) []byte {
	s.t.Helper()
	b, err := os.ReadFile(s.path(elem...))
	if err != nil {
		s.t.Fatal(err)
	}
	return b
}

// exec runs a command in the site and returns its standard output, both outputs and its exit code.
func (s *site) exec(program string, env []string, args ...string) (stdout []byte, all string, code int) {
	s.t.Helper()
	var out, both bytes.Buffer
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Env = s.dir, append(env, s.env...)
	cmd.Stdout, cmd.Stderr = io.MultiWriter(&out, &both), &both
	err := cmd.Run()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		return out.Bytes(), both.String(), exit.ExitCode()
	}
	if err != nil {
		s.t.Fatalf("%s: %v", program, err)
	}
	return out.Bytes(), both.String(), 0
}

// runSealift runs sealift and wants the exit code.
func (s *site) runSealift(want int, args ...string) {
	s.t.Helper()
	if _, out, code := s.exec(s.sealift, nil, args...); code != want {
		s.t.Fatalf("sealift %s: exit code %d, want %d\n%s", strings.Join(args, " "), code, want, out)
	}
}

// cosign runs the CLI.
func (s *site) cosign(args ...string) (out string, ok bool) {
	s.t.Helper()
	self, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	_, out, code := s.exec(self, []string{asCosign + "=1"}, args...)
	return out, code == 0
}

// runCosign runs the CLI, which must succeed.
func (s *site) runCosign(args ...string) {
	s.t.Helper()
	if out, ok := s.cosign(args...); !ok {
		s.t.Fatalf("cosign %s:\n%s", strings.Join(args, " "), out)
	}
}

// keys makes the key pair NAME.key and NAME.pub with one of the two programs.
func (s *site) keys(program, name string) {
	s.t.Helper()
	switch program {
	case "cosign":
		s.runCosign("generate-key-pair", "--output-key-prefix", name)
	case "sealift":
		s.runSealift(0, "keygen", "--output-prefix", name)
	}
	for _, f := range []string{name + ".key", name + ".pub"} {
		if len(s.read(f)) == 0 {
			s.t.Fatalf("%s wrote an empty %s", program, f)
		}
	}
}

// pack makes a bundle in the directory out, signed with key unless it is empty, and returns
// its path.
func (s *site) pack(out, key string) string {
	s.t.Helper()
	if err := os.Mkdir(s.path(out), 0o755); err != nil {
		s.t.Fatal(err)
	}
	sign := []string{"--unsigned"}
	if key != "" {
		sign = []string{"--key", key}
	}
	s.runSealift(0, append([]string{"pack", "-f", "sealift.yaml", "-o", out}, sign...)...)
	found, err := filepath.Glob(s.path(out, "*"))
	if err != nil || len(found) != 1 {
		s.t.Fatalf("sealift pack wrote %v, want one file", found)
	}
	return found[0]
}

// extract takes manifest and signatures out of a bundle with the tools that everyone has, and
// with the independent checker; where both are there, they must agree. It returns the
// manifest's path and those of the signatures.
func (s *site) extract(bundle string) (manifest string, signatures []string) {
	s.t.Helper()
	byTools, err := s.extractByTools(bundle)
	if err != nil {
		s.t.Log(err)
	}
	byChecker, err := s.extractByChecker(bundle)
	if err != nil {
		s.t.Log(err)
	}
	switch {
	case byTools == "" && byChecker == "":
		s.t.Skip("neither zstd and tar nor python3 is there to take a bundle apart")
	case byTools == "":
		byTools = byChecker
	case byChecker != "":
		out, err := exec.Command("diff", "-r", filepath.Join(byTools, "signatures"), filepath.Join(byChecker, "signatures")).CombinedOutput()
		if err != nil {
			s.t.Errorf("zstd and tar give other signatures than the checker:\n%s", out)
		}
		a, errA := os.ReadFile(filepath.Join(byTools, "sealift.json"))
		b, errB := os.ReadFile(filepath.Join(byChecker, "sealift.json"))
		if errA != nil || errB != nil || !bytes.Equal(a, b) {
			s.t.Errorf("zstd and tar give another manifest than the checker (%v, %v)", errA, errB)
		}
	}
	signatures, err = filepath.Glob(filepath.Join(byTools, "signatures", "*.sigstore.json"))
	if err != nil {
		s.t.Fatal(err)
	}
	return filepath.Join(byTools, "sealift.json"), signatures
}

func (s *site) extractByTools(bundle string) (string, error) {
	for _, tool := range []string{"sh", "zstd", "tar"} {
		if _, err := exec.LookPath(tool); err != nil {
			return "", fmt.Errorf("not extracted by zstd and tar: %w", err)
		}
	}
	dir := s.emptyDir()
	if _, out, code := s.exec("sh", nil, "-c", `zstd -dcq <"$1" | tar xf - -C "$2"`, "sh", bundle, dir); code != 0 {
		s.t.Fatalf("zstd and tar: exit code %d\n%s", code, out)
	}
	return dir, nil
}

func (s *site) extractByChecker(bundle string) (string, error) {
	if _, err := exec.LookPath("python3"); err != nil {
		return "", fmt.Errorf("not extracted by the checker: %w", err)
	}
	checker, err := filepath.Abs("../../../testdata/checker/sealift_check.py")
	if err != nil {
		return "", err
	}
	dir := s.emptyDir()
	manifest, out, code := s.exec("python3", nil, checker, "--manifest", "--signatures", filepath.Join(dir, "signatures"), bundle)
	if code != 0 {
		s.t.Fatalf("the checker refuses the bundle:\n%s", out)
	}
	return dir, os.WriteFile(filepath.Join(dir, "sealift.json"), manifest, 0o600)
}

// emptyDir is a new directory with an empty directory signatures in it.
func (s *site) emptyDir() string {
	s.t.Helper()
	dir, err := os.MkdirTemp(s.dir, "extracted-")
	if err != nil {
		s.t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "signatures"), 0o755); err != nil {
		s.t.Fatal(err)
	}
	return dir
}

func (s *site) verifyBlob(key, signature, blob string) (string, bool) {
	s.t.Helper()
	return s.cosign("verify-blob", "--key", key, "--bundle", signature, "--trusted-root", "trusted_root.json",
		"--private-infrastructure", blob)
}

func (s *site) signBlob(key, signature, blob string) {
	s.t.Helper()
	s.runCosign("sign-blob", "--key", key, "--bundle", signature, "--new-bundle-format", "--tlog-upload=false", "--yes", blob)
}

// checkSigned wants one signature in the bundle, which cosign, sealift and the standard
// library accept for pub, and nobody for other.
func (s *site) checkSigned(bundle, pub, other string) {
	s.t.Helper()
	manifest, signatures := s.extract(bundle)
	if len(signatures) != 1 {
		s.t.Fatalf("signatures %v, want one", signatures)
	}
	if out, ok := s.verifyBlob(pub, signatures[0], manifest); !ok {
		s.t.Errorf("cosign refuses a signature of sealift:\n%s", out)
	}
	if out, ok := s.verifyBlob(other, signatures[0], manifest); ok {
		s.t.Errorf("cosign accepts a signature of another key:\n%s", out)
	}
	if err := os.WriteFile(manifest, append(s.readFile(manifest), '\n'), 0o600); err != nil {
		s.t.Fatal(err)
	}
	if out, ok := s.verifyBlob(pub, signatures[0], manifest); ok {
		s.t.Errorf("cosign accepts the signature for another manifest:\n%s", out)
	}
	if err := os.WriteFile(manifest, bytes.TrimSuffix(s.readFile(manifest), []byte("\n")), 0o600); err != nil {
		s.t.Fatal(err)
	}
	if err := verifyPlain(s.read(pub), s.readFile(signatures[0]), s.readFile(manifest)); err != nil {
		s.t.Errorf("crypto/ecdsa: %v", err)
	}
	s.runSealift(0, "verify", bundle, "--key", pub)
	s.runSealift(exitNotTrusted, "verify", bundle, "--key", other)
}

func (s *site) readFile(path string) []byte {
	s.t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		s.t.Fatal(err)
	}
	return b
}

// verifyPlain checks a signature with nothing but the standard library: what openssl and jq do.
func verifyPlain(pubPEM, sigBundle, blob []byte) error {
	var b struct {
		MessageSignature struct {
			Signature []byte `json:"signature"`
		} `json:"messageSignature"`
	}
	if err := json.Unmarshal(sigBundle, &b); err != nil {
		return err
	}
	block, _ := pem.Decode(pubPEM)
	if block == nil {
		return errors.New("public key is not PEM")
	}
	pub, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return err
	}
	key, ok := pub.(*ecdsa.PublicKey)
	if !ok {
		return fmt.Errorf("public key is a %T", pub)
	}
	if sum := sha256.Sum256(blob); !ecdsa.VerifyASN1(key, sum[:], b.MessageSignature.Signature) {
		return errors.New("signature does not hold")
	}
	return nil
}

func TestPackedWithSealiftVerifiesWithCosign(t *testing.T) {
	for _, maker := range []string{"sealift", "cosign"} {
		t.Run("key pair of "+maker, func(t *testing.T) {
			s := newSite(t)
			s.keys(maker, "k")
			s.keys("cosign", "other")
			s.checkSigned(s.pack("out", "k.key"), "k.pub", "other.pub")
		})
	}
}

func TestSignedWithCosignVerifiesWithSealift(t *testing.T) {
	for _, maker := range []string{"sealift", "cosign"} {
		t.Run("key pair of "+maker, func(t *testing.T) {
			s := newSite(t)
			s.keys(maker, "k")
			s.keys("sealift", "other")
			bundle := s.pack("out", "")
			s.runSealift(exitUnsigned, "verify", bundle, "--key", "k.pub")
			manifest, signatures := s.extract(bundle)
			if len(signatures) != 0 {
				t.Fatalf("an unsigned bundle holds %v", signatures)
			}

			detached := bundle + ".sigstore.json"
			s.signBlob("k.key", detached, manifest)
			if out, ok := s.verifyBlob("k.pub", detached, manifest); !ok {
				t.Errorf("cosign refuses its own signature:\n%s", out)
			}
			s.runSealift(0, "verify", bundle, "--key", "k.pub")
			s.runSealift(exitNotTrusted, "verify", bundle, "--key", "other.pub")

			// The signature of something else is not one of this manifest.
			s.write("something", []byte("else"))
			s.signBlob("k.key", detached, "something")
			s.runSealift(exitNotTrusted, "verify", bundle, "--key", "k.pub")
		})
	}
}

// TestDetachedSignatureCountsAsWell has a second signer whose signature lies beside a bundle
// that the first one signed.
func TestDetachedSignatureCountsAsWell(t *testing.T) {
	s := newSite(t)
	s.keys("sealift", "vendor")
	s.keys("cosign", "site")
	bundle := s.pack("out", "vendor.key")
	s.runSealift(exitNotTrusted, "verify", bundle, "--key", "site.pub")
	manifest, _ := s.extract(bundle)
	s.signBlob("site.key", bundle+".sigstore.json", manifest)
	s.runSealift(0, "verify", bundle, "--key", "site.pub")
	s.runSealift(0, "verify", bundle, "--key", "vendor.pub")

	// What is not a signature at all does no harm to the one in the bundle.
	if err := os.WriteFile(bundle+".sigstore.json", []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.runSealift(0, "verify", bundle, "--key", "vendor.pub")
}

// TestWrongPassword: neither program opens the other's private key without its password.
func TestWrongPassword(t *testing.T) {
	s := newSite(t)
	s.keys("cosign", "c")
	s.keys("sealift", "l")
	for i, e := range s.env {
		if strings.HasPrefix(e, "COSIGN_PASSWORD=") {
			s.env[i] = "COSIGN_PASSWORD=wrong"
		}
	}
	s.write("blob", []byte("blob"))
	if out, ok := s.cosign("sign-blob", "--key", "l.key", "--bundle", "b.json", "--new-bundle-format", "--tlog-upload=false", "--yes", "blob"); ok {
		t.Errorf("cosign signed without the password:\n%s", out)
	}
	if err := os.Mkdir(s.path("out"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, out, code := s.exec(s.sealift, nil, "pack", "-f", "sealift.yaml", "-o", "out", "--key", "c.key"); code == 0 {
		t.Errorf("sealift signed without the password:\n%s", out)
	}
	if left, _ := filepath.Glob(s.path("out", "*")); len(left) != 0 {
		t.Errorf("a failed pack left %v", left)
	}
}
