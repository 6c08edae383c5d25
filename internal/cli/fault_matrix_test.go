package cli_test

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sealift/sealift/internal/cli"
	"github.com/sealift/sealift/internal/oci/faultproxy"
)

// faultsAtATime is how many cells run at the same time: most of their time they wait.
const faultsAtATime = 12

// faultCell is a fault, and what it may cost.
type faultCell struct {
	name string
	rule faultproxy.Rule
	// extra bounds the bytes that are sent beyond those without faults, as a share of these.
	extra float64
}

// Methods of requests that carry a body, and the addresses of manifests, of blobs, of what stands in
// for a list of referrers, and of what is read by a tag.
var (
	sending       = []string{http.MethodPut, http.MethodPatch}
	manifestPaths = regexp.MustCompile("/manifests/")
	blobPaths     = regexp.MustCompile("/blobs/")
	listPaths     = regexp.MustCompile("/manifests/sha256-[0-9a-f]+$")
	tagPaths      = regexp.MustCompile("/manifests/(1|sha256-[0-9a-f]+)$")
)

// answerFaults come before there is a body in either direction, in both schedules: each fifth
// request, as other tools were measured, and the first try of every METHOD and path. Where a registry
// says how long it wants to be left alone, that it does a few times.
func answerFaults() []faultCell {
	var cells []faultCell
	for name, kind := range map[string]faultproxy.Kind{
		"429": faultproxy.TooManyRequests, "503": faultproxy.Unavailable, "500": faultproxy.InternalError,
		"drop": faultproxy.Drop, "reset": faultproxy.Reset,
	} {
		cells = append(cells,
			faultCell{name + ", every fifth", faultproxy.Rule{Kind: kind, Every: 5}, 0.1},
			faultCell{name + ", first tries", faultproxy.Rule{Kind: kind, FirstTries: 1}, 0.1})
	}
	for name, rule := range map[string]faultproxy.Rule{
		"429 retry-after 0": {Kind: faultproxy.TooManyRequests, RetryAfter: "0"},
		"429 retry-after 1": {Kind: faultproxy.TooManyRequests, RetryAfter: "1", Times: 5},
		"503 retry-after 1": {Kind: faultproxy.Unavailable, RetryAfter: "1", Times: 5},
	} {
		rule.Every = 5
		cells = append(cells, faultCell{name + ", every fifth", rule, 0.1})
	}
	return cells
}

// digestOfUpload tells uploads apart by what they bring: each has an address of its own.
func digestOfUpload(r *http.Request) string { return r.URL.Query().Get("digest") }

// packFaults are those of the other kinds where a registry is read from. What has come counts: only
// a body that is corrupt must be read again from its beginning.
func packFaults() []faultCell {
	var cells []faultCell
	for _, c := range []faultCell{
		{"cut body", faultproxy.Rule{Kind: faultproxy.CutBody}, 0.1},
		{"cut request", faultproxy.Rule{Kind: faultproxy.CutRequest}, 0.1},
		{"corrupt", faultproxy.Rule{Kind: faultproxy.CorruptBody}, 1.1},
		{"short", faultproxy.Rule{Kind: faultproxy.ShortBody}, 0.1},
		{"stall", faultproxy.Rule{Kind: faultproxy.StallBody}, 0.1},
	} {
		every, first := c, c
		every.name, every.rule.Every = c.name+", every fifth", 5
		first.name, first.rule.FirstTries = c.name+", first tries", 1
		// What is ten pages on is not the place where anything else breaks.
		first.rule.At = 40_000
		cells = append(cells, every, first)
	}
	// Twice in the same way, where no digest was asked for.
	return append(cells, faultCell{"corrupt tags, first two tries", faultproxy.Rule{Kind: faultproxy.CorruptBody, Path: tagPaths, FirstTries: 2}, 0.1})
}

// seedFaults are those of the other kinds where a registry is written to: on the way there, and on
// the way back. A corrupt upload leaves nothing of its session, so that its path is never tried twice.
func seedFaults() []faultCell {
	var cells []faultCell
	for _, c := range []faultCell{
		// Small blobs are sent again as a whole.
		{"cut request", faultproxy.Rule{Kind: faultproxy.CutRequest, Methods: sending, MinBody: 1}, 0.5},
		{"stall request", faultproxy.Rule{Kind: faultproxy.StallRequest, Methods: sending}, 0.5},
		{"cut body", faultproxy.Rule{Kind: faultproxy.CutBody}, 0.1},
		{"corrupt body", faultproxy.Rule{Kind: faultproxy.CorruptBody}, 0.1},
		{"short body", faultproxy.Rule{Kind: faultproxy.ShortBody}, 0.1},
		{"stall body", faultproxy.Rule{Kind: faultproxy.StallBody}, 0.1},
	} {
		every, first := c, c
		every.name, every.rule.Every = c.name+", every third", 3
		first.name, first.rule.FirstTries = c.name+", first tries", 1
		cells = append(cells, every, first)
	}
	return append(cells,
		// A large blob goes on where it was, as often as that is needed.
		faultCell{"cut large requests", faultproxy.Rule{Kind: faultproxy.CutRequest, Methods: sending, MinBody: 1 << 20, At: 200_000}, 0.1},
		faultCell{"stall large requests", faultproxy.Rule{Kind: faultproxy.StallRequest, Methods: sending, MinBody: 1 << 20, At: 500_000}, 0.1},
		faultCell{"corrupt small blobs, first tries", faultproxy.Rule{Kind: faultproxy.CorruptRequest, Path: blobPaths, Methods: []string{http.MethodPut}, FirstTries: 1, Key: digestOfUpload}, 1},
		faultCell{"corrupt large blobs", faultproxy.Rule{Kind: faultproxy.CorruptRequest, Path: blobPaths, MinBody: 1 << 20, Times: 2}, 1},
		faultCell{"corrupt manifests, first tries", faultproxy.Rule{Kind: faultproxy.CorruptRequest, Path: manifestPaths, FirstTries: 1}, 0.1},
		// What is stored may then still be a manifest, but another one.
		faultCell{"corrupt ends of manifests, first tries", faultproxy.Rule{Kind: faultproxy.CorruptRequest, Path: manifestPaths, FirstTries: 1, At: 30}, 0.1},
		// The list of referrers that the site has: when it is looked at, and when it is merged.
		faultCell{"corrupt list, first", faultproxy.Rule{Kind: faultproxy.CorruptBody, Path: listPaths, Times: 1}, 0.1},
		faultCell{"corrupt list, second", faultproxy.Rule{Kind: faultproxy.CorruptBody, Path: listPaths, Skip: 1, Times: 1}, 0.1},
		faultCell{"corrupt list, second and third", faultproxy.Rule{Kind: faultproxy.CorruptBody, Path: listPaths, Skip: 1, Times: 2}, 0.1},
		faultCell{"short list, second", faultproxy.Rule{Kind: faultproxy.ShortBody, Path: listPaths, Skip: 1, Times: 1}, 0.1},
	)
}

// TestFaultMatrix lets each kind of fault happen again and again while a bundle is packed, and while
// a site is seeded with it. All of these end well, in bounded time, with the same result as without
// the faults and with few more bytes.
func TestFaultMatrix(t *testing.T) {
	t.Parallel()
	s := newFaultStage(t)
	var cells errgroup.Group
	cells.SetLimit(faultsAtATime)
	run := func(side string, list []faultCell, f func(*testing.T, faultCell)) {
		for _, c := range list {
			cells.Go(func() error {
				t.Run(side+"/"+c.name, func(t *testing.T) { f(t, c) })
				return nil
			})
		}
	}
	run("pack", append(answerFaults(), packFaults()...), s.packCell)
	run("seed", append(answerFaults(), seedFaults()...), s.seedCell)
	_ = cells.Wait() // the tests say what has failed
}

func (s *faultStage) packCell(t *testing.T, c faultCell) {
	proxy := faultproxy.Start(t, s.vendor, c.rule)
	dir := t.TempDir()
	began := time.Now()
	code, stderr := s.pack(t, dir, proxy.Addr)
	stats := proxy.Stats()
	if code != 0 {
		t.Fatalf("exit code %d after %v and %+v:\n%s", code, time.Since(began), stats, stderr)
	}
	got, err := os.ReadFile(filepath.Join(dir, "shop-1.0.0.tar.zst"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, s.packed) {
		t.Errorf("the bundle differs from the one that is packed without faults (%d and %d bytes)", len(got), len(s.packed))
	}
	c.check(t, stats, stats.Down, s.packedBytes, began)
}

func (s *faultStage) seedCell(t *testing.T, c faultCell) {
	site := newFaultSite(t)
	proxy := faultproxy.Start(t, site, c.rule)
	began := time.Now()
	code, stderr := s.seed(t, t.TempDir(), proxy.Addr, nil)
	stats := proxy.Stats()
	if code != 0 {
		t.Fatalf("exit code %d after %v and %+v:\n%s", code, time.Since(began), stats, stderr)
	}
	proxy.Close()
	if got := contentOf(t, site); !reflect.DeepEqual(got, s.seeded) {
		t.Errorf("the site has\n%v\nwant\n%v", got, s.seeded)
	}
	c.check(t, stats, stats.Up, s.seededBytes, began)
}

// check compares what a cell has cost with what it may.
func (c *faultCell) check(t *testing.T, stats faultproxy.Stats, bytes, clean int64, began time.Time) {
	t.Helper()
	t.Logf("%v, %d faults in %d requests, %d bytes, %d without faults (%+.1f%%)", time.Since(began).Round(time.Millisecond),
		stats.Faults, stats.Requests, bytes, clean, 100*float64(bytes-clean)/float64(clean))
	if stats.By[c.rule.Kind] == 0 {
		t.Errorf("nothing went wrong: %+v", stats)
	}
	if most := clean + int64(c.extra*float64(clean)); bytes > most {
		t.Errorf("%d bytes were sent, %d without faults, want %d at most", bytes, clean, most)
	}
}

// endlessTime bounds the time in which what does not pass is given up, on a machine that does other
// things too.
const endlessTime = 30 * time.Second

// TestEndlessFaults: what does not pass is given up, in bounded time and with few requests, and it is
// said which registry that is, and what it does, in its own words where it has any.
func TestEndlessFaults(t *testing.T) {
	t.Parallel()
	s := newFaultStage(t)
	type endless struct {
		name  string
		rule  faultproxy.Rule
		cause string // matches what is said
	}
	words := "enough for today"
	list := []endless{
		{"429", faultproxy.Rule{Kind: faultproxy.TooManyRequests, Words: words}, words},
		{"429 retry-after 0", faultproxy.Rule{Kind: faultproxy.TooManyRequests, Words: words, RetryAfter: "0"}, words},
		{"503", faultproxy.Rule{Kind: faultproxy.Unavailable, Words: words}, words},
		{"503 retry-after 1", faultproxy.Rule{Kind: faultproxy.Unavailable, Words: words, RetryAfter: "1"}, words},
		{"500", faultproxy.Rule{Kind: faultproxy.InternalError, Words: words}, words},
		{"drop", faultproxy.Rule{Kind: faultproxy.Drop}, "the connection was closed without an answer"},
		{"reset", faultproxy.Rule{Kind: faultproxy.Reset}, "connection reset by peer"},
	}
	stalls := map[string]faultproxy.Kind{"pack": faultproxy.StallBody, "seed": faultproxy.StallRequest}
	var cells errgroup.Group
	cells.SetLimit(faultsAtATime)
	for _, side := range []string{"pack", "seed"} {
		run := func(e endless, stage string, path *regexp.Regexp) {
			e.rule.Path = path
			cells.Go(func() error {
				t.Run(side+"/"+e.name+"/"+stage, func(t *testing.T) { s.endless(t, side, e.rule, e.cause) })
				return nil
			})
		}
		for _, e := range list {
			run(e, "manifests", manifestPaths)
			run(e, "blobs", blobPaths)
		}
		run(endless{"stall", faultproxy.Rule{Kind: stalls[side]}, "no byte for|only [0-9]+ bytes in|no answer for"}, "blobs", blobPaths)
		run(endless{"gone", faultproxy.Rule{}, "connection refused"}, "everything", nil)
	}
	_ = cells.Wait() // the tests say what has failed
}

// endless runs one side against a registry that lets some requests pass, and then no more.
func (s *faultStage) endless(t *testing.T, side string, rule faultproxy.Rule, cause string) {
	next := s.vendor
	if side == "seed" {
		next = newFaultSite(t)
	}
	proxy := faultproxy.Start(t, next)
	if rule.Kind == "" {
		proxy.When(func(s faultproxy.Stats) bool { return s.Up+s.Down > 300_000 }, proxy.Down)
	} else {
		// What answers a HEAD has no words.
		rule.Skip, rule.Methods = 3, []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch}
		proxy.Set(rule)
	}
	began := time.Now()
	var code int
	var stderr, who string
	if side == "pack" {
		who = "source registry " + proxy.Addr
		code, stderr = s.pack(t, t.TempDir(), proxy.Addr)
	} else {
		who = "target registry " + proxy.Addr
		code, stderr = s.seed(t, t.TempDir(), proxy.Addr, nil)
	}
	stats := proxy.Stats()
	t.Logf("%v, %+v:\n%s", time.Since(began).Round(time.Millisecond), stats, stderr)
	if code != cli.ExitRegistry {
		t.Errorf("exit code %d, want %d", code, cli.ExitRegistry)
	}
	if !strings.Contains(stderr, who) || !regexp.MustCompile(cause).MatchString(stderr) {
		t.Errorf("it does not say %q and %q", who, cause)
	}
	if rule.Kind != "" && stats.By[rule.Kind] == 0 {
		t.Errorf("nothing went wrong: %+v", stats)
	}
	if took := time.Since(began); took > endlessTime {
		t.Errorf("it took %v to give up, want %v at most", took, endlessTime)
	}
	if stats.Requests > 300 {
		t.Errorf("it took %d requests to see that", stats.Requests)
	}
}
