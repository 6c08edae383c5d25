//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// More exit codes that docs/exit-codes.md promises.
const (
	exitRefused = 22
	exitHeld    = 23
)

// life is a site on which bundles are installed, upgraded, broken and taken back: see the parts of TestLife.
type life struct{ journey }

type lifePart struct {
	name string
	run  func(*testing.T)
}

// TestLife is the life of what is installed, part by part, each with bundles and namespaces of its own.
func TestLife(t *testing.T) {
	sealiftBinary(t)
	dir := t.TempDir()
	vendorDir, siteDir := filepath.Join(dir, "vendor"), filepath.Join(dir, "site")
	for _, d := range []string{vendorDir, siteDir} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s := startSite(t, siteDir)
	l := &life{journey{vendor: side{netns: s.name + "-vendor", dir: vendorDir}, site: s, images: map[string]string{}}}
	l.startVendorRegistry(t)
	l.pushImages(t)
	if err := os.CopyFS(filepath.Join(vendorDir, "service"), os.DirFS("testdata/service")); err != nil {
		t.Fatal(err)
	}
	l.vendor.sealift(t, exitDone, "keygen", "--output-prefix", "cosign")
	l.carry(t, "cosign.pub")
	// Most of the time they wait: so there are several at a time.
	var lanes sync.WaitGroup
	for _, lane := range [][]lifePart{
		{
			{"installers that are killed and taken back", l.revertedKills},
			{"claims", l.claims},
			{"adopted", l.adopted},
			{"definitions in templates", l.definitions},
			{"definitions of charts", l.chartDefinitions},
			{"contested", l.contested},
			{"prunes", l.prunes},
		},
		{
			{"installers that are killed and gone on with", l.resumedKills},
			{"edits", l.edits},
			{"drift", l.drift},
			{"renamed", l.renamed},
			{"plans", l.plans},
			{"schema", l.schema},
			{"expired", l.expired},
			{"parameters", l.parameters},
		},
		{
			{"failures", l.failures},
			{"hold points and ways back", l.holds},
			{"hooks", l.hooks},
			{"autoscaled", l.autoscaled},
			{"rights", l.rights},
			{"blue and green", l.blueGreen},
			{"canary", l.canary},
		},
	} {
		lanes.Go(func() {
			for _, part := range lane {
				t.Run(part.name, part.run)
			}
		})
	}
	lanes.Wait()
	t.Run("API server that is away", l.away) // from all
	t.Run("nothing tried to leave", l.nothingTriedToLeave)
}

// carry brings a file of the vendor's to the site.
func (l *life) carry(t *testing.T, name string) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(l.vendor.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(l.site.dir, filepath.Base(name)), content, 0o644); err != nil {
		t.Fatal(err)
	}
}

// chart is a release of the chart testdata/service. Its namespace is that of the bundle.
type chart struct {
	release string
	// values are YAML, more what else the spec says about it, a line each: "dependsOn: [db]".
	values, more string
}

// newer are values of the second version of the image.
const newer = "image: 127.0.0.1:5555/demo/app:2.0.0\n"

// packed packs a bundle of charts, with the namespace called as the bundle, and carries it over. It returns its file's name.
func (l *life) packed(t *testing.T, name, version string, charts ...chart) string {
	t.Helper()
	return l.packedSpec(t, name, version, l.spec(t, name, version, charts...))
}

// spec is that of a bundle of charts.
func (l *life) spec(t *testing.T, name, version string, charts ...chart) string {
	t.Helper()
	var spec strings.Builder
	fmt.Fprintf(&spec, "apiVersion: sealift/v1\nkind: Bundle\nname: %s\nversion: %s\nplatforms: [linux/%s]\nimages: [{ref: 127.0.0.1:5555/pause:3.10}]\ncharts:\n",
		name, version, runtime.GOARCH)
	for _, c := range charts {
		values := fmt.Sprintf("%s-%s-%s.yaml", name, version, c.release)
		l.write(t, values, c.values+"\n")
		fmt.Fprintf(&spec, "  - path: ./service\n    release: %s\n    namespace: %s\n    values: [%s]\n", c.release, name, values)
		for line := range strings.Lines(c.more) {
			fmt.Fprintf(&spec, "    %s\n", strings.TrimRight(line, "\n"))
		}
	}
	return spec.String()
}

// packedSpec packs what a spec says, and carries it over.
func (l *life) packedSpec(t *testing.T, name, version, spec string) string {
	t.Helper()
	file := fmt.Sprintf("%s-%s.tar.zst", name, version)
	l.write(t, name+"-"+version+".spec.yaml", spec)
	l.vendor.sealift(t, exitDone, "pack", "-f", name+"-"+version+".spec.yaml", "-o", file, "--key", "cosign.key")
	l.carry(t, file)
	return file
}

// write writes a file of the vendor's.
func (l *life) write(t *testing.T, name, content string) {
	t.Helper()
	path := filepath.Join(l.vendor.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// with are the arguments that commands need which install: bundle, whom to trust, where the images and the cluster are.
func (l *life) with(command, file string, more ...string) []string {
	return append([]string{
		command, file, "--key", "cosign.pub", "--registry", siteRegistry, "--index", "derived", "--kubeconfig", l.site.kubeconfig(),
		"--timeout", "60s", "--lease", "5s", "--progress", "none",
	}, more...)
}

// at are those of commands that need no bundle.
func (l *life) at(command string, more ...string) []string {
	return append([]string{command, "--kubeconfig", l.site.kubeconfig(), "--progress", "none"}, more...)
}

// apply gives the cluster objects that somebody else makes.
func (l *life) apply(t *testing.T, objects string) {
	t.Helper()
	cmd := l.site.kubectlCommand(t.Context(), "apply", "--server-side", "--force-conflicts", "-f", "-")
	cmd.Stdin = bytes.NewBufferString(objects)
	output(t, cmd)
}

// field is a field of an object, as jsonpath; empty where it is not there.
func (l *life) field(t *testing.T, namespace, object, path string) string {
	t.Helper()
	return strings.TrimSpace(l.site.kubectl(t, "get", object, "-n", namespace, "-o", "jsonpath={"+path+"}", "--ignore-not-found"))
}
