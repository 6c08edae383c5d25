package cli_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/sealift/sealift/internal/registry"
)

// pageCommand is something that a page of docs/ has its reader enter.
type pageCommand struct {
	line int
	text string
	// output is what the page says that it prints; … stands for anything.
	output []string
}

// printsExactly reports whether out is what the page shows, and nothing else.
func (c *pageCommand) printsExactly(out string) bool {
	var b strings.Builder
	for _, line := range c.output {
		b.WriteString(strings.ReplaceAll(regexp.QuoteMeta(line), "…", ".*") + "\n")
	}
	return regexp.MustCompile(`\A` + b.String() + `\z`).MatchString(out)
}

// pageCommands are the commands of a page in their order: in blocks that are marked as console what
// follows "$ ", and each block that is marked as sh as a whole.
func pageCommands(t *testing.T, page string) []pageCommand {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "..", "docs", page))
	if err != nil {
		t.Fatal(err)
	}
	var all []pageCommand
	var block string
	for i, line := range strings.Split(string(raw), "\n") {
		mark, fence := strings.CutPrefix(line, "```")
		switch {
		case fence && block != "":
			block = ""
		case fence:
			if block = mark; mark == "" {
				block = "other"
			}
			if block == "sh" {
				all = append(all, pageCommand{line: i + 2})
			}
		case block == "sh":
			all[len(all)-1].text += line + "\n"
		case block == "console" && strings.HasPrefix(line, "$ "):
			all = append(all, pageCommand{line: i + 1, text: line[2:] + "\n"})
		case block == "console":
			last := &all[len(all)-1]
			if strings.HasSuffix(last.text, "\\\n") {
				last.text += line + "\n"
			} else {
				last.output = append(last.output, line)
			}
		}
	}
	if len(all) == 0 {
		t.Fatalf("docs/%s has no commands", page)
	}
	return all
}

// pageError says which command of a page failed, or printed something else than the page shows.
type pageError struct {
	command pageCommand
	printed string
	err     error
}

func (e *pageError) Error() string {
	return fmt.Sprintf("line %d: %sprinted:\n%swant:\n%s\n%v", e.command.line, e.command.text, e.printed, strings.Join(e.command.output, "\n"), e.err)
}

// runPage runs commands in one bash, as somebody does who enters them, and stops at the first one
// that fails. Where exact is set none may print anything else than the page shows; otherwise
// commands of which it shows nothing may.
func runPage(t *testing.T, dir string, commands []pageCommand, exact bool) error {
	t.Helper()
	const mark = "\x01end of command\x01"
	var script strings.Builder
	for _, c := range commands {
		fmt.Fprintf(&script, "%s[ $? = 0 ] || exit 1\nprintf '\\n%s\\n'\n", c.text, mark)
	}
	cmd := exec.Command("bash", "-c", script.String())
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+dir, "SEALIFT_STATE="+filepath.Join(dir, ".state"), "SEALIFT_CONFIG="+filepath.Join(dir, ".config.yaml"), "COSIGN_PASSWORD=secret", "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	printed := strings.Split(string(out), "\n"+mark+"\n")
	for i, c := range commands {
		if i == len(printed)-1 {
			return &pageError{c, printed[i], fmt.Errorf("it failed: %w", err)}
		}
		if (exact || len(c.output) > 0) && !c.printsExactly(printed[i]) {
			return &pageError{c, printed[i], errors.New("this is not what the page shows")}
		}
	}
	return err
}

// needTools skips where a program is missing.
func needTools(t *testing.T, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
}

// shell runs a script that prepares something.
func shell(t *testing.T, dir, script string) {
	t.Helper()
	cmd := exec.Command("bash", "-euc", "set -o pipefail\n"+script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+dir, "SEALIFT_STATE="+filepath.Join(dir, ".state"), "SEALIFT_CONFIG="+filepath.Join(dir, ".config.yaml"), "COSIGN_PASSWORD=secret", "SOURCE_DATE_EPOCH=1767323045")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s\n%v: %s", script, err, out)
	}
}

// vendorRegistry starts a registry with an index, and an image of more than a MiB with a layer that
// is not compressed, and returns its address.
func vendorRegistry(t *testing.T) string {
	t.Helper()
	app, err := registry.New(context.Background(), registry.Options{Store: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(app.Handler())
	t.Cleanup(h.Close)
	addr := strings.TrimPrefix(h.URL, "http://")
	push := func(ref string, write func(name.Reference) error) {
		r, err := name.ParseReference(addr + ref)
		if err == nil {
			err = write(r)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	image := func(platform, seed string, more ...string) v1.Image {
		img, err := makeImage(platform, seed, more...)
		if err != nil {
			t.Fatal(err)
		}
		return img
	}
	push("/shop/app:1", func(r name.Reference) error {
		index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
		for _, arch := range []string{"amd64", "arm64"} {
			index = mutate.AppendManifests(index, mutate.IndexAddendum{
				Add: image("linux/"+arch, "app"), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}},
			})
		}
		return remote.WriteIndex(r, index)
	})
	push("/shop/plain:1", func(r name.Reference) error {
		return remote.Write(r, image("linux/amd64", "plain", "plain", "1500000"))
	})
	return addr
}

// withoutSealift makes what docs/verify-without-sealift.md begins with: a bundle of a vendor with two
// roots, which the site's office has signed beside it, as one file (in "file") and as volumes (in
// "volumes"); and roots that attacks need.
func withoutSealift(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	spec := fmt.Sprintf(`apiVersion: sealift/v1
kind: Bundle
name: shop
version: 1.0.0
platforms: [linux/amd64, linux/arm64]
images: [{ref: %[1]s/shop/app:1}, {ref: %[1]s/shop/plain:1, platforms: [linux/amd64]}]
`, vendorRegistry(t))
	if err := os.WriteFile(filepath.Join(dir, "sealift.yaml"), []byte(spec), 0o600); err != nil {
		t.Fatal(err)
	}
	shell(t, dir, `
for k in vendor a stranger; do openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out $k.key; done
for k in office b c; do openssl genpkey -quiet -algorithm ED25519 -out $k.key; done
for k in *.key; do openssl pkey -in $k -pubout -out ${k%.key}.pub; done
mkdir roots other file volumes office
expires=$(($(date +%Y) + 2))-01-01
sealift root create --name acme --root-key a.pub --root-key b.pub --root-key c.pub --root-threshold 2 --release-key stranger.pub --expires $expires -o roots/1.root.json
sealift root sign --key a.key roots/1.root.json
sealift root sign --key c.key roots/1.root.json
sealift root next roots/1.root.json --release-key vendor.pub --revoke-version shop=0.9.0 -o roots/2.root.json
sealift root next roots/1.root.json --release-key vendor.pub --revoke-version shop=1.0.0 -o other/2.root.json
for r in roots other; do sealift root sign --key b.key $r/2.root.json; sealift root sign --key a.key $r/2.root.json; done
sealift pack --key vendor.key --roots roots -o file
sealift split file/shop-1.0.0.tar.zst --volume-size 1MiB -o volumes
cp volumes/*.001 office/
sealift sign office --key office.key --detached
cp office/*.sigstore.json volumes/
cp office/*.sigstore.json file/
[ $(ls volumes/*.[0-9][0-9][0-9] | wc -l) -gt 1 ]
cp vendor.pub office.pub file/
cp vendor.pub office.pub volumes/
`)
	return dir
}

// TestWithoutSealift runs docs/verify-without-sealift.md, on a bundle that is good, and on others in
// which the page has to find what is wrong, by the command that is there for it.
func TestWithoutSealift(t *testing.T) {
	needTools(t, "bash", "zstd", "tar", "jq", "openssl", "skopeo")
	dir := withoutSealift(t)
	commands := pageCommands(t, "verify-without-sealift.md")
	of := func(what string) []pageCommand {
		left := slices.Clone(commands)
		return slices.DeleteFunc(left, func(c pageCommand) bool {
			volumes, file := strings.HasPrefix(c.text, "cat shop-"), strings.HasPrefix(c.text, "zstd -dc shop-")
			return what == "file" && volumes || what == "volumes" && file
		})
	}
	for _, what := range []string{"volumes", "file"} {
		work := t.TempDir()
		shell(t, work, "cp "+filepath.Join(dir, what)+"/* .")
		if err := runPage(t, work, of(what), true); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		checkLayout(t, filepath.Join(work, "unpacked"))
	}

	attacks := []struct {
		name string
		// change is run among the unpacked files, which are packed again; $D is where everything is.
		change string
		// found is how the command begins that finds it.
		found string
	}{
		{"nothing", "", ""},
		{"a byte of the file", `printf x | dd of=../shop-1.0.0.tar.zst bs=1 seek=300000 conv=notrunc status=none; touch ../ready`, "zstd -dc"},
		{"a file that is cut", `truncate -s 300000 ../shop-1.0.0.tar.zst; touch ../ready`, "zstd -dc"},
		{"a blob", `for b in blobs/sha256/*; do printf x >> $b; break; done`, "(cd unpacked && jq -r '.entries"},
		{"a layer that travels compressed", `for b in blobs/sha256/*.zst; do zstd -dqc $b | sed 1s/line/LINE/ | zstd -qc > x; mv x $b; done`, "(cd unpacked && jq -r '.entries"},
		{"a blob that is not there", `for b in blobs/sha256/*; do rm $b; break; done`, "(cd unpacked && jq -r '.entries"},
		{"a link in the place of a blob", `for b in blobs/sha256/*; do mv $b ../../blob; ln -s ../../../blob $b; cp ../../blob ..; break; done`, "diff"},
		{"a file more", `cp oci-layout blobs/sha256/0123`, "diff"},
		{"the index", `jq -c '.manifests |= reverse' index.json > x; mv x index.json`, "(cd unpacked && jq -r '.entries"},
		{"the manifest", `sed -i s/1.0.0/1.0.1/ sealift.json`, "signed_by vendor.pub"},
		{"a newline after the manifest", `echo >> sealift.json`, "signed_by vendor.pub"},
		{"no signature", `rm -r signatures`, "signed_by vendor.pub"},
		{"the signature of another manifest", `jq -c .messageSignature.signature=\"$(openssl dgst -sha256 -sign $D/vendor.key index.json | base64 -w0)\" signatures/* > x; mv x $(ls signatures/*)`, "signed_by vendor.pub"},
		{"a stranger's key", `cp $D/stranger.pub ../vendor.pub`, "signed_by vendor.pub"},
		{"no signature of the office", `rm ../shop-1.0.0.tar.zst.sigstore.json`, "signed_by office.pub"},
		{"a first root that is signed by too few", `jq -c 'del(.signatures[1])' trust/1.root.json > x; mv x trust/1.root.json`, "enough unpacked/trust/1.root.json unpacked/trust/1"},
		{"a root that is signed by too few", `jq -c 'del(.signatures[1])' trust/2.root.json > x; mv x trust/2.root.json`, "enough unpacked/trust/2.root.json unpacked/trust/1"},
		{"a root that one has signed twice", `jq -c '.signatures[1] = .signatures[0]' trust/2.root.json > x; mv x trust/2.root.json`, "enough unpacked/trust/2.root.json unpacked/trust/1"},
		{"a root that was changed", `jq -c '.root |= (@base64d | sub("acme"; "evil") | @base64)' trust/2.root.json > x; mv x trust/2.root.json`, "enough unpacked/trust/2.root.json unpacked/trust/1"},
		{"a root in the place of the next", `cp trust/1.root.json trust/2.root.json`, "jq -rn --argjson"},
		{"a release key that the root does not name", `cp trust/2.root.json trust/x; cp $D/bad/2.root.json trust/2.root.json; rm trust/x`, "for key in release"},
		{"a root that revokes the bundle", `cp $D/other/2.root.json trust/2.root.json`, "root unpacked/trust/2.root.json | jq -r --arg digest"},
	}
	// The root of a vendor that has gone over to another key.
	shell(t, dir, `mkdir bad
sealift root next roots/1.root.json --release-key office.pub -o bad/2.root.json
for k in a b; do sealift root sign --key $k.key bad/2.root.json; done`)
	for _, a := range attacks {
		t.Run(strings.ReplaceAll(a.name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			work := t.TempDir()
			shell(t, work, fmt.Sprintf(`D=%q
cp $D/file/* .
mkdir tree
zstd -dqc shop-1.0.0.tar.zst | tar x -C tree
cd tree
%s
[ -e ../ready ] || tar c * | zstd -qc > ../shop-1.0.0.tar.zst`, dir, a.change))
			err := runPage(t, work, of("file"), true)
			var failed *pageError
			switch {
			case a.found == "" && err != nil:
				t.Fatal(err)
			case a.found == "":
			case !errors.As(err, &failed):
				t.Fatalf("the page found nothing: %v", err)
			case !strings.HasPrefix(failed.command.text, a.found):
				t.Fatalf("found by another command: %v", err)
			}
		})
	}
}

// checkLayout reads what was unpacked with a library that knows nothing of Sealift.
func checkLayout(t *testing.T, dir string) {
	t.Helper()
	index, err := layout.ImageIndexFromPath(dir)
	if err == nil {
		err = validate.Index(index, validate.Fast)
	}
	if err != nil {
		t.Errorf("OCI layout: %v", err)
	}
}

// TestThreatModelNamesTests: what docs/threat-model.md says to be shown by a test is shown by one
// that exists.
func TestThreatModelNamesTests(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("..", "..", "docs", "threat-model.md"))
	if err != nil {
		t.Fatal(err)
	}
	inCode := regexp.MustCompile("`((?:Test|Fuzz)[A-Z]\\w*)`").FindAllSubmatch(raw, -1)
	scripts := regexp.MustCompile("`(?:testdata/script/)?(\\w+\\.txtar)`").FindAllSubmatch(raw, -1)
	if len(inCode) == 0 || len(scripts) == 0 {
		t.Fatal("the page names no tests")
	}
	exist := testsOf(t)
	for _, m := range inCode {
		if !exist[string(m[1])] {
			t.Errorf("there is no %s", m[1])
		}
	}
	for _, m := range scripts {
		if _, err := os.Stat(filepath.Join("..", "..", "testdata", "script", string(m[1]))); err != nil {
			t.Error(err)
		}
	}
	checkPackagesOfTests(t, raw)
}

// TestThreatModelNamesTheMatrix: the adversaries and the guarantees of testdata/attacks.yaml are
// those of docs/threat-model.md.
func TestThreatModelNamesTheMatrix(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("..", "..", "docs", "threat-model.md"))
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z-]+)`").FindAllSubmatch(raw, -1) {
		if named[string(m[1])] {
			t.Errorf("%s stands twice", m[1])
		}
		named[string(m[1])] = true
	}
	for _, row := range readAttacks(t) {
		for _, id := range []string{row.Adversary, row.Guarantee} {
			if !named[id] {
				t.Errorf("row %q: %q is not on the page", row.Name, id)
			}
		}
	}
}

// testsOf are the names of all tests in this repository, and of each with its package:
// verify.TestOpen.
func testsOf(t *testing.T) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && strings.HasPrefix(e.Name(), ".") && path != root:
			return fs.SkipDir
		case !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		dir, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil {
				all[fn.Name.Name], all[filepath.ToSlash(dir)+"."+fn.Name.Name] = true, true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// checkPackagesOfTests checks that tests are in the packages in whose list the page has them:
// `verify`: `TestOpen`, `TestClose`.
func checkPackagesOfTests(t *testing.T, page []byte) {
	t.Helper()
	exist := testsOf(t)
	list := regexp.MustCompile("`([a-z]+(?:/[a-z]+)*)`: ((?:`\\w+`(?:, | and )?)+)")
	lines := bufio.NewScanner(bytes.NewReader(page))
	for lines.Scan() {
		for _, m := range list.FindAllStringSubmatch(lines.Text(), -1) {
			for _, test := range regexp.MustCompile(`\w+`).FindAllString(m[2], -1) {
				if strings.HasPrefix(test, "Test") && !exist[m[1]+"."+test] {
					t.Errorf("there is no %s in %s", test, m[1])
				}
			}
		}
	}
}
