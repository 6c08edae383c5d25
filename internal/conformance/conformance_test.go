package conformance

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the table of docs/conformance.md anew")

// A registry is what is compared: its name in the table, the categories that it is for, and what does
// not hold of them, by the text of the check, with the reason.
type registry struct {
	name       string
	categories []string
	exceptions map[string]string
}

// noAPI is why some things do not hold of a store.
const noAPI = "distribution 3.1 has no Referrers API; clients then use the referrers tag, as the specification demands of them"

var (
	store = registry{
		name: "serve --store", categories: []string{categoryPull, categoryPush, categoryDiscovery, categoryManagement},
		exceptions: map[string]string{
			"referrers of what is nowhere are 200 and an empty index":                     noAPI,
			"referrers are 200 and an index of them, with artifact types and annotations": noAPI,
			"referrers of one artifact type, with OCI-Filters-Applied":                    noAPI,
			"referrers of what is no digest are 400":                                      noAPI,
			"PUT of a manifest with a subject says so with OCI-Subject":                   noAPI,
		},
	}
	bundle = registry{name: "serve BUNDLE", categories: []string{categoryPull, categoryDiscovery, categoryReadOnly}}
)

// program is the binary that is looked at.
func program(t *testing.T) string {
	t.Helper()
	path := os.Getenv("SEALIFT_BIN")
	if path == "" {
		t.Skip("SEALIFT_BIN names no binary")
	}
	return path
}

// sealift runs the binary with a state of its own.
type sealift struct {
	t    *testing.T
	path string
	dir  string
}

func (s *sealift) command(args ...string) *exec.Cmd {
	c := exec.CommandContext(s.t.Context(), s.path, args...)
	c.Dir = s.dir
	c.Env = append(os.Environ(), "SEALIFT_STATE="+filepath.Join(s.dir, "state"), "SEALIFT_CONFIG="+filepath.Join(s.dir, "config.yaml"), "COSIGN_PASSWORD=x", "HOME="+s.dir)
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
	c.WaitDelay = 20 * time.Second
	return c
}

func (s *sealift) run(args ...string) {
	s.t.Helper()
	if out, err := s.command(args...).CombinedOutput(); err != nil {
		s.t.Fatalf("sealift %s: %v\n%s", args, err, out)
	}
}

// serve starts a registry and returns its address.
func (s *sealift) serve(args ...string) string {
	s.t.Helper()
	c := s.command(append([]string{"serve", "--listen", "127.0.0.1:0"}, args...)...)
	var said bytes.Buffer
	c.Stderr = &said
	out, err := c.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		_ = c.Process.Signal(os.Interrupt)
		_ = c.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		_ = c.Wait()
		s.t.Fatalf("sealift serve %s: %v\n%s", args, err, said.String())
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	fields := strings.Fields(line)
	return fields[len(fields)-1]
}

// fill pushes the content that is compared.
func fill(ctx context.Context, t *target) error {
	c := &content{
		tags:   []string{"1.0", "1.1", "B", "c"},
		config: encoded(map[string]any{"architecture": "amd64", "os": "linux", "config": map[string]any{}, "rootfs": map[string]any{"type": "layers", "diff_ids": []string{}}}),
		layer:  bytes.Repeat([]byte("a layer, which nobody unpacks. "), 50_000),
	}
	c.manifest = encoded(map[string]any{"schemaVersion": 2, "mediaType": typeImage, "config": describe(typeConfig, c.config), "layers": []descriptor{describe(typeLayer, c.layer)}})
	t.content, c.listed = c, c.tags
	for _, raw := range [][]byte{c.config, c.layer, []byte("{}")} {
		if err := t.pushBlob(ctx, raw); err != nil {
			return err
		}
	}
	for _, tag := range c.tags {
		if _, err := t.pushManifest(ctx, tag, typeImage, c.manifest); err != nil {
			return err
		}
	}
	// One says what it is by its artifactType, one by its config.
	for i, artifactType := range []string{"application/vnd.example.one", "application/vnd.example.two+json"} {
		note := map[string]string{"org.example.number": fmt.Sprint(i)}
		doc := map[string]any{"schemaVersion": 2, "mediaType": typeImage, "config": describe(typeEmpty, []byte("{}")), "layers": []descriptor{describe(typeEmpty, []byte("{}"))}, "subject": describe(typeImage, c.manifest), "annotations": note}
		if i == 0 {
			doc["artifactType"] = artifactType
		} else {
			doc["config"] = describe(artifactType, []byte("{}"))
		}
		raw := encoded(doc)
		if _, err := t.pushManifest(ctx, digestOf(raw), typeImage, raw); err != nil {
			return err
		}
		d := describe(typeImage, raw)
		d.ArtifactType, d.Annotations = artifactType, note
		c.referrers = append(c.referrers, d)
	}
	list := encoded(map[string]any{"schemaVersion": 2, "mediaType": typeIndex, "manifests": c.referrers})
	_, err := t.pushManifest(ctx, strings.Replace(digestOf(c.manifest), ":", "-", 1), typeIndex, list)
	return err
}

// TestConformance compares both registries with the specification, and docs/conformance.md with the
// outcome.
func TestConformance(t *testing.T) {
	s := &sealift{t, program(t), t.TempDir()}
	s.run("keygen")
	full := &target{base: "http://" + s.serve("--store", "store"), name: "conformance/app"}
	if err := fill(t.Context(), full); err != nil {
		t.Fatal(err)
	}
	place := strings.TrimPrefix(full.base, "http://") + "/" + full.name
	spec := "apiVersion: sealift/v1\nkind: Bundle\nname: conformance\nversion: 1.0.0\nimages:\n"
	for _, tag := range full.tags {
		spec += "  - ref: " + place + ":" + tag + "\n"
	}
	if err := os.WriteFile(filepath.Join(s.dir, "sealift.yaml"), []byte(spec), 0o600); err != nil {
		t.Fatal(err)
	}
	s.run("pack", "--key", "cosign.key")
	packed := *full
	packed.base = "http://" + s.serve("conformance-1.0.0.tar.zst", "--key", "cosign.pub")

	outcomes := map[string]map[string]string{}
	// The bundle first: the store is changed by what is asked of it.
	for _, one := range []struct {
		registry
		*target
	}{{bundle, &packed}, {store, withReferrersTag(full)}} {
		outcomes[one.registry.name] = one.compare(t, one.target)
	}
	table(t, outcomes)
	if suite := os.Getenv("OCI_CONFORMANCE"); suite != "" {
		t.Run("the specification's own suite", func(t *testing.T) { official(t, suite, full, &packed) })
	}
}

// withReferrersTag is the store: the referrers tag is one among others there.
func withReferrersTag(t *target) *target {
	c := *t.content
	c.listed = append(slices.Clone(c.tags), strings.Replace(digestOf(c.manifest), ":", "-", 1))
	return &target{t.base, t.name, &c}
}

// compare runs the checks of a registry and returns what came out, by the text of the check.
func (r *registry) compare(t *testing.T, at *target) map[string]string {
	outcomes := map[string]string{}
	for _, c := range checks {
		if !slices.Contains(r.categories, c.category) {
			continue
		}
		ok := t.Run(r.name+"/"+c.category+"/"+c.text, func(t *testing.T) {
			err := c.run(t.Context(), at)
			reason, exception := r.exceptions[c.text]
			switch {
			case exception && err == nil:
				t.Fatalf("holds, although it is an exception: %s", reason)
			case exception:
				t.Log(err)
			case err != nil:
				t.Fatal(err)
			}
		})
		switch reason, exception := r.exceptions[c.text]; {
		case !ok:
			outcomes[c.text] = "**fails**"
		case exception:
			outcomes[c.text] = "no: " + reason
		default:
			outcomes[c.text] = "yes"
		}
	}
	for text := range r.exceptions {
		if outcomes[text] == "" {
			t.Errorf("exception %q is no check", text)
		}
	}
	return outcomes
}

// Marks around the table in docs/conformance.md.
const (
	tableBegins = "<!-- table: make conformance -->\n"
	tableEnds   = "<!-- end of table -->\n"
)

func table(t *testing.T, outcomes map[string]map[string]string) {
	var b strings.Builder
	b.WriteString("\n| category | requirement | `serve BUNDLE` | `serve --store` |\n|---|---|---|---|\n")
	for _, c := range checks {
		cell := func(r registry) string {
			if o := outcomes[r.name][c.text]; o != "" {
				return o
			}
			return "–"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", c.category, c.text, cell(bundle), cell(store))
	}
	b.WriteString("\n")
	path := filepath.Join("..", "..", "docs", "conformance.md")
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, begun := strings.Cut(string(raw), tableBegins)
	_, after, ended := strings.Cut(rest, tableEnds)
	if !begun || !ended {
		t.Fatalf("%s has no place for the table", path)
	}
	want := before + tableBegins + b.String() + tableEnds + after
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if want != string(raw) {
		t.Errorf("%s is not what came out; run 'make conformance UPDATE=-update'", path)
	}
}

// official runs the specification's own suite, as its README describes. Of a bundle it is told what is
// there, since nothing can be pushed. What it makes anew for each run and then looks for among the
// referrers cannot be in a bundle, and distribution has no Referrers API: both are skipped by name.
func official(t *testing.T, suite string, full, packed *target) {
	for _, one := range []struct {
		registry
		*target
		skip string
		env  []string
	}{
		{bundle, packed, "listing references", []string{
			"OCI_TEST_PULL=1", "OCI_TEST_CONTENT_DISCOVERY=1", "OCI_MANIFEST_DIGEST=" + digestOf(packed.manifest),
			"OCI_TAG_NAME=" + packed.tags[0], "OCI_BLOB_DIGEST=" + digestOf(packed.config), "OCI_TAG_LIST=" + strings.Join(packed.listed, ","),
		}},
		{store, full, "References setup|listing references", []string{
			"OCI_TEST_PULL=1", "OCI_TEST_PUSH=1", "OCI_TEST_CONTENT_DISCOVERY=1", "OCI_TEST_CONTENT_MANAGEMENT=1", "OCI_CROSSMOUNT_NAMESPACE=" + full.name + "-crossed",
		}},
	} {
		t.Run(one.registry.name, func(t *testing.T) {
			c := exec.CommandContext(t.Context(), suite, "-ginkgo.skip="+one.skip)
			c.Dir = t.TempDir()
			c.Env = append(os.Environ(), "OCI_ROOT_URL="+one.base, "OCI_NAMESPACE="+one.target.name, "OCI_REPORT_DIR="+c.Dir)
			c.Env = append(c.Env, one.env...)
			out, err := c.CombinedOutput()
			t.Logf("%s", out)
			if err != nil {
				t.Error(err)
			}
		})
	}
}
