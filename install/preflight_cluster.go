package install

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sealift/sealift/internal/chart"
	"github.com/sealift/sealift/internal/release"
	"github.com/sealift/sealift/internal/trust"
	"github.com/sealift/sealift/manifest"
)

const (
	// slow is how long a small answer of the API server may take before it is said.
	slow = 2 * time.Second
	// soonExpired is how much longer credentials should hold than a preflight: an install waits.
	soonExpired = 2 * time.Hour
	// clockWarn and clockFail bound how far apart the clocks may be. Certificates and tokens are good from some time on.
	clockWarn, clockFail = 30 * time.Second, 5 * time.Minute
)

// cluster says what the cluster is, and that it answers.
func (p *preflight) cluster(ctx context.Context) []Finding {
	c := check{name: CheckCluster}
	version, err := p.in.Cluster.Version(ctx)
	if err != nil {
		c.unknown("the version of the cluster", err)
		return c.done("")
	}
	if r := p.in.Bundle.Manifest().Requires; r != nil && r.Kubernetes != "" {
		if ok, err := chart.InRange(r.Kubernetes, version); err != nil || !ok {
			c.fail("", "upgrade the cluster, or get a bundle for this version from the vendor", "%v", &VersionError{version, r.Kubernetes})
		}
	}
	if p.pulse.Took > slow {
		c.warn("", "look at the load of its control plane; --timeout bounds each wait of an install", "the API server needed %v for a small answer", p.pulse.Took.Round(100*time.Millisecond))
	}
	return c.done("Kubernetes %s at %s", version, p.pulse.Server)
}

// credentials says when those of the kubeconfig expire.
func (p *preflight) credentials() []Finding {
	c := check{name: CheckCredentials}
	now := p.in.Now()
	for _, k := range p.in.Cluster.Credentials() {
		left := k.Expires.Sub(now)
		at := k.Expires.UTC().Format(time.RFC3339)
		switch {
		case left <= 0:
			c.fail("", "get a new kubeconfig from whoever runs the cluster", "the %s of the kubeconfig expired at %s", k.What, at)
		case left < soonExpired:
			c.warn("", "get a new kubeconfig: an install may take longer, and its way back needs it too", "the %s of the kubeconfig expires at %s", k.What, at)
		}
	}
	return c.done("the cluster takes the credentials of the kubeconfig")
}

// clock compares the clocks.
func (p *preflight) clock() []Finding {
	c := check{name: CheckClock}
	const advice = "set the clock of the one that is wrong; certificates and tokens are only good between two times"
	off := p.pulse.Ahead
	text := fmt.Sprintf("the clock of the API server is %v ahead of the one here", off)
	if off < 0 {
		text = fmt.Sprintf("the clock of the API server is %v behind the one here", -off)
	}
	switch {
	case off.Abs() > clockFail:
		c.fail("", advice, "%s", text)
	case off.Abs() > clockWarn:
		c.warn("", advice, "%s", text)
	}
	return c.done("this clock and that of the API server agree")
}

// api checks that all kinds are served.
func (p *preflight) api(context.Context) []Finding {
	c := check{name: CheckAPI}
	if groups := p.seen.Silent(); len(groups) > 0 {
		c.warn("", "'kubectl get apiservices' shows who should answer", "nobody answers for the API groups %s", strings.Join(groups, ", "))
	}
	missing := map[string][]string{}
	var order []string
	for _, o := range p.seen.Objects {
		if o.Served || o.Defined {
			continue
		}
		kind := o.Kind.GroupVersion().String() + " " + o.Kind.Kind
		if o.Unknown {
			kind += " (nobody answers for its group)"
		}
		if missing[kind] == nil {
			order = append(order, kind)
		}
		missing[kind] = append(missing[kind], o.String())
	}
	for _, kind := range order {
		c.fail(kind, "install what serves it first, an operator or its definitions; where it is an old version, the vendor has to move on",
			"the cluster does not serve it, and no chart of the bundle defines it: %s", few(missing[kind]))
	}
	return c.done("all kinds of the %d objects are served, or defined by the bundle", len(p.seen.Objects))
}

// few lists the first of some texts.
func few(list []string) string {
	const most = 5
	if n := len(list) - most; n > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(list[:most], ", "), n)
	}
	return strings.Join(list, ", ")
}

// namespaces checks that those are there, or will be, that objects are put into.
func (p *preflight) namespaces(context.Context) []Finding {
	c := check{name: CheckNamespaces}
	absent, going, hidden := p.seen.Absent()
	for _, name := range going {
		c.fail("Namespace/"+name, "wait until it is gone, or find out what keeps it", "it is being deleted: nothing can be created in it")
	}
	for _, name := range hidden {
		if p.seen.Made(name) {
			continue
		}
		c.warn("Namespace/"+name, "let this account read it, to be sure", "this account may not see whether it is there")
	}
	for _, name := range absent {
		if p.own(name) || p.seen.Made(name) {
			continue
		}
		var in []string
		for _, o := range p.seen.Objects {
			if o.Namespace == name {
				in = append(in, o.String())
			}
		}
		c.fail("Namespace/"+name, "create it, or have the vendor put it into the bundle", "it is not there, and the bundle does not create it: %s", few(in))
	}
	return c.done("the namespaces are there, or are created")
}

// try has the API server try the objects.
func (p *preflight) try(ctx context.Context, lacking []release.Right) []Finding {
	objects, conflicts, owners := check{name: CheckObjects}, check{name: CheckConflicts}, check{name: CheckOwners}
	tried, skipped := 0, map[string][]string{}
	for _, t := range p.seen.Try(ctx, release.TryOptions{Tests: p.in.Test, Lacking: lacking}) {
		name := t.Object.String()
		if t.Skipped != "" {
			skipped[t.Skipped] = append(skipped[t.Skipped], name)
			continue
		}
		if t.Err != nil {
			objects.unknown("whether the cluster takes "+name, t.Err)
			continue
		}
		tried++
		if t.Refused != "" {
			objects.fail(name, "the API server says so, which would refuse it in the install too", "%s", t.Refused)
		}
		for _, w := range t.Warnings {
			objects.warn(name, "", "the API server warns: %s", w)
		}
		if t.Scaled != "" {
			conflicts.pass("the replicas of %s are left to %s", name, t.Scaled)
		}
		p.conflicts(&conflicts, t)
		if t.Owner != "" {
			advice := "find out who needs it; with --adopt the release takes it over"
			if p.in.Adopt {
				owners.warn(name, "", "it is there, made by %s, and is taken over (--adopt)", t.Owner)
			} else {
				owners.fail(name, advice, "it is there, made by %s, and would be taken over", t.Owner)
			}
		}
	}
	for _, why := range []string{"its kind is not there yet", "its namespace is not there yet", "it gets its name from the cluster"} {
		if len(skipped[why]) > 0 {
			objects.pass("%d objects were not tried (%s): %s", len(skipped[why]), why, few(skipped[why]))
		}
	}
	if n := len(skipped["this account lacks a right"]); n > 0 {
		objects.warn("", "have the rights granted, see permissions", "%d objects were not tried, since this account lacks rights: %s", n, few(skipped["this account lacks a right"]))
	}
	passed := "the API server would take all %d objects that could be tried"
	if tried == 0 {
		passed = ""
	}
	return slices.Concat(objects.done(passed, tried),
		conflicts.done("no field is owned by others"), owners.done("no object belongs to others"))
}

// conflicts reports fields that others own.
func (p *preflight) conflicts(c *check, t release.Trial) {
	for _, f := range t.Conflicts {
		text := fmt.Sprintf("%s was set by %q", f.Field, f.Manager)
		if f.Live != "" || f.New != "" {
			text += fmt.Sprintf(" to %s, and the bundle sets it to %s", valueOrNone(f.Live), valueOrNone(f.New))
		}
		if p.in.TakeOver {
			c.warn(t.Object.String(), "", "%s: it is taken over (--take-over)", text)
		} else {
			c.fail(t.Object.String(), "change it back, or say it to the bundle with a parameter or --values; with --take-over the bundle's value wins", "%s", text)
		}
	}
}

func valueOrNone(text string) string {
	if text == "" {
		return "nothing"
	}
	return text
}

// podSecurity checks the pods against the level of their namespaces.
func (p *preflight) podSecurity(context.Context) []Finding {
	c := check{name: CheckPodSecurity}
	for i := range p.intended {
		found, err := p.seen.PodSecurity(p.intended[i])
		if err != nil {
			c.unknown("whether the pods of release "+p.intended[i].Release+" are let in", err)
		}
		for _, s := range found {
			c.fail(s.Object, "label the namespace with a lower level (pod-security.kubernetes.io/enforce), or set the chart's values so that its pods keep to it", "%s", s.Text)
		}
	}
	return c.done("the namespaces let the pods in")
}

// quota compares with the quotas.
func (p *preflight) quota(ctx context.Context) []Finding {
	c := check{name: CheckQuota}
	found, err := p.seen.Quotas(ctx)
	if err != nil {
		c.unknown("what is left of the quotas", err)
	}
	for _, s := range found {
		c.fail(s.Object, "raise the quota, or ask for less with the chart's values", "%s", s.Text)
	}
	return c.done("the quotas of the namespaces suffice")
}

// capacity compares what the nodes have with what is needed, and what they are with the images.
func (p *preflight) capacity(ctx context.Context) []Finding {
	c, nodes := check{name: CheckCapacity}, check{name: CheckNodes}
	room, err := p.seen.Room(ctx)
	if err != nil {
		c.unknown("how much room the nodes have", err)
		return c.done("")
	}
	const advice = "add nodes, remove what is not needed, or ask for less with the chart's values"
	if !room.Pods {
		c.warn("", "let this account list pods, to be sure", "what is in use is not known, since this account may not list the pods: the nodes have %s in all", room.Total)
	}
	if short := room.Short(); len(short) > 0 {
		c.fail("", advice, "there is not enough %s: %s are free on %d nodes, and %s are needed", strings.Join(short, ", "), room.Free, len(room.Usable), room.Needed)
	}
	if !room.Fits() {
		c.fail(room.LargestOf, advice, "one of its pods asks for %s, which no node has free", room.Largest)
	}
	p.required(&c, room)
	p.platforms(&nodes, room)
	return slices.Concat(c.done("%s are free, and %s are needed", room.Free, room.Needed), nodes.done("%d nodes take pods", len(room.Usable)))
}

// required compares the nodes with what the vendor demands of them.
func (p *preflight) required(c *check, room *release.Room) {
	r := p.in.Bundle.Manifest().Requires
	if r == nil {
		return
	}
	want, err := release.ParseAmount(r.CPU, r.Memory)
	if err != nil {
		c.fail("", "get a new bundle from the vendor", "what the bundle requires cannot be read: %v", err)
		return
	}
	const advice = "add nodes; the vendor's word counts all nodes that take pods together"
	if want.MilliCPU > room.Total.MilliCPU {
		c.fail("", advice, "the bundle requires nodes with %s CPU in all, and there are %s", r.CPU, room.Total)
	}
	if want.Memory > room.Total.Memory {
		c.fail("", advice, "the bundle requires nodes with %s memory in all, and there are %s", r.Memory, room.Total)
	}
}

// platforms compares the nodes with the platforms of the images.
func (p *preflight) platforms(c *check, room *release.Room) {
	m := p.in.Bundle.Manifest()
	for _, n := range room.Nodes {
		if n.Blocked != "" {
			c.warn("Node/"+n.Name, "", "it takes no pods: %s", n.Blocked)
		}
	}
	if len(room.Usable) == 0 {
		c.fail("", "'kubectl get nodes' shows why", "no node takes pods")
		return
	}
	if r := m.Requires; r != nil && len(r.Architectures) > 0 {
		if !slices.ContainsFunc(room.Usable, func(n release.NodeRoom) bool {
			_, arch, _ := strings.Cut(n.Platform, "/")
			return slices.Contains(r.Architectures, arch)
		}) {
			c.fail("", "add a node of one of them", "the bundle requires nodes of the architectures %s, and there is none", strings.Join(r.Architectures, ", "))
		}
	}
	for i := range m.Images {
		image := &m.Images[i]
		if len(image.Platforms) == 0 {
			continue
		}
		var without []string
		for _, n := range room.Usable {
			if !suitsNode(image.Platforms, n.Platform) {
				without = append(without, n.Name+" ("+n.Platform+")")
			}
		}
		switch {
		case len(without) == len(room.Usable):
			c.fail("", "get a bundle for this platform from the vendor", "image %s is for %s, and no node is", image.Source, strings.Join(image.Platforms, ", "))
		case len(without) > 0:
			c.warn("", "make sure that its pods go elsewhere (nodeSelector: kubernetes.io/arch)", "image %s is for %s, which is not what these nodes are: %s",
				image.Source, strings.Join(image.Platforms, ", "), few(without))
		}
	}
}

// suitsNode reports whether an image for some platforms can run on a node, "OS/ARCHITECTURE". Variants are not known of nodes.
func suitsNode(platforms []string, node string) bool {
	return slices.ContainsFunc(platforms, func(p string) bool { return p == node || strings.HasPrefix(p, node+"/") })
}

// storage checks the classes of the claims.
func (p *preflight) storage(ctx context.Context) []Finding {
	c := check{name: CheckStorage}
	claims := p.seen.Claims()
	var required []string
	if r := p.in.Bundle.Manifest().Requires; r != nil {
		required = r.StorageClasses
	}
	if len(claims)+len(required) == 0 {
		return c.done("no storage class is asked for")
	}
	classes, volumes, err := p.in.Cluster.StorageClasses(ctx)
	if err != nil {
		c.unknown("which storage classes there are", err)
		return c.done("")
	}
	standard := ""
	for name, is := range classes {
		if is {
			standard = name
		}
	}
	for _, want := range required {
		switch _, there := classes[want]; {
		case want == "*" && standard == "":
			c.fail("", "mark one of them as the default (storageclass.kubernetes.io/is-default-class)", "the bundle requires a default storage class, and there is none")
		case want != "*" && !there:
			c.fail("StorageClass/"+want, "make it, or install what does", "the bundle requires it, and it is not there")
		}
	}
	for _, claim := range claims {
		text := fmt.Sprintf("its claim %q", claim.Name)
		_, there := classes[claim.Class]
		switch {
		case claim.Class == "" && standard == "":
			c.warn(claim.Object.String(), "mark a storage class as the default, or name one with the chart's values; a claim that is there already, or a volume made by hand, does without",
				"%s names no storage class, and the cluster has no default", text)
		case claim.Class == "" || there:
		case volumes[claim.Class]:
			c.warn(claim.Object.String(), "see that there are enough of them", "%s names the storage class %q, of which there are only volumes that were made by hand", text, claim.Class)
		default:
			c.fail(claim.Object.String(), "make the class, or name another one with the chart's values", "%s names the storage class %q, which is not there", text, claim.Class)
		}
	}
	return c.done("the storage classes are there")
}

// size estimates the records of the releases.
func (p *preflight) size(context.Context) []Finding {
	c := check{name: CheckSize}
	for i := range p.in.Plan.Releases {
		plan := &p.in.Plan.Releases[i]
		r := releaseOf(p.in.Releases, plan)
		if r == nil {
			continue
		}
		n, err := r.Chart.RecordSize(plan.parts.docs)
		name := r.Namespace + "/" + r.Name
		switch {
		case err != nil:
			c.unknown("the size of the record of release "+name, err)
		case n > chart.MaxRecord:
			c.fail(name, "the vendor has to make the chart smaller: what is in it and is no template, such as documentation, goes into the record too",
				"its record would have about %d bytes, and the cluster takes %d", n, chart.MaxRecord)
		case n > chart.MaxRecord/100*80:
			c.warn(name, "tell the vendor: when the chart grows it cannot be installed any more", "its record has about %d of the %d bytes that the cluster takes", n, chart.MaxRecord)
		}
	}
	return c.done("the records of the releases are small enough")
}

// olderAllowed reports whether the operator has allowed an older version, of which the journal has the reason.
func (p *preflight) olderAllowed() bool {
	return slices.ContainsFunc(p.in.Bundle.Stale(), func(s *trust.StaleError) bool { return s.Kind == trust.Older })
}

// version compares the version with the one that is installed.
func (p *preflight) version(context.Context) []Finding {
	c := check{name: CheckVersion}
	m := p.in.Bundle.Manifest()
	from := ""
	if m.Requires != nil {
		from = m.Requires.UpgradeFrom
	}
	if p.in.State == nil || p.in.State.Installed == nil {
		if from != "" && slices.ContainsFunc(p.in.Plan.Releases, func(r ReleasePlan) bool { return r.From != nil }) {
			c.warn("", "find out which version it is", "the bundle replaces versions %s, and which one is installed is not recorded: something else has installed it", from)
		}
		return c.done("it is the first version here")
	}
	was := p.in.State.Installed.Version
	if from != "" && was != m.Version {
		if ok, err := chart.InRange(from, was); err != nil || !ok {
			c.fail("", "install a version between them first", "version %s is installed, and the bundle replaces only versions %s", was, from)
		}
	}
	switch older := manifest.CheckVersion(was) == nil && manifest.CompareVersions(m.Version, was) < 0; {
	case older && p.olderAllowed():
		c.warn("", "'sealift rollback' goes back to a version that was installed before", "version %s is installed, which is newer: the older one is allowed by --allow-downgrade", was)
	case older:
		c.fail("", "'sealift rollback' goes back to a version that was installed before", "version %s is installed, which is newer", was)
	}
	return c.done("version %s follows %s", m.Version, was)
}
