//go:build linux

package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

	"github.com/sealift/sealift/internal/sigstore/sigtest"
)

const (
	// maxMemory is what every command may take that moves payload, whatever the size of the
	// bundle and however many transfers there are.
	maxMemory = 96 << 20
	// maxWritten is what a pack may write, as a part of the bundle.
	maxWritten = 1.02
	// maxRatio is what the time of a bare loop may be multiplied with.
	maxRatio = 1.3
	// maxAgain is what seeding of what is there may take beyond the registry's answers.
	maxAgain = 100 * time.Millisecond
	// maxOpen is the processor time in which a big bundle is opened and its signature checked,
	// beyond that of starting.
	maxOpen = 20 * time.Millisecond
	// maxJudge is the same for a policy that demands all that there is.
	maxJudge = 50 * time.Millisecond
	// minParity is how many bytes of a bundle a second are encoded or repaired at least.
	minParity = 300 * mb
)

// starts is how often the commands are started that take next to no time.
const starts = 30

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
	ctx, cancel := context.WithTimeout(context.Background(), 55*time.Minute)
	defer cancel()
	return measure(ctx)
})

// measuring is the test that the measurement is made for.
var measuring testing.TB

func measurement(tb testing.TB) *report {
	tb.Helper()
	if os.Getenv("SEALIFT_BIN") == "" {
		tb.Skip("SEALIFT_BIN names no binary to measure; 'make bench' does")
	}
	measuring = tb
	r, err := measured()
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// TestPromises holds the commands to what they may take.
func TestPromises(t *testing.T) { measurement(t).check(t) }

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
				b.ReportMetric(row.over(base, wall), "wall/bare")
				b.ReportMetric(row.over(base, cpu), "cpu/bare")
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
	// result is the size of the files that came out, of which the most may be written; 0 where
	// it does not matter.
	result int64
	// spare is what may be reserved on the disk, without being written, for what is going to be
	// compressed.
	spare int64
	runs  []usage
}

func (r *row) slug() string {
	return strings.Join(strings.FieldsFunc(r.name, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < '0' || c > '9')
	}), "-")
}

// median is the median of the times and the largest of all else.
func (r *row) median() usage {
	var m usage
	var walls, cpus []time.Duration
	for _, u := range r.runs {
		walls, cpus = append(walls, u.wall), append(cpus, u.cpu)
		m.rss, m.written, m.temp = max(m.rss, u.rss), max(m.written, u.written), max(m.temp, u.temp)
		m.read, m.sent = max(m.read, u.read), max(m.sent, u.sent)
		m.strays = append(m.strays, u.strays...)
	}
	m.wall, m.cpu = middle(walls), middle(cpus)
	return m
}

// phase is the median of the sum of some tasks.
func (r *row) phase(tasks ...string) time.Duration {
	var all []time.Duration
	for _, u := range r.runs {
		var sum time.Duration
		for _, t := range tasks {
			sum += u.phases[t]
		}
		all = append(all, sum)
	}
	return middle(all)
}

func middle(d []time.Duration) time.Duration {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return (d[(len(d)-1)/2] + d[len(d)/2]) / 2
}

// over is the least that this row came to in any round, divided by the same of its bare loop. What
// else a machine does only ever adds.
func (r *row) over(base *row, of func(usage) time.Duration) float64 {
	least := func(r *row) time.Duration {
		var all []time.Duration
		for _, u := range r.runs {
			all = append(all, of(u))
		}
		return slices.Min(all)
	}
	return float64(least(r)) / float64(max(least(base), 1))
}

func wall(u usage) time.Duration { return u.wall }
func cpu(u usage) time.Duration  { return u.cpu }

// report is everything that was measured.
type report struct {
	bin     string
	payload int64
	rounds  int
	size    int64
	rows    []*row
	loads   []string
	// bundle and bigSize are the sizes of the packed and of the big bundle.
	bundle, bigSize int64
	// rehearsal tells that what runs now does not count.
	rehearsal bool
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
	if r.rehearsal {
		return
	}
	found := r.find(want.name)
	if found == nil {
		found = &want
		r.rows = append(r.rows, found)
	}
	found.result, found.spare = want.result, want.spare
	found.runs = append(found.runs, u)
}

// check holds the measured to the promises.
func (r *report) check(tb testing.TB) {
	tb.Helper()
	for _, row := range r.rows {
		u := row.median()
		if row.bounded && (u.rss > maxMemory || u.rss == 0) {
			tb.Errorf("%s took %.1f MiB of memory, it may take %d", row.name, mib(u.rss), maxMemory>>20)
		}
		// A few blocks are the file system's own.
		if row.clean && u.temp > mb+row.spare {
			tb.Errorf("%s took %.1f MB of disk beyond its result", row.name, float64(u.temp)/mb)
		}
		if row.clean && len(u.strays) > 0 {
			tb.Errorf("%s left behind %s", row.name, strings.Join(u.strays, ", "))
		}
		if n := max(u.written, u.sent); row.result > 0 && float64(n) > maxWritten*float64(row.result) {
			tb.Errorf("%s wrote %.1f MB for a result of %.1f MB", row.name, float64(n)/mb, float64(row.result)/mb)
		}
	}
	if again := r.find(seedAgain).median(); again.read > r.bundle/100 {
		tb.Errorf("%s read %.1f MB, though there was nothing to send", seedAgain, float64(again.read)/mb)
	}
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// bars are the promises and what was measured of them, in Markdown.
func (r *report) bars() string {
	var b strings.Builder
	line := func(what, limit, measured string, holds bool) {
		verdict := "holds"
		if !holds {
			verdict = "**does not hold**"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", what, limit, measured, verdict)
	}
	b.WriteString("| promise | limit | measured | |\n|---|--:|--:|---|\n")
	for _, name := range []string{pack, seed} {
		row := r.find(name)
		base := r.find(row.bare)
		for _, time := range []struct {
			name string
			of   func(usage) time.Duration
		}{{"wall", wall}, {"CPU", cpu}} {
			ratio := row.over(base, time.of)
			line(name+" : bare loop, "+time.name, fmt.Sprintf("%.1f", maxRatio), fmt.Sprintf("%.2f", ratio), ratio <= maxRatio)
		}
	}
	packed := r.find(pack)
	u := packed.median()
	written := float64(max(u.written, u.sent)) / float64(packed.result)
	line(pack+", written : bundle (!)", fmt.Sprintf("%.2f", maxWritten), fmt.Sprintf("%.3f", written), written <= maxWritten)
	line(pack+", temporary disk (!)", "0", fmt.Sprintf("%.1f MB", float64(u.temp)/mb), u.temp <= mb)
	beyond := r.find(seedAgain).median().wall - r.find(bareAsk).median().wall
	line(seedAgain+", beyond the registry's answers", "0.1 s", fmt.Sprintf("%.3f s", beyond.Seconds()), beyond <= maxAgain)
	again := r.find(seedAgain).median().read
	line(seedAgain+": payload read (!)", "0", fmt.Sprintf("0, of %.2f MB read in all", float64(again)/mb), again <= r.bundle/100)
	least := r.find(version).median().cpu
	for _, name := range []string{bigInspect, bigList} {
		cpu := r.find(name).median().cpu - least
		line(name+", CPU beyond "+version, "20 ms", fmt.Sprintf("%.1f ms", cpu.Seconds()*1e3), cpu <= maxOpen)
	}
	judged := r.find(bigPolicy).median().cpu - least
	line(bigPolicy+", CPU beyond "+version, "50 ms", fmt.Sprintf("%.1f ms", judged.Seconds()*1e3), judged <= maxJudge)
	var most *row
	for _, row := range r.rows {
		if row.bounded && (most == nil || row.median().rss > most.median().rss) {
			most = row
		}
	}
	rss := most.median().rss
	line("memory of any command that moves payload (!)", fmt.Sprintf("%d MiB", maxMemory>>20), fmt.Sprintf("%.1f MiB: %s", mib(rss), most.name), rss <= maxMemory)
	for _, p := range []struct {
		name  string
		tasks []string
	}{{parity, []string{"making parity"}}, {repair, []string{"looking for damage", "restoring"}}, {repairFile, []string{"looking for damage", "restoring"}}} {
		speed := float64(r.bundle) / max(r.find(p.name).phase(p.tasks...).Seconds(), 1e-9)
		line(p.name+": "+strings.Join(p.tasks, ", "), fmt.Sprintf("%d MB/s", minParity/mb), fmt.Sprintf("%.0f MB/s", speed/mb), speed >= minParity)
	}
	return b.String()
}

// table is what is printed in the end, in Markdown.
func (r *report) table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%.0f MB of layers and configs, %d rounds, %d CPUs, %s, a binary of %.1f MB; load average before each round and in the end: %s\n\n%s\n",
		float64(r.payload)/mb, r.rounds, runtime.NumCPU(), runtime.Version(), float64(r.size)/mb, strings.Join(r.loads, ", "), r.bars())
	b.WriteString("| command | wall s | MB/s | CPU s | peak MiB | read MB | written MB | temporary MB | wall : bare | CPU : bare |\n")
	b.WriteString("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, row := range r.rows {
		u := row.median()
		cells := []string{
			row.name, fmt.Sprintf("%.3f", u.wall.Seconds()), "", fmt.Sprintf("%.3f", u.cpu.Seconds()), strings.TrimPrefix(fmt.Sprintf("%.1f", mib(u.rss)), "0.0"),
			fmt.Sprintf("%.1f", float64(u.read)/mb), fmt.Sprintf("%.1f", float64(u.written)/mb), fmt.Sprintf("%.1f", float64(u.temp)/mb), "", "",
		}
		if u.wall == 0 { // a server: how long it ran, and what it read, says nothing
			cells[1], cells[5] = "", ""
		} else if row.bytes > 0 {
			cells[2] = fmt.Sprintf("%.0f", float64(row.bytes)/mb/u.wall.Seconds())
		}
		if base := r.find(row.bare); base != nil {
			cells[8] = fmt.Sprintf("%.2f", row.over(base, wall))
			cells[9] = fmt.Sprintf("%.2f", row.over(base, cpu))
		}
		fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | "))
	}
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

// size is how many bytes of layers are made.
func size() (int64, error) {
	v := os.Getenv("SEALIFT_BENCH_MB")
	if v == "" {
		return corpusMB * mb, nil
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || n < 10 || n > 100*corpusMB {
		return 0, fmt.Errorf("SEALIFT_BENCH_MB %q is not a number of MB from 10 to %d", v, 100*corpusMB)
	}
	return n * mb, nil
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
	layers, err := size()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(os.Getenv("SEALIFT_BENCH_DIR"), "sealift-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	// A copy, since the binary may be built anew meanwhile.
	own := filepath.Join(dir, "sealift")
	if err := copyFile(own, bin, info.Mode()); err != nil {
		return nil, err
	}
	b := &bench{dir: dir, tools: installed(), report: &report{bin: own, rounds: n, size: info.Size()}}

	if err := b.big(ctx, measuring); err != nil {
		return nil, err
	}
	// The source, with its content in the page cache: what is measured is not its disk.
	home, err := newSandbox(filepath.Join(dir, "source"))
	if err != nil {
		return nil, err
	}
	if b.source, err = home.serve(ctx, b.bin, filepath.Join(dir, "source", "store")); err != nil {
		return nil, err
	}
	stopped := false
	defer func() {
		if !stopped {
			_, e := b.source.stop()
			err = errors.Join(err, e)
		}
	}()
	if b.corpus, err = push(ctx, b.source.addr, layers); err != nil {
		return nil, fmt.Errorf("filling the source: %w", err)
	}
	b.payload = b.corpus.bytes
	for i := range n {
		if err := b.round(ctx, i); err != nil {
			return nil, err
		}
	}
	if err := b.load(); err != nil {
		return nil, err
	}
	u, err := b.source.stop()
	stopped = true
	b.add(row{name: "`serve`, as the source of all of them"}, u)
	return b.report, err
}

func copyFile(to, from string, mode os.FileMode) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

func (b *bench) load() error {
	raw, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return err
	}
	b.loads = append(b.loads, strings.Fields(string(raw))[0])
	return nil
}

// signAgain adds the signature of an identity to the big bundle, and writes a policy that demands it
// beside that of the key.
func (b *bench) signAgain(ctx context.Context, tb testing.TB, s *sandbox, file, key string) (policy string, err error) {
	const issuer, subject = "https://ci.example", "https://git.example/acme/shop/release.yml@refs/tags/v1"
	raw, err := s.command(ctx, b.bin, "inspect", "--manifest", file).Output()
	if err != nil {
		return "", err
	}
	virtual := sigtest.New(tb)
	signature := virtual.SignBlob(tb, issuer, subject, raw, sigtest.Options{TSA: true, Log: true, SCT: true})
	pem, err := os.ReadFile(filepath.Join(s.work, key))
	if err != nil {
		return "", err
	}
	text := fmt.Appendf(nil, `mediaType: application/vnd.sealift.policy.v1+yaml
trustedRoot: %q
signers:
  vendor: {key: %q}
  ci: {issuer: %q, subject: "https://git.example/acme/shop/release.yml@refs/tags/*"}
rules:
  - name: all
    bundles: [big]
    groups: [{name: vendor, threshold: 1, signers: [vendor]}, {name: ci, threshold: 1, signers: [ci]}]
`, virtual.TrustedRoot(tb, sigtest.RootOptions{TSA: true, Log: true, CT: true}), pem, issuer)
	for name, content := range map[string][]byte{"ci.sigstore.json": signature, "trust.yaml": text} {
		if err := os.WriteFile(filepath.Join(s.work, name), content, 0o644); err != nil {
			return "", err
		}
	}
	_, err = s.run(ctx, b.bin, "sign", file, "--sigstore-bundle", "ci.sigstore.json")
	return "trust.yaml", err
}

// big measures what does not depend on the size of the payload, on a bundle of 10 GB, and what
// memory does there.
func (b *bench) big(ctx context.Context, tb testing.TB) (err error) {
	dir := filepath.Join(b.dir, "big")
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s, err := newSandbox(dir)
	if err != nil {
		return err
	}
	const file, key = "big-1.0.0.tar.zst", "big.pub"
	if b.bigSize, err = writeBig(filepath.Join(s.work, file), filepath.Join(s.work, key)); err != nil {
		return fmt.Errorf("writing the big bundle: %w", err)
	}
	policy, err := b.signAgain(ctx, tb, s, file, key)
	if err != nil {
		return err
	}
	commands := []struct {
		name string
		args []string
	}{
		{version, []string{"version"}},
		{bigPolicy, []string{"inspect", "--policy", policy, file}},
		{bigInspect, []string{"inspect", "--key", key, file}},
		{bigList, []string{"list", "--key", key, file}},
	}
	for range starts {
		for _, c := range commands {
			if err := b.sealift(ctx, s, row{name: c.name}, c.args...); err != nil {
				return err
			}
		}
	}
	return b.sealift(ctx, s, row{name: "`verify`, 10 GB", bytes: b.bigSize, bounded: true}, "verify", "--key", key, file)
}

// Names of rows that the promises are about, and of the bare loops.
const (
	version    = "`version`"
	pack       = "`pack`"
	seed       = "`seed`"
	seedAgain  = "`seed`, again"
	parity     = "`parity --size volumes=1`"
	repair     = "`repair` of a lost volume"
	repairFile = "`repair` of 5% of a file"
	bigInspect = "`inspect --key`, 10 GB"
	bigList    = "`list --key`, 10 GB"
	bigPolicy  = "`inspect --policy`, a key and an identity with log and timestamp, 10 GB"

	barePack   = "bare loop: get, hash, write"
	bareVerify = "bare loop: read, hash"
	bareSeed   = "bare loop: read, hash, upload"
	bareAsk    = "bare loop: ask for manifests and tags"
)

// file is the name of the bundle that is packed, and spec that of its spec.
const (
	file      = "bench-1.0.0.tar.zst"
	spec      = "sealift.yaml"
	plainSpec = "plain.yaml"
)

// writeSpec writes a spec of some images.
func (s *sandbox) writeSpec(name string, references ...string) error {
	var b strings.Builder
	b.WriteString("apiVersion: sealift/v1\nkind: Bundle\nname: bench\nversion: 1.0.0\nplatforms: [linux/amd64]\nimages:\n")
	for _, ref := range references {
		fmt.Fprintf(&b, "  - ref: %s\n", ref)
	}
	return os.WriteFile(filepath.Join(s.work, name), []byte(b.String()), 0o644)
}

// round runs everything once, in directories of its own that are gone afterwards.
func (b *bench) round(ctx context.Context, i int) (err error) {
	if err := b.load(); err != nil {
		return err
	}
	dir := filepath.Join(b.dir, fmt.Sprint("round", i))
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s, err := newSandbox(filepath.Join(dir, "sealift"))
	if err != nil {
		return err
	}
	if err := errors.Join(s.writeSpec(spec, b.corpus.references...), s.writeSpec(plainSpec, b.corpus.plain)); err != nil {
		return err
	}
	if err := b.sealift(ctx, s, row{name: "`keygen`"}, "keygen"); err != nil {
		return err
	}
	// What comes second finds the machine in another state: the two take turns.
	err = b.turns(i, func() error {
		return b.pack(ctx, s, row{name: pack, bare: barePack, bytes: b.payload}, spec, ".")
	}, func() error {
		return b.bare(ctx, dir, row{name: barePack, bytes: b.payload}, bareJob{Mode: "fetch", Registry: b.source.addr})
	})
	if err != nil {
		return err
	}
	b.bundle = b.find(pack).result
	err = b.turns(i, func() error {
		return b.sealift(ctx, s, row{name: "`verify`", bare: bareVerify, bytes: b.payload, bounded: true}, "verify", "--key", "cosign.pub", file)
	}, func() error {
		return b.bare(ctx, dir, row{name: bareVerify, bytes: b.payload}, bareJob{Mode: "hash"})
	})
	if err != nil {
		return err
	}
	err = b.turns(i, func() error {
		return b.site(ctx, dir, "`serve`, while `seed` fills it", func(addr string) error { return b.seed(ctx, s, dir, addr) })
	}, func() error {
		return b.site(ctx, dir, "", func(addr string) error {
			return b.bare(ctx, dir, row{name: bareSeed, bytes: b.payload}, bareJob{Mode: "upload", Registry: addr})
		})
	})
	if err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(dir, "bare")); err != nil {
		return err
	}
	for _, t := range b.tools {
		if err := b.tool(ctx, t, dir); err != nil {
			return err
		}
	}
	for _, f := range []func(context.Context, *sandbox, string) error{b.streams, b.wide, b.volumes, b.plain} {
		if err := f(ctx, s, dir); err != nil {
			return err
		}
	}
	return nil
}

// tool measures another program on its way into a layout and out of it.
func (b *bench) tool(ctx context.Context, t tool, dir string) error {
	layout := filepath.Join(dir, t.name)
	err := b.rehearsed(func() error { return errors.Join(os.RemoveAll(layout), t.fetch(ctx, b, layout)) })
	if err != nil {
		return err
	}
	if t.upload != nil {
		err := b.rehearsed(func() error {
			return b.site(ctx, dir, "", func(addr string) error { return t.upload(ctx, b, layout, addr) })
		})
		if err != nil {
			return err
		}
	}
	return os.RemoveAll(layout)
}

// pack packs into a directory, signed.
func (b *bench) pack(ctx context.Context, s *sandbox, want row, spec, to string, args ...string) error {
	if err := s.remove(filepath.Join(to, file)); err != nil {
		return err
	}
	u, err := s.run(ctx, b.bin, append([]string{"pack", "-f", spec, "--key", "cosign.key", "-o", to}, args...)...)
	if err != nil {
		return err
	}
	made, err := filepath.Glob(filepath.Join(s.work, to, file+"*"))
	if err != nil {
		return err
	}
	for _, name := range made {
		info, err := os.Stat(name)
		if err != nil {
			return err
		}
		want.result += info.Size()
	}
	if spec == plainSpec {
		want.spare = max(0, b.corpus.plainBytes*101/100-want.result)
	}
	want.clean, want.bounded = true, true
	b.add(want, u)
	return nil
}

// seed fills the registry at addr, and asks it again.
func (b *bench) seed(ctx context.Context, s *sandbox, dir, addr string) error {
	args := []string{"seed", "--registry", addr, "--key", "cosign.pub"}
	if err := b.sealift(ctx, s, row{name: seed, bare: bareSeed, bytes: b.payload, bounded: true}, append(args, file)...); err != nil {
		return err
	}
	if err := b.sealift(ctx, s, row{name: seedAgain, bounded: true}, append(args, file)...); err != nil {
		return err
	}
	// A bundle of which only the head is left: whatever was read of the payload would be wrong.
	if err := hollow(filepath.Join(s.work, "hollow.tar.zst"), filepath.Join(s.work, file)); err != nil {
		return err
	}
	if err := b.sealift(ctx, s, row{name: "`seed`, again, without the payload", bounded: true}, append(args, "hollow.tar.zst")...); err != nil {
		return fmt.Errorf("nothing is to be sent, and yet the payload was read: %w", err)
	}
	if err := b.bare(ctx, dir, row{name: bareAsk}, bareJob{Mode: "ask", Registry: addr, Blobs: b.corpus.roots}); err != nil {
		return err
	}
	return os.Remove(filepath.Join(s.work, "hollow.tar.zst"))
}

// hollow copies the head of a bundle, to a file of the same size that holds nothing else.
func hollow(to, from string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	header := make([]byte, 13+512) // of the manifest, in its frame
	if _, err := io.ReadFull(in, header); err != nil {
		return err
	}
	n, err := strconv.ParseInt(string(header[13+124:13+124+11]), 8, 64)
	if err != nil {
		return err
	}
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if _, err := io.Copy(out, io.NewSectionReader(in, 0, headSize(n))); err != nil {
		return err
	}
	return out.Truncate(info.Size())
}

// streams reads the bundle from a pipe.
func (b *bench) streams(ctx context.Context, s *sandbox, dir string) error {
	from := filepath.Join(s.work, file)
	err := b.piped(ctx, s, from, row{name: "`verify -`, from a pipe", bytes: b.payload}, "verify", "--key", "cosign.pub", "-")
	if err != nil {
		return err
	}
	return b.site(ctx, dir, "", func(addr string) error {
		return b.piped(ctx, s, from, row{name: "`seed -`, from a pipe", bytes: b.payload}, "seed", "--registry", addr, "--key", "cosign.pub", "-")
	})
}

// wide does everything with 16 transfers.
func (b *bench) wide(ctx context.Context, s *sandbox, dir string) error {
	if err := os.Remove(filepath.Join(s.work, file)); err != nil {
		return err
	}
	return b.journey(ctx, s, dir, spec, b.payload, "")
}

// plain does the same with an image whose layers are not compressed.
func (b *bench) plain(ctx context.Context, s *sandbox, dir string) error {
	return b.journey(ctx, s, dir, plainSpec, b.corpus.plainBytes, ", plain layers")
}

func (b *bench) journey(ctx context.Context, s *sandbox, dir, spec string, n int64, suffix string) error {
	const jobs = "16"
	name := func(command string) string { return "`" + command + " --jobs " + jobs + "`" + suffix }
	if err := b.pack(ctx, s, row{name: name("pack"), bytes: n}, spec, "wide", "--jobs", jobs); err != nil {
		return err
	}
	bundle := filepath.Join("wide", file)
	err := b.site(ctx, dir, "", func(addr string) error {
		want := row{name: name("seed"), bytes: n, bounded: true}
		return b.sealift(ctx, s, want, "seed", "--registry", addr, "--key", "cosign.pub", "--jobs", jobs, "--state", s.home+"-"+spec, bundle)
	})
	if err != nil {
		return err
	}
	if suffix != "" {
		if err := b.sealift(ctx, s, row{name: "`verify`" + suffix, bytes: n, bounded: true}, "verify", "--key", "cosign.pub", "--state", s.home+"-"+spec, bundle); err != nil {
			return err
		}
	}
	want := row{name: name("extract"), bytes: n, bounded: true}
	if err := b.sealift(ctx, s, want, "extract", "--key", "cosign.pub", "--state", s.home+"-"+spec, "--jobs", jobs, "-o", "layout", bundle); err != nil {
		return err
	}
	return s.remove("wide", "layout")
}

// volumes cuts the bundle, loses a volume and restores it.
func (b *bench) volumes(ctx context.Context, s *sandbox, _ string) error {
	if err := b.pack(ctx, s, row{name: "`pack --parity 10%`", bytes: b.payload}, spec, "whole", "--parity", "10%"); err != nil {
		return err
	}
	if err := damage(filepath.Join(s.work, "whole", file), b.bundle/2, b.bundle/20); err != nil {
		return err
	}
	want := row{name: repairFile, bytes: b.payload, bounded: true}
	if err := b.sealift(ctx, s, want, "repair", "--progress", "json", "--key", "cosign.pub", "-o", "restored", "whole"); err != nil {
		return err
	}
	if err := s.remove("whole", "restored"); err != nil {
		return err
	}
	volume := fmt.Sprint(max(b.bundle/10, 2<<20))
	if err := b.pack(ctx, s, row{name: "`pack --volume-size`, 11 volumes", bytes: b.payload}, spec, "cut", "--volume-size", volume); err != nil {
		return err
	}
	want = row{name: parity, bytes: b.payload, bounded: true}
	if err := b.sealift(ctx, s, want, "parity", "--progress", "json", "--size", "volumes=1", "cut"); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(s.work, "cut", file+".004")); err != nil {
		return err
	}
	want = row{name: repair, bytes: b.payload, bounded: true}
	if err := b.sealift(ctx, s, want, "repair", "--progress", "json", "--key", "cosign.pub", "-o", "restored", "cut"); err != nil {
		return err
	}
	return s.remove("cut", "restored")
}

// damage writes zeros over n bytes of a file.
func damage(path string, at, n int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	for ; n > 0 && err == nil; n -= int64(len(zeros)) {
		_, err = f.WriteAt(zeros[:min(n, int64(len(zeros)))], at)
		at += int64(len(zeros))
	}
	return errors.Join(err, f.Close())
}

func (s *sandbox) remove(names ...string) error {
	var err error
	for _, name := range names {
		err = errors.Join(err, os.RemoveAll(filepath.Join(s.work, name)))
	}
	return err
}

// turns calls f and g, in odd rounds g first.
func (b *bench) turns(round int, f, g func() error) error {
	if round%2 == 1 {
		f, g = g, f
	}
	if err := b.rehearsed(f); err != nil {
		return err
	}
	return b.rehearsed(g)
}

// rehearsed calls f twice, of which the second time counts. What comes first finds memory that a
// hypervisor has to bring back, and a file that is written takes up to three times as long.
func (b *bench) rehearsed(f func() error) error {
	b.rehearsal = true
	err := f()
	b.rehearsal = false
	if err != nil {
		return err
	}
	return f()
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

// piped runs a command that reads a file from a pipe.
func (b *bench) piped(ctx context.Context, s *sandbox, from string, want row, args ...string) error {
	u, err := s.runOn(ctx, from, b.bin, args...)
	if err != nil {
		return err
	}
	want.clean, want.bounded = true, true
	b.add(want, u)
	return nil
}

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
	j.File = filepath.Join(s.work, "blobs")
	if j.Blobs == nil {
		j.Blobs = b.corpus.blobs
	}
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
