package install

import (
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sealift/sealift/internal/ledger"
	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/internal/release"
	"github.com/sealift/sealift/verify"
)

// Levels of a Finding.
const (
	LevelPass = "pass"
	LevelWarn = "warn"
	LevelFail = "fail"
)

// Checks of a preflight, as a Finding names them.
const (
	CheckCluster     = "cluster"
	CheckCredentials = "credentials"
	CheckClock       = "clock"
	CheckVersion     = "version"
	CheckState       = "state"
	CheckPermissions = "permissions"
	CheckAPI         = "api"
	CheckNamespaces  = "namespaces"
	CheckObjects     = "objects"
	CheckConflicts   = "conflicts"
	CheckOwners      = "owners"
	CheckPodSecurity = "pod-security"
	CheckQuota       = "quota"
	CheckCapacity    = "capacity"
	CheckNodes       = "nodes"
	CheckStorage     = "storage"
	CheckSize        = "size"
	CheckRegistry    = "registry"
	CheckPull        = "pull"
)

// Finding is what one check of a preflight found.
type Finding struct {
	// Check names it, as "permissions".
	Check string `json:"check"`
	Level string `json:"level"`
	// Object is what it is about, "KIND/NAMESPACE/NAME" or the like; empty for the whole.
	Object string `json:"object,omitempty"`
	Text   string `json:"text"`
	// Advice is what to do.
	Advice string `json:"advice,omitempty"`
}

// PreflightInput is what a preflight looks at.
type PreflightInput struct {
	Bundle   *verify.Bundle
	Releases []*Release
	Plan     *Plan
	// Cluster is nil where the bundle needs none: then only the registry is looked at. Ledger and State are as the cluster's.
	Cluster *release.Cluster
	Ledger  *release.Ledger
	State   *ledger.State
	// TakeOver lets fields that others own be taken, Adopt releases that others have installed.
	TakeOver, Adopt bool
	// Resume says that the transaction that is open is to be gone on with: that there is one is no failure then.
	Resume bool
	// Test says that the tests of charts are run, too.
	Test bool
	// Client reaches the registry, Target is the place in it, Seed what is to be sent: Client is nil where no registry is used.
	Client *oci.Client
	Target Target
	Seed   *SeedResult
	// Free is how many bytes there is room for in the directory of the embedded registry, at Store; nil where that is not known.
	Store string
	Free  *int64
	// ProbeNodes says that a pod is to be run on each node to see that it can pull, with ProbeImage, or where that is empty with the
	// smallest image of the bundle for the node's platform. ProbeTimeout bounds it; 0 for two minutes.
	ProbeNodes   bool
	ProbeImage   string
	ProbeTimeout time.Duration
	// Now is the clock.
	Now func() time.Time
}

// PreflightReport is what a preflight found.
type PreflightReport struct {
	Findings []Finding `json:"findings"`
}

// FindingsError says that a preflight has failed.
type FindingsError struct{ Report *PreflightReport }

// Error lists what failed.
func (e *FindingsError) Error() string {
	text := "preflight failed"
	for _, f := range e.Report.Findings {
		if f.Level == LevelFail {
			text += "\n  " + f.Check + ": " + f.line()
		}
	}
	return text
}

// line is a finding with what it is about.
func (f *Finding) line() string {
	if f.Object == "" {
		return f.Text
	}
	return f.Object + ": " + f.Text
}

// Count is how many findings have a level.
func (r *PreflightReport) Count(level string) int {
	n := 0
	for i := range r.Findings {
		if r.Findings[i].Level == level {
			n++
		}
	}
	return n
}

// Err is nil, or a *PreflightError with a *FindingsError where a finding failed.
func (r *PreflightReport) Err() error {
	if r.Count(LevelFail) > 0 {
		return &PreflightError{&FindingsError{r}}
	}
	return nil
}

const (
	// checking is how many checks are under way at the same time.
	checking = 4
	// maxFindings bounds the findings of one check that are listed.
	maxFindings = 50
)

// check is one check of a preflight, with what it has found.
type check struct {
	name  string
	found []Finding
}

func (c *check) add(level, object, advice, format string, a ...any) {
	c.found = append(c.found, Finding{Check: c.name, Level: level, Object: object, Text: fmt.Sprintf(format, a...), Advice: advice})
}

func (c *check) pass(format string, a ...any) { c.add(LevelPass, "", "", format, a...) }

func (c *check) warn(object, advice, format string, a ...any) {
	c.add(LevelWarn, object, advice, format, a...)
}

func (c *check) fail(object, advice, format string, a ...any) {
	c.add(LevelFail, object, advice, format, a...)
}

// unknown says that something could not be found out: what was to be found, as "how much room the nodes have".
func (c *check) unknown(what string, err error) {
	if release.IsForbidden(err) {
		c.warn("", "an account that may look at it makes this check; docs/preflight.md says what it reads", "not known: this account may not find out %s", what)
		return
	}
	c.fail("", "run this again when the cluster answers", "not known: finding out %s: %v", what, err)
}

// done is what was found; passed where that is nothing worse.
func (c *check) done(passed string, a ...any) []Finding {
	if !slices.ContainsFunc(c.found, func(f Finding) bool { return f.Level != LevelPass }) && passed != "" {
		c.pass(passed, a...)
	}
	// What fails goes first, so that it is not what is cut.
	slices.SortStableFunc(c.found, func(a, b Finding) int { return rank(a.Level) - rank(b.Level) })
	if more := len(c.found) - maxFindings; more > 0 {
		level := c.found[maxFindings].Level
		c.found = c.found[:maxFindings]
		c.add(level, "", "", "and %d more", more)
	}
	return c.found
}

func rank(level string) int {
	return slices.Index([]string{LevelFail, LevelWarn, LevelPass}, level)
}

// preflight is one on its way.
type preflight struct {
	in PreflightInput
	// intended are the releases as the cluster would get them, and seen what the cluster says about them; nil where it says nothing.
	intended []release.Intended
	seen     *release.Inspection
	pulse    release.Pulse
}

// Preflight finds out what would keep an install from working, changing nothing (but for probes that were asked for). All checks
// are made, several at a time, whatever the others find. That something fails is no error: see [PreflightReport.Err]. Errors are
// *release.UnreachableError and *release.CredentialsError, where the cluster cannot be asked at all, and the end of ctx.
func Preflight(ctx context.Context, in PreflightInput) (*PreflightReport, error) {
	p := &preflight{in: in}
	var checks []func(context.Context) []Finding
	if in.Client != nil {
		checks = append(checks, p.registry)
	}
	first := []Finding{}
	if in.Cluster != nil {
		var err error
		if p.pulse, err = in.Cluster.Pulse(ctx); err != nil {
			return nil, err
		}
		first = slices.Concat(p.cluster(ctx), p.credentials(), p.clock())
		checks = append(checks, p.version, p.state, p.size)
		p.intended = intended(in)
		if p.seen, err = in.Cluster.Inspect(ctx, p.intended, in.Ledger.Namespace()); err != nil {
			c := check{name: CheckAPI}
			c.unknown("what the cluster serves", err)
			first = append(first, c.done("")...)
		} else {
			checks = append(checks, p.access, p.api, p.namespaces, p.podSecurity, p.quota, p.capacity, p.storage)
		}
		if in.ProbeNodes {
			checks = append(checks, p.pull)
		}
	}
	found := make([][]Finding, len(checks))
	var g errgroup.Group
	g.SetLimit(checking)
	for i, f := range checks {
		g.Go(func() error {
			found[i] = f(ctx)
			return nil
		})
	}
	_ = g.Wait() // none of them fails
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return &PreflightReport{Findings: append(first, slices.Concat(found...)...)}, nil
}

// intended are the releases as the cluster would get them.
func intended(in PreflightInput) []release.Intended {
	var list []release.Intended
	for i := range in.Plan.Releases {
		plan := &in.Plan.Releases[i]
		r := releaseOf(in.Releases, plan)
		if r == nil {
			continue
		}
		list = append(list, release.Intended{
			Release: r.As, Namespace: r.Namespace, Docs: plan.parts.docs, Definitions: plan.parts.crds,
			Jobs: slices.Concat(plan.parts.backup, []byte("\n---\n"), plan.parts.restore), Upgrade: plan.From != nil,
		})
	}
	return list
}

func releaseOf(releases []*Release, plan *ReleasePlan) *Release {
	i := slices.IndexFunc(releases, func(r *Release) bool { return r.Name == plan.Release && r.Namespace == plan.Namespace })
	if i < 0 {
		return nil
	}
	return releases[i]
}
