package install

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sealift/sealift/internal/chart"
	"github.com/sealift/sealift/internal/ledger"
	"github.com/sealift/sealift/internal/release"
	"github.com/sealift/sealift/manifest"
)

// world is a cluster in memory, with its ledger. What a process does there goes through process, which can be killed at any point.
type world struct {
	mu       sync.Mutex
	state    []byte // as it was written
	version  int
	values   map[string][]byte
	releases map[string][]revision // by "NAMESPACE/NAME", oldest first
	// definitions is what is applied, was what is kept of the former ones by Secret.
	definitions string
	was         map[string]string
	jobs        map[string]string // by run: "running", "done"
	ran         []string          // what jobs did
	front       string
	holder      *process
	other       *ledger.State // of another bundle
	// limit is how large a state may be, in bytes; 0 for any.
	limit int
	// newer says that definitions may be newer than what is installed: a rollback leaves them.
	newer bool
}

type revision struct {
	number  int
	status  string
	run     string
	content string
	back    int
}

func newWorld() *world {
	return &world{values: map[string][]byte{}, releases: map[string][]revision{}, was: map[string]string{}, jobs: map[string]string{}}
}

func (w *world) clone() *world {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := newWorld()
	c.state, c.version, c.definitions, c.front, c.other, c.newer = w.state, w.version, w.definitions, w.front, w.other, w.newer
	c.values, c.was, c.jobs, c.ran = maps.Clone(w.values), maps.Clone(w.was), maps.Clone(w.jobs), slices.Clone(w.ran)
	for k, h := range w.releases {
		c.releases[k] = slices.Clone(h)
	}
	return c
}

// live is what is there of a release: "" for nothing; what is in between says so.
func (w *world) live(key string) string {
	h := w.releases[key]
	if len(h) == 0 || h[len(h)-1].status == "uninstalled" {
		return ""
	}
	if last := h[len(h)-1]; last.status != "deployed" {
		return last.status + " " + last.content
	}
	return h[len(h)-1].content
}

// process is one that works in a world. Once it is killed, nothing that it does has an effect.
type process struct {
	*world
	killAt int // the point at which it is killed; 0 for never
	points int
	dead   bool
	// fail makes something fail, by "VERB NAMESPACE/NAME".
	fail map[string]error
	// meanwhile is called in the middle of something.
	meanwhile func(what string)
	lost      chan struct{}
	running   int
	most      int // at the same time
	retaken   error
}

var errKilled = errors.New("killed")

// point is a moment at which the process may be killed. The lock is held.
func (p *process) point() error {
	if p.dead {
		return errKilled
	}
	p.points++
	if p.points == p.killAt {
		p.dead = true
		return errKilled
	}
	return nil
}

// does does something in a world that can be seen half done: between the parts of it the process may be killed.
func (p *process) does(what string, parts ...func() error) error {
	p.mu.Lock()
	p.running++
	p.most = max(p.most, p.running)
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		p.running--
		p.mu.Unlock()
	}()
	for _, part := range append(parts, func() error { return nil }) {
		p.mu.Lock()
		err := p.point()
		if err == nil {
			err = part()
		}
		p.mu.Unlock()
		if err != nil {
			return err
		}
		if p.meanwhile != nil {
			p.meanwhile(what)
		}
	}
	return nil
}

func (p *process) last(key string) *revision {
	h := p.releases[key]
	if len(h) == 0 {
		return nil
	}
	return &h[len(h)-1]
}

func (p *process) add(key, status, run, content string, back int) {
	n := 1
	if last := p.last(key); last != nil {
		n = last.number + 1
	}
	p.releases[key] = append(p.releases[key], revision{n, status, run, content, back})
}

func (p *process) deploy(key string) {
	h := p.releases[key]
	for i := range h {
		if h[i].status == "deployed" {
			h[i].status = "superseded"
		}
	}
	h[len(h)-1].status = "deployed"
}

func isPending(status string) bool {
	return strings.HasPrefix(status, "pending") || status == "uninstalling"
}

func (p *process) Current(_ context.Context, name, namespace string) (*release.State, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.releases[namespace+"/"+name]
	if l := p.last(namespace + "/" + name); l != nil && isPending(l.status) {
		return nil, &release.PendingError{Release: name, Namespace: namespace, Status: l.status, Revision: l.number}
	}
	for _, want := range []string{"deployed", "superseded"} {
		for i := len(h) - 1; i >= 0 && h[i].status != "uninstalled"; i-- {
			if h[i].status == want {
				return &release.State{Revision: h[i].number, Status: want}, nil
			}
		}
	}
	return nil, nil
}

func (p *process) Newest(_ context.Context, name, namespace string) (*release.Newest, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead {
		return nil, errKilled
	}
	l := p.last(namespace + "/" + name)
	if l == nil {
		return nil, nil
	}
	return &release.Newest{State: release.State{Revision: l.number, Status: l.status}, Run: l.run, Pending: isPending(l.status), Back: l.back}, nil
}

func (p *process) Install(ctx context.Context, r release.Release) (release.Result, error) {
	key := r.Namespace + "/" + r.Name
	result := release.Result{}
	content, _ := r.Values["v"].(string)
	err := p.does("install "+key, func() error {
		if err := ctx.Err(); err != nil {
			return err
		}
		newest := 0
		if l := p.last(key); l != nil {
			newest = l.number
			if isPending(l.status) {
				return &release.PendingError{Release: r.Name, Namespace: r.Namespace, Status: l.status, Revision: l.number}
			}
		}
		if r.After == nil || *r.After != newest {
			return &release.OvertakenError{Release: r.Name, Namespace: r.Namespace, Newest: newest}
		}
		p.add(key, "pending-upgrade", r.Run, content, 0)
		result = release.Result{Action: release.ActionUpgrade, Revision: p.last(key).number}
		return nil
	}, func() error {
		if err := p.fail["install "+key]; err != nil {
			p.last(key).status = "failed"
			return err
		}
		if ctx.Err() != nil {
			p.last(key).status = "failed"
			return context.Cause(ctx)
		}
		return nil
	}, func() error {
		p.deploy(key)
		return nil
	})
	return result, err
}

func (p *process) Settle(_ context.Context, name, namespace string) error {
	return p.does("settle", func() error {
		if l := p.last(namespace + "/" + name); l != nil && isPending(l.status) {
			l.status = "failed"
		}
		return nil
	})
}

func (p *process) Recover(ctx context.Context, name, namespace string, to *release.State) error {
	p.mu.Lock()
	l := p.last(namespace + "/" + name)
	foreign := l != nil && l.status == "deployed" && l.run == "" && (to == nil || l.number != to.Revision && l.back != to.Revision)
	p.mu.Unlock()
	if foreign {
		return &release.OvertakenError{Release: name, Namespace: namespace, Newest: l.number}
	}
	return p.bring(ctx, name, namespace, to)
}

func (p *process) bring(_ context.Context, name, namespace string, to *release.State) error {
	key := namespace + "/" + name
	if to == nil {
		return p.does("recover "+key, func() error {
			if l := p.last(key); l != nil {
				l.status = "uninstalling"
			}
			return p.fail["recover "+key]
		}, func() error {
			delete(p.releases, key)
			return nil
		})
	}
	done := false
	return p.does("recover "+key, func() error {
		if err := p.fail["recover "+key]; err != nil {
			return err
		}
		if l := p.last(key); l != nil && l.status == "deployed" && (l.number == to.Revision || l.back == to.Revision) {
			done = true
			return nil
		}
		for _, r := range p.releases[key] {
			if r.number == to.Revision {
				p.add(key, "pending-rollback", "somebody", r.content, to.Revision)
				return nil
			}
		}
		return &release.NoRevisionError{Release: name, Namespace: namespace, Revision: to.Revision}
	}, func() error {
		if !done {
			p.deploy(key)
		}
		return nil
	})
}

// Revert does what Recover does, also where a foreign revision is the newest.
func (p *process) Revert(ctx context.Context, name, namespace string, to *release.State) error {
	return p.bring(ctx, name, namespace, to)
}

func (p *process) CheckOwners(_ context.Context, name, namespace string, _ []byte) error {
	if err := p.fail["owners "+namespace+"/"+name]; err != nil {
		return err
	}
	return nil
}

func (p *process) Remove(_ context.Context, name, namespace string) ([]string, error) {
	key := namespace + "/" + name
	return []string{"PersistentVolumeClaim/data"}, p.does("remove "+key, func() error {
		if l := p.last(key); l != nil && l.status != "uninstalled" {
			l.status = "uninstalling"
		}
		return p.fail["remove "+key]
	}, func() error {
		if l := p.last(key); l != nil {
			l.status = "uninstalled"
		}
		return nil
	})
}

func (p *process) Keeps(context.Context, string, string) ([]string, error) {
	return []string{"PersistentVolumeClaim/data"}, nil
}

func (p *process) Recorded(_ context.Context, name, namespace string, number int) (*release.Recorded, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.releases[namespace+"/"+name] {
		if r.number == number {
			return &release.Recorded{Revision: number, Status: r.status, Objects: "digest of " + r.content}, nil
		}
	}
	return nil, nil
}

func (p *process) ProtectData(context.Context, string, string) ([]string, error) { return nil, nil }

func (p *process) ApplyCRDs(_ context.Context, _, secret string, docs []byte) ([]string, error) {
	return nil, p.does("definitions", func() error {
		if _, there := p.was[secret]; !there {
			p.was[secret] = p.definitions
		}
		return nil
	}, func() error {
		p.definitions = string(docs)
		return nil
	})
}

func (p *process) RestoreCRDs(_ context.Context, _, secret string) error {
	return p.does("restore definitions", func() error {
		if err := p.fail["restore definitions"]; err != nil {
			return err
		}
		if was, there := p.was[secret]; there {
			p.definitions = was
		}
		return nil
	})
}

func (p *process) DropWas(_ context.Context, _, secret string) error {
	return p.does("drop", func() error {
		delete(p.was, secret)
		return nil
	})
}

func (p *process) RunJobs(_ context.Context, _ string, docs []byte, run string, _ time.Duration) error {
	return p.does("jobs", func() error {
		if p.jobs[run] == "" {
			p.jobs[run] = "running"
		}
		return p.fail["jobs "+string(docs)]
	}, func() error {
		if p.jobs[run] == "running" {
			p.jobs[run] = "done"
			p.ran = append(p.ran, string(docs))
		}
		return nil
	})
}

func (p *process) RunTests(_ context.Context, name, namespace string, _ time.Duration) error {
	return p.does("tests", func() error { return p.fail["tests "+namespace+"/"+name] })
}

func (p *process) CheckHTTP(context.Context, string, release.HTTPCheck, time.Duration) error {
	return nil
}

func (p *process) CheckTCP(_ context.Context, namespace, service string, _ int, _ time.Duration) error {
	return p.does("check", func() error { return p.fail["check "+namespace+"/"+service] })
}

func (p *process) Diagnose(context.Context, string, string) ([]string, error) {
	return []string{"Pod/x: ImagePullBackOff"}, nil
}

func (p *process) UID(context.Context) (string, error) { return "uid-of-cluster", nil }

func (p *process) Namespace() string { return "sealift" }

func (p *process) Bundles(context.Context) ([]string, error) {
	var names []string
	if p.other != nil {
		names = append(names, p.other.Name)
	}
	if p.state != nil {
		names = append(names, "shop")
	}
	return names, nil
}

func (p *process) Read(_ context.Context, bundle string) (*ledger.State, string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.dead:
		return nil, "", errKilled
	case p.other != nil && bundle == p.other.Name:
		return p.other, "1", nil
	case p.state == nil:
		return nil, "", nil
	}
	s, err := ledger.Decode(p.state)
	return s, fmt.Sprint(p.version), err
}

func (p *process) Write(ctx context.Context, s *ledger.State, version string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", context.Cause(ctx)
	}
	err := p.does("write", func() error {
		have := ""
		if p.state != nil {
			have = fmt.Sprint(p.version)
		}
		if have != version {
			return &release.ConflictError{Bundle: s.Name}
		}
		s.Serial++
		raw, err := ledger.Encode(s)
		if err != nil {
			return err
		}
		if p.limit > 0 && len(raw) > p.limit {
			return &ledger.TooLargeError{Bundle: s.Name, Size: len(raw), Limit: p.limit}
		}
		p.state = raw
		p.version++
		return nil
	})
	return fmt.Sprint(p.version), err
}

func (p *process) ReadValues(_ context.Context, _, id string) ([]byte, error) {
	return p.values[id], nil
}

func (p *process) WriteValues(_ context.Context, _, id string, content []byte) error {
	return p.does("values", func() error {
		p.values[id] = content
		return nil
	})
}

func (p *process) DropValues(_ context.Context, _ string, keep []string) error {
	return p.does("values", func() error {
		maps.DeleteFunc(p.values, func(id string, _ []byte) bool { return !slices.Contains(keep, id) })
		return nil
	})
}

func (p *process) Hold(context.Context, string, time.Duration) (holding, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.holder != nil && p.holder != p && !p.holder.dead {
		return nil, &release.BusyError{Bundle: "shop"}
	}
	p.holder = p
	return p, nil
}

func (p *process) Watch(context.Context, string) (string, bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return "host/1", p.holder != nil && p.holder != p && !p.holder.dead, nil
}

func (p *process) Bind(ctx context.Context) (context.Context, context.CancelFunc) {
	bound, end := context.WithCancelCause(ctx)
	p.mu.Lock()
	lost := p.lost
	p.mu.Unlock()
	select {
	case <-lost:
		end(&release.LeaseError{Lease: "sealift.shop", Lost: true, Err: errors.New("not renewed")})
	default:
	}
	stop := make(chan struct{})
	go func() {
		select {
		case <-lost:
			end(&release.LeaseError{Lease: "sealift.shop", Lost: true, Err: errors.New("not renewed")})
		case <-stop:
		}
	}()
	var once sync.Once
	return bound, func() {
		once.Do(func() { close(stop) })
		end(nil)
	}
}

func (p *process) Retake(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead {
		return errKilled
	}
	select {
	case <-p.lost:
		if p.retaken != nil {
			return p.retaken
		}
		p.lost = make(chan struct{})
	default:
	}
	return nil
}

func (p *process) End(context.Context) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.holder == p {
		p.holder = nil
	}
}

// process starts one in a world.
func (w *world) process(killAt int) *process {
	return &process{world: w, killAt: killAt, fail: map[string]error{}, lost: make(chan struct{})}
}

// engine is one that works as p, with releases of which crds and the like are given.
func (p *process) engine(c Change, o TransactOptions) *engine {
	o.Now = func() time.Time { return time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC) }
	o.By = "op@site"
	o.Timeout = time.Minute
	e := newEngine("shop", c.Releases, o)
	e.cluster, e.ledger = p, p
	e.parts = func(_ context.Context, r *Release) (rendered, error) {
		var d rendered
		if r.Name == "db" {
			v, _ := r.Values["v"].(string)
			d = rendered{crds: []byte("crd " + v), backup: []byte("backup db"), restore: []byte("restore db")}
		}
		return d, nil
	}
	e.front = func(_ context.Context, s *ledger.Step, back bool) error {
		return p.does("front", func() error {
			to := s.FrontTo
			if back {
				to = s.FrontWas
			}
			p.front = ""
			if to != nil {
				p.front = to.To
			}
			return nil
		})
	}
	return e
}

func testRelease(name, version string, dependsOn ...string) *Release {
	return &Release{
		Name: name, As: name, Namespace: "shop", Spec: &manifest.Chart{Release: name, Namespace: "shop", DependsOn: dependsOn, Rollback: manifest.RollbackSafe},
		Chart: &chart.Chart{Name: name, Version: version}, Values: map[string]any{"v": version},
	}
}

// version is a change to a version of the bundle shop: db, and api and web that depend on it; worker in the first one only, cache in
// the second only.
func version(v string) Change {
	db := testRelease("db", v)
	db.Spec.Checks = []manifest.Check{{Name: "answers", TCP: &manifest.CheckTCP{Service: "db", Port: 5432}}}
	c := Change{
		Receipt:  ledger.Receipt{Bundle: "shop", Version: v, Channel: "stable", Manifest: "sha256:" + strings.Repeat(v[:1], 64)},
		Releases: []*Release{db, testRelease("api", v, "shop/db"), testRelease("web", v, "shop/db")},
		Said:     []byte("said for " + v),
		Options:  ledger.Options{Test: true, RemoveDropped: true},
	}
	if v == "1.0.0" {
		c.Releases = append(c.Releases, testRelease("worker", v, "shop/db"))
	} else {
		c.Releases = append(c.Releases, testRelease("cache", v, "shop/api"))
	}
	return c
}

// installed is a world with the first version.
func installed(t testing.TB) *world {
	t.Helper()
	w := newWorld()
	c := version("1.0.0")
	if _, err := w.process(0).engine(c, TransactOptions{}).transact(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	w.isVersion(t, "1.0.0")
	return w
}

func (w *world) read(t testing.TB) *ledger.State {
	t.Helper()
	s, err := ledger.Decode(w.state)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// isVersion checks that all is as after the install of a version, "" for none, and nothing is left beside.
func (w *world) isVersion(t testing.TB, v string) {
	t.Helper()
	want := map[string]string{"db": v, "api": v, "web": v, "worker": "", "cache": ""}
	switch v {
	case "1.0.0":
		want["worker"] = v
	case "2.0.0":
		want["cache"] = v
	}
	for name, content := range want {
		if got := w.live("shop/" + name); got != content {
			t.Errorf("release %s is %q, want %q", name, got, content)
		}
	}
	if crd := "crd " + v; v != "" && !w.newer && w.definitions != crd {
		t.Errorf("the definitions are %q, want %q", w.definitions, crd)
	}
	if len(w.was) > 0 {
		t.Errorf("former definitions were left: %v", w.was)
	}
	s := w.read(t)
	if s.Open != nil {
		t.Errorf("a transaction is open in phase %s", s.Open.Phase)
	}
	got := ""
	if s.Installed != nil {
		got = s.Installed.Version
		for i := range s.Installed.Releases {
			r := &s.Installed.Releases[i]
			var content string
			for _, rev := range w.releases[r.Key()] {
				if rev.number == r.Revision {
					content = rev.content
				}
			}
			if h := w.releases[r.Key()]; len(h) == 0 || h[len(h)-1].number != r.Revision {
				t.Errorf("the receipt names revision %d of %s, and the history is %+v", r.Revision, r.Key(), h)
			}
			if content != v || r.Objects != "digest of "+v {
				t.Errorf("the receipt names revision %d of %s, which is %q with objects %q, want %q", r.Revision, r.Key(), content, r.Objects, v)
			}
		}
	}
	if got != v {
		t.Errorf("installed is %q, want %q", got, v)
	}
	for id := range w.values {
		if !slices.Contains(s.Values, id) {
			t.Errorf("values %q were left", id)
		}
	}
}

// run is what is killed: a transaction that leads from one version to another, or fails on its way.
type run struct {
	from, to string
	fail     string
	// fails is what the end is where it is gone on with: as from.
	begin func(ctx context.Context, p *process) (*ledger.Receipt, error)
	// bundle is what is needed to go on.
	bundle Change
}

func runs() map[string]run {
	two := version("2.0.0")
	transact := func(ctx context.Context, p *process) (*ledger.Receipt, error) {
		return p.engine(two, TransactOptions{Parallel: 1}).transact(ctx, two)
	}
	return map[string]run{
		"upgrade":                 {from: "1.0.0", to: "2.0.0", begin: transact, bundle: two},
		"upgrade with a failure":  {from: "1.0.0", to: "1.0.0", fail: "install shop/web", begin: transact, bundle: two},
		"first install":           {from: "", to: "2.0.0", begin: transact, bundle: two},
		"first install, failing":  {from: "", to: "", fail: "tests shop/cache", begin: transact, bundle: two},
		"removal fails":           {from: "1.0.0", to: "1.0.0", fail: "remove shop/worker", begin: transact, bundle: two},
		"check fails":             {from: "1.0.0", to: "1.0.0", fail: "check shop/db", begin: transact, bundle: two},
		"rollback":                {from: "2.0.0", to: "1.0.0", begin: rollbackOf},
		"rollback with a failure": {from: "2.0.0", to: "2.0.0", fail: "remove shop/cache", begin: rollbackOf},
		"uninstall":               {from: "2.0.0", to: "", begin: uninstallOf},
	}
}

func rollbackOf(ctx context.Context, p *process) (*ledger.Receipt, error) {
	return p.engine(Change{}, TransactOptions{Parallel: 1}).rollback(ctx, RollbackOptions{})
}

func uninstallOf(ctx context.Context, p *process) (*ledger.Receipt, error) {
	return p.engine(Change{}, TransactOptions{Parallel: 1}).uninstall(ctx, false)
}

// at is a world with a version.
func at(t testing.TB, v string) *world {
	t.Helper()
	if v == "" {
		return newWorld()
	}
	w := installed(t)
	if v == "2.0.0" {
		c := version("2.0.0")
		if _, err := w.process(0).engine(c, TransactOptions{}).transact(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	w.isVersion(t, v)
	return w
}

func (r run) process(w *world, killAt int) *process {
	p := w.process(killAt)
	if r.fail != "" {
		p.fail[r.fail] = errors.New("it broke")
	}
	return p
}

// TestKilledAnywhere: whenever a transaction is killed, the state says so, and both resume and revert lead to where they promise, also
// where they are killed in turn.
func TestKilledAnywhere(t *testing.T) {
	for name, r := range runs() {
		t.Run(name, func(t *testing.T) {
			start := at(t, r.from)
			start.newer = r.from > r.to || r.from == "2.0.0"
			for kill := 1; ; kill++ {
				w := start.clone()
				p := r.process(w, kill)
				_, err := r.begin(t.Context(), p)
				if !p.dead {
					r.ended(t, w, err)
					if kill < 20 {
						t.Fatalf("there were only %d points to be killed at", kill-1)
					}
					t.Logf("killed at each of %d points", kill-1)
					return
				}
				if w.state == nil || w.read(t).Open == nil {
					r.settled(t, w, kill)
				} else {
					r.goOn(t, w, kill)
					r.goBack(t, w, kill)
				}
				if t.Failed() {
					t.Fatalf("killed at point %d", kill)
				}
			}
		})
	}
}

// ended checks a run that was not killed.
func (r run) ended(t *testing.T, w *world, err error) {
	t.Helper()
	if (err != nil) != (r.fail != "") {
		t.Errorf("it ended with %v", err)
	}
	r.is(t, w, r.to)
}

func (r run) is(t *testing.T, w *world, v string) {
	t.Helper()
	if w.state == nil {
		if v != "" || len(w.releases) > 0 {
			t.Errorf("nothing is recorded, and %v is there", w.releases)
		}
		return
	}
	w.isVersion(t, v)
}

// settled checks that where nothing is open all is as before, or as after.
func (r run) settled(t *testing.T, w *world, kill int) {
	t.Helper()
	// What may be left beside is cleaned by the next transaction.
	w.was = map[string]string{}
	w.values = map[string][]byte{}
	v := r.from
	if w.state != nil {
		if s := w.read(t); s.Installed != nil {
			v = s.Installed.Version
		} else {
			v = ""
		}
	}
	if v != r.from && v != r.to {
		t.Errorf("killed at %d: nothing is open, and %q is installed", kill, v)
	}
	r.is(t, w, v)
	if _, err := w.process(0).engine(r.bundle, TransactOptions{}).resume(t.Context(), ""); !errors.As(err, new(*NothingOpenError)) {
		t.Errorf("resume says %v", err)
	}
}

// goOn resumes, being killed at each point in turn.
func (r run) goOn(t *testing.T, was *world, kill int) {
	t.Helper()
	// Not each pair of points, but each distance.
	for again := 1 + kill%11; ; again += 11 {
		w := was.clone()
		p := r.process(w, again)
		_, err := p.engine(r.bundle, TransactOptions{Parallel: 1}).resume(t.Context(), r.bundle.Receipt.Manifest)
		if !p.dead {
			r.reached(t, w, err)
			break
		}
		if w.read(t).Open == nil {
			r.settled(t, w, kill)
		} else {
			p := r.process(w, 0)
			_, err := p.engine(r.bundle, TransactOptions{Parallel: 1}).resume(t.Context(), r.bundle.Receipt.Manifest)
			r.reached(t, w, err)
		}
		if t.Failed() {
			t.Fatalf("killed at %d, and resume at %d", kill, again)
		}
	}
}

// reached checks the end of what was gone on with. One that was going back when it was killed goes on doing so.
func (r run) reached(t *testing.T, w *world, err error) {
	t.Helper()
	if r.fail == "" && err != nil {
		t.Errorf("resume says %v", err)
	}
	r.is(t, w, r.to)
}

// goBack reverts, being killed at each point in turn.
func (r run) goBack(t *testing.T, was *world, kill int) {
	t.Helper()
	// Not each pair of points, but each distance.
	for again := 1 + kill%11; ; again += 11 {
		w := was.clone()
		p := w.process(again)
		_, err := p.engine(Change{}, TransactOptions{}).revert(t.Context())
		if p.dead {
			if w.read(t).Open == nil {
				r.settled(t, w, kill)
				continue
			}
			_, err = w.process(0).engine(Change{}, TransactOptions{}).revert(t.Context())
		}
		if err != nil {
			t.Errorf("revert says %v", err)
		}
		r.is(t, w, r.from)
		if s := w.read(t); len(s.History) == 0 || s.History[len(s.History)-1].Outcome != ledger.OutcomeBack {
			t.Errorf("no receipt says that it was changed back")
		}
		if t.Failed() {
			t.Fatalf("killed at %d, and revert at %d", kill, again)
		}
		if !p.dead {
			return
		}
	}
}
