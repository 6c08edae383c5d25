package install

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/sealift/sealift/internal/chart"
	"github.com/sealift/sealift/internal/release"
	"github.com/sealift/sealift/internal/trust"
	"github.com/sealift/sealift/manifest"
)

const (
	// maxChanges bounds the objects whose changes a plan shows for one release, maxLeft the fields that are left out.
	maxChanges = 500
	maxLeft    = 500
	// maxImages bounds the images that a plan shows for one release.
	maxImages = 500
)

// planner knows what is asked of a cluster once.
type planner struct {
	cluster *release.Cluster
	uid     string
	version string
	apis    []string
	hide    func(string) string
}

func newPlanner(ctx context.Context, cluster *release.Cluster, hide func(string) string) (*planner, error) {
	w := &planner{cluster: cluster, hide: hide}
	if cluster == nil {
		return w, nil
	}
	var err error
	if w.version, err = cluster.Version(ctx); err != nil {
		return nil, err
	}
	if w.apis, err = cluster.APIVersions(ctx); err != nil {
		return nil, err
	}
	if w.uid, err = cluster.UID(ctx); release.IsForbidden(err) {
		return nil, &PreflightError{err}
	}
	return w, err
}

// PlanReleases says what an install would do with the releases. cluster may be nil: then nothing is
// asked of it. It changes nothing. A release that cannot be rendered, or that would use images
// which the bundle does not carry, is a *PreflightError.
func PlanReleases(ctx context.Context, releases []*Release, cluster *release.Cluster) ([]ReleasePlan, error) {
	w, err := newPlanner(ctx, cluster, func(s string) string { return s })
	if err != nil {
		return nil, err
	}
	return w.releases(ctx, releases)
}

func (w *planner) releases(ctx context.Context, releases []*Release) ([]ReleasePlan, error) {
	plans := []ReleasePlan{}
	for _, r := range releases {
		p, err := w.release(ctx, r)
		if err == nil {
			plans = append(plans, *p)
			continue
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, err
	}
	return plans, nil
}

func (w *planner) release(ctx context.Context, r *Release) (*ReleasePlan, error) {
	if err := r.suits(w.version, w.apis); err != nil {
		return nil, &PreflightError{err}
	}
	p := &ReleasePlan{
		Release: r.Name, Namespace: r.Namespace, Chart: r.Chart.Name, Version: r.Chart.Version, Action: ActionEither, spec: r.Spec,
		Changes: []ObjectPlan{}, Definitions: []DefinitionPlan{}, Images: []ImagePlan{}, Hooks: []string{}, Impact: []ImpactPlan{},
		NoReturn: []string{}, Notes: []string{}, Left: []chart.Left{},
	}
	if r.As != r.Name {
		p.As = r.As
	}
	revision := 0
	if w.cluster != nil {
		state, err := w.cluster.Current(ctx, r.As, r.Namespace)
		if err == nil {
			revision, err = w.cluster.LastRevision(ctx, r.As, r.Namespace)
		}
		if release.IsForbidden(err) {
			return nil, &PreflightError{err}
		}
		if err != nil {
			return nil, err
		}
		p.From, p.Action = state, release.ActionInstall
		if state != nil {
			p.Action = release.ActionUpgrade
		}
	}
	o := chart.RenderOptions{Values: r.Values, KubeVersion: w.version, APIVersions: w.apis, IsUpgrade: p.From != nil}
	if p.From != nil {
		o.Revision = revision + 1
	}
	settled, err := w.render(ctx, r, p, o)
	if err != nil {
		return nil, planError(r, err)
	}
	p.Objects, p.Digest, p.docs = w.hide(string(settled.Docs)), settled.Digest, p.parts.all()
	p.left(settled)
	if err := w.compare(ctx, r, p, settled); err != nil {
		return nil, planError(r, err)
	}
	for i := range p.Notes {
		p.Notes[i] = w.hide(p.Notes[i])
	}
	return p, nil
}

// planError says of which release an error is, and that nothing was changed.
func planError(r *Release, err error) error {
	var violation *trust.ViolationError
	var unreachable *release.UnreachableError
	var before *PreflightError
	switch {
	case errors.As(err, &violation):
		return fmt.Errorf("release %s/%s: %w", r.Namespace, r.Name, violation)
	case errors.As(err, &unreachable), errors.As(err, &before), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	}
	return &PreflightError{fmt.Errorf("release %s/%s: %w", r.Namespace, r.Name, err)}
}

// render renders a release, and again to see what is random, and with other secrets to see what is made of them.
func (w *planner) render(ctx context.Context, r *Release, p *ReleasePlan, o chart.RenderOptions) (*chart.Settled, error) {
	if w.cluster != nil {
		lookup, err := w.cluster.Lookup(ctx, r.Namespace)
		if err != nil {
			return nil, err
		}
		o.Lookup = lookup
	}
	var err error
	p.parts, err = r.renderWith(ctx, o)
	var is *chart.RenderError
	if o.Lookup != nil && errors.As(err, &is) {
		// What it looks up may come with a release before it.
		o.Lookup = nil
		looked := is
		if p.parts, err = r.renderWith(ctx, o); err == nil {
			p.Notes = append(p.Notes, fmt.Sprintf("it is rendered without looking at the cluster, which failed: %v", looked))
		}
	}
	if o.IsUpgrade && errors.As(err, &is) {
		// Charts look up what is installed, and some refuse to go on without it. Then it is planned as it would be
		// installed first.
		p.AsFirst, o.IsUpgrade, o.Revision = true, false, 0
		p.parts, err = r.renderWith(ctx, o)
	}
	if err != nil {
		return nil, err
	}
	again, err := r.renderWith(ctx, o)
	if err != nil {
		return nil, err
	}
	var other []byte
	if values, secrets := r.otherSecrets(); len(secrets) > 0 {
		o.Values = values
		parts, err := r.renderWith(ctx, o)
		switch {
		case err == nil:
			other = parts.all()
		case ctx.Err() != nil:
			return nil, ctx.Err()
		default:
			// The chart does not take others: then the usual spellings of the secrets have to do.
			other = exchange(p.parts.all(), secrets)
		}
	}
	return chart.Settle(p.parts.all(), again.all(), other, r.Namespace)
}

// left notes what is left out.
func (p *ReleasePlan) left(s *chart.Settled) {
	p.Left = s.Left()
	if n := len(p.Left) - maxLeft; n > 0 {
		p.Left = p.Left[:maxLeft]
		p.Notes = append(p.Notes, fmt.Sprintf("%d more fields are random or made of secrets", n))
	}
}

// otherSecrets are the values with others in place of the secret ones, and these.
func (r *Release) otherSecrets() (values map[string]any, secrets []string) {
	if r.bundle == nil || r.Spec == nil {
		return nil, nil
	}
	values, ok := cloneValue(r.Values).(map[string]any)
	if !ok {
		return nil, nil
	}
	m := r.bundle.Manifest()
	for i := range m.Parameters {
		if _, read := r.reads[m.Parameters[i].Name]; !read && !m.Parameters[i].Secret {
			continue
		}
		for _, to := range m.Parameters[i].Values {
			if to.Release != r.Spec.Key() {
				continue
			}
			if secret, changed := changeSecret(values, manifest.SplitValuePath(to.Path)); changed {
				secrets = append(secrets, secret)
			}
		}
	}
	return values, secrets
}

// minExchanged is how long a secret is, in bytes, that is looked for in texts: shorter ones stand everywhere.
const minExchanged = 4

// exchange puts other texts in place of secrets, and of what templates make of them most often.
func exchange(docs []byte, secrets []string) []byte {
	text := string(docs)
	for _, s := range secrets {
		if len(s) < minExchanged {
			continue
		}
		raw := []byte(s)
		a, b := sha256.Sum256(raw), sha512.Sum512(raw)
		for _, spelled := range []string{s, base64.StdEncoding.EncodeToString(raw), hex.EncodeToString(a[:]), hex.EncodeToString(b[:])} {
			text = strings.ReplaceAll(text, spelled, otherText(spelled))
		}
	}
	return []byte(text)
}

func cloneValue(v any) any {
	switch v := v.(type) {
	case map[string]any:
		c := make(map[string]any, len(v))
		for key, value := range v {
			c[key] = cloneValue(value)
		}
		return c
	case []any:
		c := make([]any, len(v))
		for i := range v {
			c[i] = cloneValue(v[i])
		}
		return c
	}
	return v
}

// changeSecret replaces the value at a path by another one that looks alike, and returns it.
func changeSecret(values map[string]any, path []string) (string, bool) {
	for _, key := range path[:len(path)-1] {
		next, ok := values[key].(map[string]any)
		if !ok {
			return "", false
		}
		values = next
	}
	key := path[len(path)-1]
	was := values[key]
	switch v := was.(type) {
	case string:
		if v == "" {
			return "", false
		}
		values[key] = otherText(v)
	case int64:
		values[key] = v + 1
	case int:
		values[key] = v + 1
	case float64:
		values[key] = v + 1
	default:
		return "", false
	}
	return fmt.Sprint(was), true
}

// otherText is a text of the same length and the same kinds of characters.
func otherText(s string) string {
	next := func(r, first, last rune) rune {
		if r == last {
			return first
		}
		return r + 1
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return next(r, 'a', 'z')
		case r >= 'A' && r <= 'Z':
			return next(r, 'A', 'Z')
		case r >= '0' && r <= '9':
			return next(r, '0', '9')
		}
		return r
	}, s)
}

// compare finds out what changes, in the cluster and against what was rendered before.
func (w *planner) compare(ctx context.Context, r *Release, p *ReleasePlan, settled *chart.Settled) error {
	backup, err := jobNames(p.parts.backup)
	if err != nil {
		return err
	}
	if p.Restore, err = jobNames(p.parts.restore); err != nil {
		return err
	}
	if p.From != nil {
		p.Backup = backup
	} else {
		p.Restore = nil // nothing was there
	}
	was := &release.Recorded{}
	if p.From != nil {
		found, err := w.cluster.Recorded(ctx, r.As, r.Namespace, p.From.Revision)
		if err != nil {
			return err
		}
		if found != nil {
			was = found
		}
	}
	if err := p.images(was, w.hide); err != nil {
		return err
	}
	if err := p.hooks(); err != nil {
		return err
	}
	if w.cluster == nil {
		return nil
	}
	c := &comparison{planner: w, plan: p, settled: settled, was: was}
	if c.recorded, err = chart.CompareObjects(was.Docs, p.parts.docs, r.Namespace); err != nil {
		return err
	}
	if c.live, err = w.cluster.Live(ctx, p.parts.docs, release.LiveOptions{Release: r.As, Namespace: r.Namespace, Apply: true}); err != nil {
		return err
	}
	definitions, err := w.cluster.Live(ctx, p.parts.crds, release.LiveOptions{Namespace: r.Namespace, Apply: true})
	if err != nil {
		return err
	}
	gone, err := chart.OnlyIn(was.Docs, p.parts.docs, r.Namespace)
	if err != nil {
		return err
	}
	if c.gone, err = w.cluster.Live(ctx, gone, release.LiveOptions{Release: r.As, Namespace: r.Namespace}); err != nil {
		return err
	}
	c.live = append(definitions, c.live...)
	if err := c.changes(); err != nil {
		return err
	}
	if err := c.definitions(); err != nil {
		return err
	}
	if same, err := c.same(ctx, r); err != nil {
		return err
	} else if same {
		p.Action = ActionLeave
		p.Changes, p.Images, p.Hooks, p.Impact, p.Backup, p.Restore = []ObjectPlan{}, []ImagePlan{}, []string{}, []ImpactPlan{}, nil, nil
		return nil
	}
	return c.noReturn()
}

func jobNames(docs []byte) ([]string, error) {
	objects, err := chart.ClientObjects(docs)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, o := range objects {
		names = append(names, o.GetKind()+"/"+o.GetName())
	}
	return names, nil
}

// images finds out which change.
func (p *ReleasePlan) images(was *release.Recorded, hide func(string) string) error {
	type place struct{ object, path string }
	had := map[place]string{}
	before, err := chart.Discover(chart.JoinDocuments(was.Docs, was.Hooks), nil)
	if err != nil {
		return err
	}
	for _, f := range before {
		if !f.Probable {
			had[place{f.Object, f.Path}] = f.Reference
		}
	}
	now, err := chart.Discover(p.docs, nil)
	if err != nil {
		return err
	}
	type change struct{ was, is string }
	at := map[change]int{}
	for _, f := range now {
		old := had[place{f.Object, f.Path}]
		if f.Probable || old == f.Reference {
			continue
		}
		c := change{old, f.Reference}
		i, again := at[c]
		if !again {
			if len(p.Images) == maxImages {
				continue
			}
			i = len(p.Images)
			at[c] = i
			p.Images = append(p.Images, ImagePlan{Was: hide(old), Is: hide(f.Reference), Objects: []string{}})
		}
		if !slices.Contains(p.Images[i].Objects, f.Object) {
			p.Images[i].Objects = append(p.Images[i].Objects, f.Object)
		}
	}
	return nil
}

// hooks lists those that run.
func (p *ReleasePlan) hooks() error {
	list, err := chart.Hooks(p.parts.docs)
	if err != nil {
		return err
	}
	for _, h := range list {
		for _, e := range p.events() {
			if slices.Contains(h.Events, e) {
				p.Hooks = append(p.Hooks, e+" "+h.Object)
			}
		}
	}
	return nil
}

// events are those at which hooks run.
func (p *ReleasePlan) events() []string {
	switch p.Action {
	case release.ActionInstall:
		return []string{"pre-install", "post-install"}
	case release.ActionUpgrade:
		return []string{"pre-upgrade", "post-upgrade"}
	}
	return []string{"pre-install", "post-install", "pre-upgrade", "post-upgrade"}
}

// comparison is what is known of the objects of a release.
type comparison struct {
	planner *planner
	plan    *ReleasePlan
	settled *chart.Settled
	was     *release.Recorded
	// recorded are the changes from what was rendered before.
	recorded []chart.ObjectChange
	// live are the objects that there are to be, gone those that the revision before had besides.
	live, gone []release.LiveObject
	// real counts the changes that are more than a new random value.
	real int
}

func (c *comparison) changes() error {
	for i := range c.live {
		if err := c.change(&c.live[i]); err != nil {
			return err
		}
	}
	for i := range c.gone {
		l := &c.gone[i]
		if l.Live == nil && l.Why == "" {
			continue // it has gone already
		}
		c.real++
		stays := l.Kept || holdsData(l.Kind)
		c.add(ObjectPlan{ObjectChange: chart.ObjectChange{Action: chart.ObjectRemoved, Object: l.Object}, Against: AgainstLive, Why: l.Why, Stays: stays})
		if !stays && isWorkload(l.Kind) {
			c.plan.Impact = append(c.plan.Impact, ImpactPlan{Object: l.Object, Effect: EffectRemove, Pods: l.Pods})
		}
	}
	slices.SortStableFunc(c.plan.Impact, func(a, b ImpactPlan) int { return cmp.Compare(a.Object, b.Object) })
	return nil
}

// change finds out what becomes of one object.
func (c *comparison) change(l *release.LiveObject) error {
	wanted := pods(l.Wanted)
	if l.Live == nil {
		c.real++
		c.add(ObjectPlan{ObjectChange: chart.ObjectChange{Action: chart.ObjectAdded, Object: c.settled.Name(l.Object)}, Why: l.Why})
		if isWorkload(l.Kind) {
			c.plan.Impact = append(c.plan.Impact, ImpactPlan{Object: c.settled.Name(l.Object), Effect: EffectStart, Pods: wanted})
		}
		return nil
	}
	changes, against := []chart.ObjectChange(nil), AgainstLive
	if l.Applied != nil {
		var err error
		if changes, err = chart.CompareObjects(l.Live, l.Applied, c.plan.Namespace); err != nil {
			return err
		}
	} else {
		against = AgainstRecorded
		one, err := chart.CompareObjects(nil, l.Wanted, c.plan.Namespace)
		if err != nil {
			return err
		}
		for _, r := range c.recorded {
			if len(one) > 0 && r.Object == one[0].Object {
				changes = append(changes, r)
			}
		}
	}
	if l.Why != "" && len(changes) == 0 && l.Applied == nil {
		// Not known to change, and not known to stay as it is.
		c.real++
		c.add(ObjectPlan{ObjectChange: chart.ObjectChange{Action: chart.ObjectChanged, Object: l.Object}, Against: against, Why: l.Why})
		return nil
	}
	for i := range changes {
		if !c.settled.Volatile(&changes[i]) {
			c.real++
		}
		c.impact(l, &changes[i], wanted)
	}
	for _, change := range c.settled.Hide(changes) {
		change.Object = l.Object
		c.add(ObjectPlan{ObjectChange: change, Against: against, Why: l.Why})
	}
	return nil
}

func (c *comparison) impact(l *release.LiveObject, change *chart.ObjectChange, wanted int) {
	if !isWorkload(l.Kind) || change.Action == chart.ObjectRemoved {
		return
	}
	template := slices.ContainsFunc(change.Fields, func(f chart.FieldChange) bool { return strings.HasPrefix(f.Path, "spec.template") }) || change.More > 0
	scale := slices.ContainsFunc(change.Fields, func(f chart.FieldChange) bool { return f.Path == "spec.replicas" })
	switch {
	case template:
		c.plan.Impact = append(c.plan.Impact, ImpactPlan{Object: l.Object, Effect: EffectReplace, Pods: l.Pods})
	case scale:
		c.plan.Impact = append(c.plan.Impact, ImpactPlan{Object: l.Object, Effect: EffectScale, Pods: wanted})
	}
}

// add adds what people are shown of a change.
func (c *comparison) add(o ObjectPlan) {
	if len(c.plan.Changes) == maxChanges {
		c.plan.MoreChanges++
		return
	}
	hide := c.planner.hide
	o.Fields = slices.Clone(o.Fields)
	for i := range o.Fields {
		f := &o.Fields[i]
		f.Path, f.Old, f.New = hide(f.Path), hide(f.Old), hide(f.New)
	}
	o.Object, o.Why = hide(o.Object), hide(o.Why)
	c.plan.Changes = append(c.plan.Changes, o)
}

// definitions finds out what becomes of custom resource definitions.
func (c *comparison) definitions() error {
	live := map[string]chart.Definition{}
	for _, l := range c.live {
		if l.Kind != "CustomResourceDefinition" || l.Live == nil {
			continue
		}
		list, err := chart.Definitions(l.Live)
		if err != nil {
			return err
		}
		for _, d := range list {
			live[d.Name] = d
		}
	}
	now, err := chart.Definitions(chart.JoinDocuments(c.plan.parts.crds, c.plan.parts.docs))
	if err != nil {
		return err
	}
	for _, d := range now {
		was, there := live[d.Name]
		name := "CustomResourceDefinition/" + d.Name
		changed := slices.ContainsFunc(c.plan.Changes, func(o ObjectPlan) bool { return o.Object == name })
		if there && !changed {
			continue
		}
		p := DefinitionPlan{Name: d.Name, Action: chart.ObjectAdded, Added: []string{}, Removed: []string{}}
		if there {
			p.Action = chart.ObjectChanged
			if was.Storage() != d.Storage() {
				p.StorageWas, p.Storage = was.Storage(), d.Storage()
			}
		}
		for _, v := range d.Versions {
			if !was.Has(v.Name) {
				p.Added = append(p.Added, v.Name)
			}
		}
		for _, v := range was.Versions {
			if !d.Has(v.Name) {
				p.Removed = append(p.Removed, v.Name)
			}
		}
		c.plan.Definitions = append(c.plan.Definitions, p)
		if there && was.Storage() != d.Storage() && !was.Has(d.Storage()) {
			c.plan.NoReturn = append(c.plan.NoReturn, fmt.Sprintf("objects of %s are kept in version %q from then on, which the definition before did not know (%q)", d.Name, d.Storage(), was.Storage()))
		}
	}
	return nil
}

// same reports whether the release is left alone.
func (c *comparison) same(ctx context.Context, r *Release) (bool, error) {
	if c.plan.From == nil || c.plan.AsFirst || c.real > 0 || len(c.plan.Definitions) > 0 || len(c.plan.NoReturn) > 0 {
		return false, nil
	}
	// Hooks and tests are part of a release, too.
	all, err := chart.CompareObjects(chart.JoinDocuments(c.was.Docs, c.was.Hooks), c.plan.parts.docs, r.Namespace)
	if err != nil {
		return false, err
	}
	for i := range all {
		if !c.settled.Volatile(&all[i]) {
			return false, nil
		}
	}
	return c.planner.cluster.Same(ctx, release.Release{Name: r.As, Namespace: r.Namespace, Chart: r.Chart, Values: r.Values})
}

// isWorkload reports whether objects of a kind have pods.
func isWorkload(kind string) bool {
	return slices.Contains([]string{"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController"}, kind)
}

// holdsData reports whether objects of a kind are never deleted by Sealift.
func holdsData(kind string) bool {
	return slices.Contains([]string{"PersistentVolumeClaim", "PersistentVolume", "Namespace", "CustomResourceDefinition"}, kind)
}

// pods is how many pods a workload is to have, as far as it says so.
func pods(object []byte) int {
	var o struct {
		Spec struct {
			Replicas *int `json:"replicas"`
		} `json:"spec"`
	}
	switch err := json.Unmarshal(object, &o); {
	case err != nil:
		return 0
	case o.Spec.Replicas == nil:
		return 1
	}
	return max(*o.Spec.Replicas, 0)
}

// mentionsOf finds what names another registry than the site's.
func mentionsOf(plans []ReleasePlan, m *manifest.Manifest, t Target, hide func(string) string) ([]MentionPlan, error) {
	list := []MentionPlan{}
	vendor, carried := map[string]bool{}, map[string]bool{}
	for _, img := range m.AllImages() {
		if host, ok := hostOf(img.Source); ok && host != t.Registry {
			vendor[host] = true
		}
		carried[img.Source] = true
	}
	for i := range plans {
		p := &plans[i]
		type place struct{ object, path string }
		seen := map[place]bool{}
		add := func(object, path, reference string) {
			if seen[place{object, path}] || len(list) == maxMentioned {
				return
			}
			seen[place{object, path}] = true
			list = append(list, MentionPlan{Release: p.Key(), Object: hide(object), Path: hide(path), Reference: hide(reference), Carried: carried[reference]})
		}
		finds, err := chart.Discover(p.docs, vendor)
		if err != nil {
			return nil, err
		}
		for _, f := range finds {
			// What names no host may be no image at all.
			if host, ok := hostOf(f.Reference); ok && host != t.Registry && (!f.Probable || strings.HasPrefix(f.Reference, host+"/")) {
				add(f.Object, f.Path, f.Reference)
			}
		}
		mentions, err := chart.FindHosts(p.docs, slices.Sorted(maps.Keys(vendor)))
		if err != nil {
			return nil, err
		}
		for _, n := range mentions {
			add(n.Object, n.Path, n.Host)
		}
	}
	return list, nil
}

// maxMentioned bounds the places that a plan names.
const maxMentioned = 1000

// hostOf is the registry that a reference names itself; false where it names none.
func hostOf(reference string) (string, bool) {
	host, _, ok := strings.Cut(reference, "/")
	if !ok || !strings.ContainsAny(host, ".:") && host != "localhost" {
		return "", false
	}
	return host, true
}
