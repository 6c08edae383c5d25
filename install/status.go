package install

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sealift/sealift/internal/ledger"
	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/internal/release"
	"github.com/sealift/sealift/internal/site"
	"github.com/sealift/sealift/manifest"
)

// expiryNotice is how long before its end a bundle is warned about.
const expiryNotice = 30 * 24 * time.Hour

// Examiner looks at releases and leases: *release.Cluster and *release.Ledger do.
type (
	Examiner interface {
		Examine(ctx context.Context, namespace, name string, revision int) (*release.Examined, error)
	}
	// LeaseReader reads who works on a bundle.
	LeaseReader interface {
		Holding(ctx context.Context, bundle string) (*release.Holding, error)
	}
)

// StatusInput is what a status is made from.
type StatusInput struct {
	Cluster Examiner
	Ledger  LeaseReader
	// Record is what the site has accepted, nil where it is not known here.
	Record *site.Record
	Now    time.Time
}

// Status is how a bundle stands.
type Status struct {
	Bundle string `json:"bundle"`
	// Condition is one of the words of package ledger.
	Condition string `json:"condition"`
	// Healthy says that the bundle is installed, that no transaction is open, and that nothing is wrong as far as could be seen.
	Healthy bool `json:"healthy"`
	// On and Back are the commands that go on and back from here; empty where there is none.
	On   string `json:"on,omitempty"`
	Back string `json:"back,omitempty"`
	// Installed is what the cluster has; nil for nothing. Open is the transaction that has not ended; nil for none.
	Installed *InstalledStatus `json:"installed,omitempty"`
	Open      *OpenStatus      `json:"open,omitempty"`
	Releases  []ReleaseStatus  `json:"releases"`
	// OtherImages run in place of those of the bundle; ForeignImages are none of its, as what others put into pods.
	OtherImages   []release.Running `json:"otherImages"`
	ForeignImages []release.Running `json:"foreignImages"`
	// Warnings are about its age, and about newer versions.
	Warnings []string `json:"warnings"`
}

// InstalledStatus is what is installed.
type InstalledStatus struct {
	Version  string `json:"version"`
	Channel  string `json:"channel"`
	Manifest string `json:"manifest"`
	// Receipt is the ID of its receipt, Since when it was installed, By whom.
	Receipt string `json:"receipt"`
	Since   string `json:"since"`
	By      string `json:"by"`
	Created string `json:"created,omitempty"`
	// AgeDays is how many days ago the bundle was made.
	AgeDays int    `json:"ageDays"`
	Expires string `json:"expires,omitempty"`
}

// OpenStatus is a transaction that has not ended.
type OpenStatus struct {
	ID      string `json:"id"`
	Action  string `json:"action"`
	Phase   string `json:"phase"`
	Version string `json:"version"`
	Failure string `json:"failure,omitempty"`
	Begun   string `json:"begun"`
	By      string `json:"by"`
	// Done and Steps count the steps, At is the one that was begun last.
	Done  int    `json:"done"`
	Steps int    `json:"steps"`
	At    string `json:"at,omitempty"`
	// NoReturn are the reasons for which there is no way back any more.
	NoReturn []string `json:"noReturn"`
	// Holder is who works on it, or did; Working says that it was heard of lately.
	Holder  string `json:"holder,omitempty"`
	Working bool   `json:"working"`
}

// ReleaseStatus is how a release stands.
type ReleaseStatus struct {
	Namespace string `json:"namespace"`
	Release   string `json:"release"`
	// As is the name under which Helm has it, where that is another.
	As       string        `json:"as,omitempty"`
	Chart    string        `json:"chart"`
	Version  string        `json:"version"`
	Revision int           `json:"revision"`
	Front    *ledger.Front `json:"front,omitempty"`
	*release.Examined
}

// Healthy says that the release is as it was recorded, and ready.
func (r *ReleaseStatus) Healthy() bool {
	return r.Examined != nil && r.Examined.Healthy() && (r.Revision == 0 || r.Newest == r.Revision)
}

// MakeStatus says how the bundle of a state stands. Errors are *release.UnreachableError, or that of ctx: what the account may not
// read is in the result.
func MakeStatus(ctx context.Context, s *ledger.State, in StatusInput) (*Status, error) {
	st := &Status{
		Bundle: s.Name, Condition: s.Condition(), Releases: []ReleaseStatus{}, OtherImages: []release.Running{}, ForeignImages: []release.Running{}, Warnings: []string{},
	}
	st.On, st.Back = ways(s)
	if s.Installed != nil {
		st.installed(s, in)
	}
	if s.Open != nil {
		st.open(ctx, s.Open, in)
	}
	for _, r := range expectedReleases(s) {
		e, err := in.Cluster.Examine(ctx, r.Namespace, r.Helm(), r.Revision)
		if err != nil {
			return nil, err
		}
		st.Releases = append(st.Releases, ReleaseStatus{
			Namespace: r.Namespace, Release: r.Name, As: r.As, Chart: r.Chart, Version: r.Version, Revision: r.Revision, Front: r.Front, Examined: e,
		})
	}
	st.images(s)
	st.Healthy = st.Condition == ledger.ConditionInstalled && len(st.OtherImages) == 0 &&
		!slices.ContainsFunc(st.Releases, func(r ReleaseStatus) bool { return !r.Healthy() })
	return st, nil
}

// ways are the commands that go on and back from where a bundle stands.
func ways(s *ledger.State) (on, back string) {
	if s.Open == nil {
		if s.Installed != nil && s.Installed.Replaces != "" {
			back = "sealift rollback " + s.Installed.Replaces
		}
		return "", back
	}
	on, back = "sealift resume BUNDLE", "sealift revert "+s.Name
	switch {
	case s.Open.Phase == ledger.PhaseStaged:
		return "sealift promote " + s.Name, "sealift abort " + s.Name
	case s.Open.Phase == ledger.PhaseBack:
		return "", back // it has been decided
	case s.Open.Action == ledger.ActionUninstall:
		on = "sealift uninstall " + s.Name
	}
	if s.Open.PassedNoReturn() != nil {
		back = ""
	}
	return on, back
}

func (st *Status) installed(s *ledger.State, in StatusInput) {
	r := s.Installed
	created, expires := ageOf(r)
	st.Installed = &InstalledStatus{
		Version: r.Version, Channel: r.Channel, Manifest: r.Manifest, Receipt: r.ID, Since: r.Ended, By: r.By, Created: r.Created, Expires: r.Expires,
	}
	warn := func(format string, a ...any) { st.Warnings = append(st.Warnings, fmt.Sprintf(format, a...)) }
	if !created.IsZero() {
		st.Installed.AgeDays = max(0, int(in.Now.Sub(created).Hours()/24))
	}
	switch left := expires.Sub(in.Now); {
	case expires.IsZero():
	case left <= 0:
		warn("it has expired on %s: get a newer one from the vendor", r.Expires)
	case left <= expiryNotice:
		warn("it expires on %s, in %d days: get a newer one from the vendor", r.Expires, int(left.Hours()/24))
	}
	// Those who share the cluster know more than this machine, or less.
	newest := ""
	for _, a := range s.Accepted {
		if a.Channel == r.Channel {
			newest = a.Version
		}
	}
	if in.Record != nil {
		if a := in.Record.Find(s.Name, r.Channel); a != nil && (newest == "" || manifest.CompareVersions(a.Version, newest) > 0) {
			newest = a.Version
		}
	}
	if newest != "" && manifest.CompareVersions(newest, r.Version) > 0 {
		warn("this site has accepted version %s, which is newer", newest)
	}
	if r.Unsigned {
		warn("nobody is proven to have made it (--insecure-skip-signature)")
	}
}

func (st *Status) open(ctx context.Context, t *ledger.Transaction, in StatusInput) {
	o := &OpenStatus{
		ID: t.ID, Action: t.Action, Phase: t.Phase, Version: t.Receipt.Version, Failure: t.Failure, Begun: t.Receipt.Begun, By: t.Receipt.By,
		Steps: len(t.Steps), NoReturn: []string{},
	}
	st.Open = o
	for i := range t.Steps {
		step := &t.Steps[i]
		if step.Status == ledger.StepDone {
			o.Done++
		}
		if step.Status != ledger.StepPlanned {
			o.At = describeStep(step)
		}
	}
	if step := t.PassedNoReturn(); step != nil {
		o.NoReturn = append(o.NoReturn, step.NoReturn...)
	}
	h, err := in.Ledger.Holding(ctx, st.Bundle)
	if err != nil {
		st.Warnings = append(st.Warnings, fmt.Sprintf("whether another install is at work cannot be told: %v", err))
		return
	}
	// Clocks of two machines are compared here: it is a word for people, and nothing is decided by it.
	ago := in.Now.Sub(h.Renewed)
	o.Holder, o.Working = h.Holder, h.Holder != "" && ago < h.Duration && ago > -h.Duration
	if o.Working {
		st.On, st.Back = "", ""
	}
}

// describeStep names a step for people.
func describeStep(s *ledger.Step) string {
	text := s.Kind + " " + s.Key()
	if s.Name != "" {
		text += " " + s.Name
	}
	return text + ": " + s.Status
}

// expectedReleases are the releases that the cluster has to have, with the revisions: as installed, and where a transaction is open,
// as far as that has come.
func expectedReleases(s *ledger.State) []ledger.Release {
	var all []ledger.Release
	if s.Installed != nil {
		all = slices.Clone(s.Installed.Releases)
	}
	if s.Open == nil {
		return all
	}
	planned := map[string]ledger.Release{}
	for _, r := range s.Open.Receipt.Releases {
		planned[r.Namespace+"/"+r.Helm()] = r
	}
	for i := range s.Open.Steps {
		step := &s.Open.Steps[i]
		at := slices.IndexFunc(all, func(r ledger.Release) bool { return r.Namespace == step.Namespace && r.Helm() == step.Helm() })
		switch {
		case step.Kind == ledger.StepRemove && step.Status == ledger.StepDone && at >= 0:
			all = slices.Delete(all, at, at+1)
		case step.Kind != ledger.StepRelease || step.To == 0 || step.Status == ledger.StepPlanned || step.Status == ledger.StepReverted:
		case at >= 0:
			all[at].Revision = step.To
			if p, ok := planned[step.Namespace+"/"+step.Helm()]; ok {
				all[at].Chart, all[at].Version, all[at].Front = p.Chart, p.Version, p.Front
			}
		default:
			r := planned[step.Namespace+"/"+step.Helm()]
			r.Namespace, r.Name, r.As, r.Revision = step.Namespace, step.Release, step.As, step.To
			all = append(all, r)
		}
	}
	return all
}

// images compares what runs with what the bundle has.
func (st *Status) images(s *ledger.State) {
	digests, names := map[string]bool{}, map[string]bool{}
	known := func(r *ledger.Receipt) {
		for i := range r.Images {
			img := &r.Images[i]
			digests[img.Digest] = true
			for _, d := range slices.Concat(img.Manifests, img.Configs) {
				digests[d] = true
			}
			names[repositoryOf(img.Target)], names[repositoryOf(img.Source)] = true, true
		}
	}
	if s.Installed != nil {
		known(s.Installed)
	}
	if s.Open != nil {
		known(&s.Open.Receipt)
	}
	seen := map[string]bool{}
	for i := range st.Releases {
		for _, running := range st.Releases[i].Images {
			key := running.Reference + " " + running.ID + " " + strings.Join(running.Pods, " ")
			switch {
			case digests[running.ID], seen[key]:
			case names[repositoryOf(running.Reference)]:
				st.OtherImages = append(st.OtherImages, running)
			default:
				st.ForeignImages = append(st.ForeignImages, running)
			}
			seen[key] = true
		}
	}
}

// repositoryOf is a reference without tag and digest.
func repositoryOf(text string) string {
	ref, err := oci.Normalize(text)
	if err != nil {
		return text
	}
	return ref.Registry + "/" + ref.Repository
}

// NotInstalledError says that a cluster knows nothing of a bundle, or that nothing is installed.
type NotInstalledError struct {
	// Bundle is empty where no bundle at all is known.
	Bundle string
	// Namespace is where it was looked.
	Namespace string
}

// Error names the bundle and where it was looked.
func (e *NotInstalledError) Error() string {
	if e.Bundle == "" {
		return fmt.Sprintf("no bundle is installed in this cluster, by what is recorded in namespace %q", e.Namespace)
	}
	return fmt.Sprintf("bundle %q is not installed in this cluster, by what is recorded in namespace %q", e.Bundle, e.Namespace)
}

// UnfinishedError says that transactions are open.
type UnfinishedError struct {
	// Bundles are "NAME (CONDITION)".
	Bundles []string
}

// Error lists them.
func (e *UnfinishedError) Error() string { return "not finished: " + strings.Join(e.Bundles, ", ") }

// UnhealthyError says that what is installed is not as it should be.
type UnhealthyError struct{ Bundles []string }

// Error lists them.
func (e *UnhealthyError) Error() string {
	return "not as it was installed, or not healthy: " + strings.Join(e.Bundles, ", ")
}

// JudgeStatus is nil where all is well with what is installed, else *UnfinishedError, *UnhealthyError or *NotInstalledError, the first that
// holds in this order. A bundle that was uninstalled counts only where it was asked for by its name.
func JudgeStatus(all []*Status, named bool, namespace string) error {
	var unfinished UnfinishedError
	var unhealthy UnhealthyError
	installed := 0
	for _, st := range all {
		switch {
		case st.Open != nil:
			unfinished.Bundles = append(unfinished.Bundles, fmt.Sprintf("%s (%s)", st.Bundle, st.Condition))
		case st.Condition == ledger.ConditionNothing && named:
			return &NotInstalledError{st.Bundle, namespace}
		case st.Condition == ledger.ConditionNothing:
		case !st.Healthy:
			unhealthy.Bundles = append(unhealthy.Bundles, st.Bundle)
			installed++
		default:
			installed++
		}
	}
	switch {
	case len(unfinished.Bundles) > 0:
		return &unfinished
	case len(unhealthy.Bundles) > 0:
		return &unhealthy
	case installed == 0:
		return &NotInstalledError{"", namespace}
	}
	return nil
}
