//go:build linux

package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// maxMemory is what pack, verify and seed may take, whatever the size of the bundle.
const maxMemory = 128 << 20

// versionRuns is how often the shortest command is started for its time.
const versionRuns = 20

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == bareArgument {
		if err := runBare(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	code := m.Run()
	if ran {
		if r, err := measured(); err == nil {
			fmt.Printf("\n%s", r.table())
		}
	}
	os.Exit(code)
}

// ran tells TestMain that something was measured.
var ran bool

// measured measures everything, once for all tests and benchmarks of the process.
var measured = sync.OnceValues(func() (*report, error) {
	ran = true
	ctx, cancel := context.WithTimeout(context.Background(), 25*time.Minute)
	defer cancel()
	return measure(ctx)
})

func measurement(tb testing.TB) *report {
	tb.Helper()
	if os.Getenv("SEALIFT_BIN") == "" {
		tb.Skip("SEALIFT_BIN names no binary to measure; 'make bench' does")
	}
	r, err := measured()
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// TestMemory holds pack, verify and seed to what they may take.
func TestMemory(t *testing.T) { measurement(t).check(t) }

// BenchmarkCommands reports what was measured. With "-run '^$'" no test runs, so it holds the
// commands to their promises too.
func BenchmarkCommands(b *testing.B) {
	r := measurement(b)
	r.check(b)
	for _, row := range r.rows {
		b.Run(row.slug(), func(b *testing.B) {
			u := row.median()
			b.ReportMetric(float64(u.wall), "ns/op")
			b.ReportMetric(u.cpu.Seconds(), "cpu-s")
			b.ReportMetric(float64(u.rss)/(1<<20), "peak-MiB")
			b.ReportMetric(float64(u.written)/mb, "written-MB")
			if row.bytes > 0 && u.wall > 0 {
				b.ReportMetric(float64(row.bytes)/mb/u.wall.Seconds(), "MB/s")
			}
			if base := r.find(row.bare); base != nil {
				b.ReportMetric(ratio(u.wall, base.median().wall), "wall/bare")
				b.ReportMetric(ratio(u.cpu, base.median().cpu), "cpu/bare")
			}
		})
	}
}

// row is one line of the table.
type row struct {
	name string
	// bare is the row that this one is compared with.
	bare string
	// bytes is how much payload moves.
	bytes int64
	// bounded rows may take maxMemory at most; clean ones leave nothing in the temporary and
	// home directories and use no disk beyond their result.
	bounded, clean bool
	runs           []usage
}

func (r *row) slug() string {
	return strings.Trim(strings.Map(func(c rune) rune {
		if c == ' ' || c == ',' || c == ':' || c == '`' {
			return '-'
		}
		return c
	}, r.name), "-")
}

// median is the median of the times and the largest of all else.
func (r *row) median() usage {
	var m usage
	var walls, cpus []time.Duration
	for _, u := range r.runs {
		walls, cpus = append(walls, u.wall), append(cpus, u.cpu)
		m.rss, m.written, m.temp = max(m.rss, u.rss), max(m.written, u.written), max(m.temp, u.temp)
		m.strays = append(m.strays, u.strays...)
	}
	m.wall, m.cpu = middle(walls), middle(cpus)
	return m
}

func middle(d []time.Duration) time.Duration {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return (d[(len(d)-1)/2] + d[len(d)/2]) / 2
}

func ratio(a, b time.Duration) float64 { return float64(a) / float64(max(b, 1)) }

// report is everything that was measured.
type report struct {
	bin     string
	payload int64
	rounds  int
	size    int64
	rows    []*row
	loads   []string
	// version is the CPU time of each start of 'sealift version'.
	version []time.Duration
}

func (r *report) find(name string) *row {
	for _, row := range r.rows {
		if row.name == name {
			return row
		}
	}
	return nil
}

// add adds a run to the row that is called as want is, which is made if it is missing.
func (r *report) add(want row, u usage) {
	found := r.find(want.name)
	if found == nil {
		found = &want
		r.rows = append(r.rows, found)
	}
	found.runs = append(found.runs, u)
}

// check holds the measured to the promises.
func (r *report) check(tb testing.TB) {
	tb.Helper()
	for _, row := range r.rows {
		u := row.median()
		if row.bounded && (u.rss > maxMemory || u.rss == 0) {
			tb.Errorf("%s took %.1f MiB of memory, it may take %d", row.name, float64(u.rss)/(1<<20), maxMemory>>20)
		}
		// A few blocks are the file system's own.
		if row.clean && u.temp > mb {
			tb.Errorf("%s took %.1f MB of disk beyond its result", row.name, float64(u.temp)/mb)
		}
		if row.clean && len(u.strays) > 0 {
			tb.Errorf("%s left behind %s", row.name, strings.Join(u.strays, ", "))
		}
	}
}

// table is what is printed in the end, in Markdown.
func (r *report) table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%.0f MB of layers and configs, %d rounds, %d CPUs, %s; load average before each round: %s\n\n",
		float64(r.payload)/mb, r.rounds, runtime.NumCPU(), runtime.Version(), strings.Join(r.loads, ", "))
	b.WriteString("| command | wall s | MB/s | CPU s | peak MiB | written MB | temporary MB | wall : bare | CPU : bare |\n")
	b.WriteString("|---|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, row := range r.rows {
		u := row.median()
		cells := []string{
			row.name, fmt.Sprintf("%.3f", u.wall.Seconds()), "", fmt.Sprintf("%.3f", u.cpu.Seconds()),
			fmt.Sprintf("%.1f", float64(u.rss)/(1<<20)), fmt.Sprintf("%.1f", float64(u.written)/mb), fmt.Sprintf("%.1f", float64(u.temp)/mb), "", "",
		}
		if u.wall == 0 { // a server: how long it ran says nothing
			cells[1] = ""
		} else if row.bytes > 0 {
			cells[2] = fmt.Sprintf("%.0f", float64(row.bytes)/mb/u.wall.Seconds())
		}
		if base := r.find(row.bare); base != nil {
			cells[7] = fmt.Sprintf("%.2f", ratio(u.wall, base.median().wall))
			cells[8] = fmt.Sprintf("%.2f", ratio(u.cpu, base.median().cpu))
		}
		fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | "))
	}
	fmt.Fprintf(&b, "\n`sealift version`, %d starts: least CPU %.1f ms, median %.1f ms. The binary has %.2f MB.\n",
		len(r.version), slices.Min(r.version).Seconds()*1e3, middle(r.version).Seconds()*1e3, float64(r.size)/mb)
	return b.String()
}

func rounds() (int, error) {
	v := os.Getenv("SEALIFT_BENCH_ROUNDS")
	if v == "" {
		return 4, nil
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("SEALIFT_BENCH_ROUNDS %q is not a number of rounds", v)
	}
	return n, nil
}

// bench is one measurement under way.
type bench struct {
	dir    string
	corpus *corpus
	source *server
	tools  []tool
	*report
}

func measure(ctx context.Context) (_ *report, err error) {
	bin, err := filepath.Abs(os.Getenv("SEALIFT_BIN"))
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(bin)
	if err != nil {
		return nil, err
	}
	n, err := rounds()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(os.Getenv("SEALIFT_BENCH_DIR"), "sealift-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b := &bench{dir: dir, tools: installed(), report: &report{bin: bin, rounds: n, size: info.Size()}}

	// The source, with its content in the page cache: what is measured is not its disk.
	home, err := newSandbox(filepath.Join(dir, "source"))
	if err != nil {
		return nil, err
	}
	if b.source, err = home.serve(ctx, bin, filepath.Join(dir, "source", "store")); err != nil {
		return nil, err
	}
	stopped := false
	defer func() {
		if !stopped {
			_, e := b.source.stop()
			err = errors.Join(err, e)
		}
	}()
	if b.corpus, err = push(ctx, b.source.addr); err != nil {
		return nil, fmt.Errorf("filling the source: %w", err)
	}
	b.payload = b.corpus.bytes
	if err := b.starts(ctx); err != nil {
		return nil, err
	}
	for i := range n {
		if err := b.round(ctx, i); err != nil {
			return nil, err
		}
	}
	u, err := b.source.stop()
	stopped = true
	b.add(row{name: "`serve`, as the source of all of them"}, u)
	return b.report, err
}

// starts measures the command that does nothing but start.
func (b *bench) starts(ctx context.Context) error {
	for i := range versionRuns {
		s, err := newSandbox(filepath.Join(b.dir, fmt.Sprint("version", i)))
		if err != nil {
			return err
		}
		u, err := s.run(ctx, b.bin, "version")
		if err != nil {
			return err
		}
		b.version = append(b.version, u.cpu)
		b.add(row{name: "`version`", clean: true}, u)
	}
	return nil
}

// round runs everything once, in directories of its own that are gone afterwards.
func (b *bench) round(ctx context.Context, i int) (err error) {
	raw, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return err
	}
	b.loads = append(b.loads, strings.Fields(string(raw))[0])
	dir := filepath.Join(b.dir, fmt.Sprint("round", i))
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s, err := newSandbox(filepath.Join(dir, "sealift"))
	if err != nil {
		return err
	}
	var spec strings.Builder
	spec.WriteString("apiVersion: sealift/v1\nkind: Bundle\nname: bench\nversion: 1.0.0\nplatforms: [linux/amd64]\nimages:\n")
	for _, ref := range b.corpus.references {
		fmt.Fprintf(&spec, "  - ref: %s\n", ref)
	}
	if err := os.WriteFile(filepath.Join(s.work, "sealift.yaml"), []byte(spec.String()), 0o644); err != nil {
		return err
	}

	const file = "bench-1.0.0.tar.zst"
	if err := b.sealift(ctx, s, row{name: "`keygen`"}, "keygen"); err != nil {
		return err
	}
	// What comes second finds the machine in another state: the two take turns.
	err = turns(i, func() error {
		return b.sealift(ctx, s, row{name: "`pack`", bare: barePack, bytes: b.payload, bounded: true}, "pack", "--key", "cosign.key")
	}, func() error {
		return b.bare(ctx, dir, row{name: barePack, bytes: b.payload}, bareJob{Mode: "fetch", Registry: b.source.addr})
	})
	if err != nil {
		return err
	}
	for _, t := range b.tools {
		if err := t.fetch(ctx, b, filepath.Join(dir, t.name)); err != nil {
			return err
		}
	}
	if err := b.sealift(ctx, s, row{name: "`inspect`"}, "inspect", "--key", "cosign.pub", file); err != nil {
		return err
	}
	err = turns(i, func() error {
		return b.sealift(ctx, s, row{name: "`verify`", bare: bareVerify, bytes: b.payload, bounded: true}, "verify", "--key", "cosign.pub", file)
	}, func() error {
		return b.bare(ctx, dir, row{name: bareVerify, bytes: b.payload}, bareJob{Mode: "hash"})
	})
	if err != nil {
		return err
	}
	err = turns(i, func() error {
		return b.site(ctx, dir, "`serve`, while `seed` fills it", func(addr string) error {
			args := []string{"seed", "--registry", addr, "--key", "cosign.pub", file}
			if err := b.sealift(ctx, s, row{name: "`seed`", bare: bareSeed, bytes: b.payload, bounded: true}, args...); err != nil {
				return err
			}
			return b.sealift(ctx, s, row{name: "`seed`, again", bounded: true}, args...)
		})
	}, func() error {
		return b.site(ctx, dir, "", func(addr string) error {
			return b.bare(ctx, dir, row{name: bareSeed, bytes: b.payload}, bareJob{Mode: "upload", Registry: addr})
		})
	})
	if err != nil {
		return err
	}
	for _, t := range b.tools {
		if t.upload == nil {
			continue
		}
		err := b.site(ctx, dir, "", func(addr string) error { return t.upload(ctx, b, filepath.Join(dir, t.name), addr) })
		if err != nil {
			return err
		}
	}
	return nil
}

// turns calls f and g, in odd rounds g first.
func turns(round int, f, g func() error) error {
	if round%2 == 1 {
		f, g = g, f
	}
	if err := f(); err != nil {
		return err
	}
	return g()
}

// sealift runs a command of the binary.
func (b *bench) sealift(ctx context.Context, s *sandbox, want row, args ...string) error {
	u, err := s.run(ctx, b.bin, args...)
	if err != nil {
		return err
	}
	want.clean = true
	b.add(want, u)
	return nil
}

// Names of the bare loops.
const (
	barePack   = "bare loop: get, hash, write"
	bareVerify = "bare loop: read, hash"
	bareSeed   = "bare loop: read, hash, upload"
)

// bare runs a bare loop, in this very program.
func (b *bench) bare(ctx context.Context, dir string, want row, j bareJob) error {
	s, err := newSandbox(filepath.Join(dir, "bare"))
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	j.File, j.Blobs = filepath.Join(s.work, "blobs"), b.corpus.blobs
	raw, err := json.Marshal(j)
	if err != nil {
		return err
	}
	job := filepath.Join(s.work, "job.json")
	if err := os.WriteFile(job, raw, 0o644); err != nil {
		return err
	}
	u, err := s.run(ctx, self, bareArgument, job)
	if err != nil {
		return err
	}
	b.add(want, u)
	return nil
}

// site runs f with an empty registry.
func (b *bench) site(ctx context.Context, dir, name string, f func(addr string) error) (err error) {
	root := filepath.Join(dir, "site")
	s, err := newSandbox(root)
	if err != nil {
		return err
	}
	reg, err := s.serve(ctx, b.bin, filepath.Join(root, "store"))
	if err != nil {
		return err
	}
	defer func() {
		u, e := reg.stop()
		if name != "" && e == nil {
			b.add(row{name: name}, u)
		}
		err = errors.Join(err, e, os.RemoveAll(root))
	}()
	return f(reg.addr)
}

// tool is another program that does part of the same.
type tool struct {
	name   string
	fetch  func(ctx context.Context, b *bench, dir string) error
	upload func(ctx context.Context, b *bench, dir, addr string) error
}

// installed are the tools that are there.
func installed() []tool {
	all := []tool{
		{name: "skopeo", fetch: perImage("`skopeo copy` to a layout", barePack, func(src, _, tag string) []string {
			return []string{"skopeo", "--insecure-policy", "copy", "--quiet", "--src-tls-verify=false", "docker://" + src, "oci:layout:" + tag}
		}), upload: perUpload("`skopeo copy` from a layout", func(_, tag, dst string) []string {
			return []string{"skopeo", "--insecure-policy", "copy", "--quiet", "--preserve-digests", "--dest-tls-verify=false", "oci:layout:" + tag, "docker://" + dst}
		})},
		{name: "crane", fetch: perImage("`crane pull` to a layout", barePack, func(src, _, _ string) []string {
			return []string{"crane", "pull", "--platform", "linux/amd64", "--format", "oci", src, "layout"}
		})}, // it pushes from layouts of one image only
		{name: "regctl", fetch: perImage("`regctl image copy` to a layout", barePack, func(src, addr, tag string) []string {
			return []string{"regctl", "--host", "reg=" + addr + ",tls=disabled", "image", "copy", "--platform", "linux/amd64", src, "ocidir://layout:" + tag}
		}), upload: perUpload("`regctl image copy` from a layout", func(addr, tag, dst string) []string {
			return []string{"regctl", "--host", "reg=" + addr + ",tls=disabled", "image", "copy", "ocidir://layout:" + tag, dst}
		})},
	}
	return slices.DeleteFunc(all, func(t tool) bool {
		_, err := exec.LookPath(t.name)
		return err != nil
	})
}

// perImage runs a program for each image, one after the other, and adds up what they take.
func perImage(name, bare string, argv func(src, addr, tag string) []string) func(context.Context, *bench, string) error {
	return func(ctx context.Context, b *bench, dir string) error {
		return b.total(ctx, dir, row{name: name, bare: bare, bytes: b.payload}, func(ref, tag string) []string {
			return argv(ref, b.source.addr, tag)
		})
	}
}

// perUpload is perImage for the way out of the layout.
func perUpload(name string, argv func(addr, tag, dst string) []string) func(context.Context, *bench, string, string) error {
	return func(ctx context.Context, b *bench, dir, addr string) error {
		return b.total(ctx, dir, row{name: name, bare: bareSeed, bytes: b.payload}, func(ref, tag string) []string {
			return argv(addr, tag, addr+strings.TrimPrefix(ref, b.source.addr))
		})
	}
}

func (b *bench) total(ctx context.Context, dir string, want row, argv func(ref, tag string) []string) error {
	s, err := newSandbox(dir)
	if err != nil {
		return err
	}
	var sum usage
	for i, ref := range b.corpus.references {
		a := argv(ref, images[i].name)
		u, err := s.run(ctx, a[0], a[1:]...)
		if err != nil {
			return err
		}
		sum = sum.then(u)
	}
	b.add(want, sum)
	return nil
}
