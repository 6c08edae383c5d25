package install

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/sealift/sealift/internal/chart"
	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/internal/release"
	"github.com/sealift/sealift/manifest"
	"github.com/sealift/sealift/verify"
)

// This file is about installing on a node that has the images in its own containerd, under the vendor's
// names, with no registry at all.

// RegistryValueError says that a chart wants to be told a registry, and makes references without one, or
// with one of those that the images come from, that no image has.
type RegistryValueError struct {
	// Release is "NAMESPACE/RELEASE", Paths are the values that take a registry.
	Release string
	Paths   []string
	Err     error
}

// Error names the values.
func (e *RegistryValueError) Error() string {
	return fmt.Sprintf("release %s: its chart has to be told a registry (%s), and there is none: %v", e.Release, strings.Join(e.Paths, ", "), e.Err)
}

// Unwrap returns what became of the chart without one.
func (e *RegistryValueError) Unwrap() error { return e.Err }

// maxHosts bounds how many registries a chart is told in turn.
const maxHosts = 8

// UnrewrittenReleases is Releases for images that have been, or will be, loaded into the node of a cluster:
// references stay as the charts write them. A chart that takes the site's registry as a value is left with
// its own, or told the registry that the images come from, whichever leads to them. Errors are those of
// Releases, and *PreflightError with a *RegistryValueError.
func UnrewrittenReleases(ctx context.Context, b *verify.Bundle, loaded *LoadResult, site Site) ([]*Release, error) {
	m := b.Manifest()
	site.Target = Target{}
	all, err := releases(b, loadedPlaces(m, loaded), site)
	if err != nil {
		return nil, err
	}
	hosts := sourceHosts(m)
	for i, r := range all {
		mc := &m.Charts[i]
		if len(mc.RegistryValues) == 0 {
			continue
		}
		if err := r.tellRegistry(ctx, mc, hosts); err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			e := &RegistryValueError{Release: mc.Key(), Err: err}
			for _, v := range mc.RegistryValues {
				e.Paths = append(e.Paths, v.Path)
			}
			return nil, &PreflightError{e}
		}
	}
	return all, nil
}

// loadedPlaces knows all names by which objects may ask for the images, and for those that the vendor left
// out. Images that the node cannot run are known too: that they were not loaded is told later.
func loadedPlaces(m *manifest.Manifest, loaded *LoadResult) *places {
	p := &places{sources: map[string]string{}, asWritten: true}
	add := func(source, digest string) {
		p.sources[source] = source
		ref, err := oci.Normalize(source)
		if err != nil {
			return
		}
		for _, name := range []oci.Reference{
			{Registry: ref.Registry, Repository: ref.Repository, Digest: digest},
			{Registry: ref.Registry, Repository: ref.Repository, Tag: ref.Tag, Digest: digest},
		} {
			if digest != "" {
				p.sources[name.String()] = source
			}
		}
	}
	for _, img := range m.AllImages() {
		add(img.Source, img.Digest)
	}
	for i := range m.Ignored {
		add(m.Ignored[i].Reference, "")
	}
	for _, i := range loaded.Images {
		for _, name := range i.Names {
			p.sources[name] = i.Source
		}
	}
	return p
}

// sourceHosts are the registries that the images come from, each once.
func sourceHosts(m *manifest.Manifest) []string {
	var hosts []string
	for i := range m.Images {
		ref, err := oci.Normalize(m.Images[i].Source)
		if err == nil && !slices.Contains(hosts, ref.Registry) && len(hosts) < maxHosts {
			hosts = append(hosts, ref.Registry)
		}
	}
	return hosts
}

// tellRegistry finds out what the chart has to be told so that it names the images as they are called.
func (r *Release) tellRegistry(ctx context.Context, mc *manifest.Chart, hosts []string) error {
	leads := func(r *Release) error {
		_, err := r.render(ctx, "", nil, false)
		if !namesNothing(err) {
			return nil // what else is wrong is told when the plan is made
		}
		return err
	}
	first := leads(r)
	if first == nil {
		return nil
	}
	for _, host := range hosts {
		told := *r
		told.Values = chart.CopyValues(r.Values)
		if err := setRegistry(told.Values, mc, host, ""); err != nil {
			return err
		}
		if leads(&told) == nil {
			r.Values = told.Values
			return nil
		}
	}
	return first
}

// namesNothing reports whether a chart does not render, or makes references that are those of no image.
func namesNothing(err error) bool {
	var (
		missing   *MissingImageError
		reference *oci.ReferenceError
		render    *chart.RenderError
		schema    *chart.SchemaError
	)
	return errors.As(err, &missing) || errors.As(err, &reference) || errors.As(err, &render) || errors.As(err, &schema)
}

// NoKubeletError says that a containerd has no side for Kubernetes, as that of Docker.
type NoKubeletError struct{ Address, Version string }

// Error names the containerd.
func (e *NoKubeletError) Error() string {
	return fmt.Sprintf("no kubelet can use the containerd %s at %q: its side for Kubernetes (the CRI plugin) is off", e.Version, e.Address)
}

// CheckKubelet checks that the containerd can serve a kubelet. Errors are *PreflightError with a
// *NoKubeletError.
func (l *Loading) CheckKubelet() error {
	if l.o.Client.ServesKubernetes() {
		return nil
	}
	return &PreflightError{&NoKubeletError{l.stats.Address, l.stats.Containerd}}
}

// Machine is the one that this program runs on.
type Machine struct {
	Hostname string
	// MachineID is that of /etc/machine-id, SystemUUID that of its board; either may be empty.
	MachineID, SystemUUID string
	IPs                   []net.IP
}

// NodesError says that a cluster has more nodes than the one whose containerd has the images.
type NodesError struct{ Nodes []string }

// Error lists the first of them.
func (e *NodesError) Error() string {
	if len(e.Nodes) == 0 {
		return "the cluster has no node"
	}
	names := strings.Join(e.Nodes[:min(len(e.Nodes), maxListed)], ", ")
	if n := len(e.Nodes) - maxListed; n > 0 {
		names += fmt.Sprintf(" and %d more", n)
	}
	return fmt.Sprintf("the cluster has %d nodes (%s), and only this machine would have the images", len(e.Nodes), names)
}

// OtherNodeError says that the node of a cluster does not use the containerd that has the images.
type OtherNodeError struct {
	Node string
	// What is compared, what it is at the node, and what here.
	What, There, Here string
}

// Error names what differs.
func (e *OtherNodeError) Error() string {
	return fmt.Sprintf("node %q of the cluster does not use the containerd of this machine: its %s is %q, and here it is %q", e.Node, e.What, e.There, e.Here)
}

// CheckNode checks that the cluster has one node only, which is this machine and runs its containers with a
// containerd of that version. Errors are *PreflightError with a *NodesError or an *OtherNodeError.
func CheckNode(nodes []release.Node, here Machine, containerd string) error {
	if len(nodes) != 1 {
		e := &NodesError{}
		for _, n := range nodes {
			e.Nodes = append(e.Nodes, n.Name)
		}
		return &PreflightError{e}
	}
	n := &nodes[0]
	if what, there, local := differs(n, here); what != "" {
		return &PreflightError{&OtherNodeError{n.Name, what, there, local}}
	}
	// A kubelet leaves out what distributions add to a version.
	name, version, _ := strings.Cut(n.Runtime, "://")
	if name != "containerd" || numbers(version) != numbers(containerd) {
		return &PreflightError{&OtherNodeError{n.Name, "container runtime", n.Runtime, "containerd://" + containerd}}
	}
	return nil
}

// numbers is what a version begins with: its numbers and the dots between them.
func numbers(version string) string {
	version = strings.TrimPrefix(version, "v")
	end := strings.IndexFunc(version, func(r rune) bool { return r != '.' && (r < '0' || r > '9') })
	if end >= 0 {
		version = version[:end]
	}
	return version
}

// differs says in what a node is not this machine, "" where it is. The first thing that both sides
// know decides, since names can be given to nodes, and addresses can be those of another network.
func differs(n *release.Node, here Machine) (what, there, local string) {
	if n.MachineID != "" && here.MachineID != "" {
		if !strings.EqualFold(n.MachineID, here.MachineID) {
			return "machine id", n.MachineID, here.MachineID
		}
		return "", "", ""
	}
	if n.SystemUUID != "" && here.SystemUUID != "" {
		if !strings.EqualFold(n.SystemUUID, here.SystemUUID) {
			return "system uuid", n.SystemUUID, here.SystemUUID
		}
		return "", "", ""
	}
	names := append([]string{n.Name}, n.Hosts...)
	if slices.ContainsFunc(names, func(name string) bool { return strings.EqualFold(name, here.Hostname) }) {
		return "", "", ""
	}
	for _, text := range n.IPs {
		ip := net.ParseIP(text)
		if ip != nil && !ip.IsLoopback() && slices.ContainsFunc(here.IPs, ip.Equal) {
			return "", "", ""
		}
	}
	return "name", n.Name, here.Hostname
}

// Pulled is an image that a kubelet would ask a registry for, though the node has it.
type Pulled struct {
	// Release is "NAMESPACE/RELEASE".
	Release, Object, Path, Image string
	// Implied says that no policy is written: it follows from the tag "latest", or from there being none.
	Implied bool
}

// AlwaysPullError says that pods would not start where there is no registry.
type AlwaysPullError struct{ Places []Pulled }

// Error lists the first of them.
func (e *AlwaysPullError) Error() string {
	lines := []string{"these ask a registry for their image each time they start (imagePullPolicy: Always), and there is none:"}
	for _, p := range e.Places[:min(len(e.Places), maxListed)] {
		why := ""
		if p.Implied {
			why = ", which has no policy, and so this one"
		}
		lines = append(lines, fmt.Sprintf("%s of %s in release %s: %s%s", p.Path, p.Object, p.Release, p.Image, why))
	}
	if n := len(e.Places) - maxListed; n > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", n))
	}
	return strings.Join(lines, "\n  ")
}

// CheckPulls checks that no pod of a plan wants its image to be pulled each time it starts. Errors are
// *PreflightError with an *AlwaysPullError.
func CheckPulls(plans []ReleasePlan) error {
	e := &AlwaysPullError{}
	for i := range plans {
		p := &plans[i]
		pulls, err := chart.Pulls(p.docs)
		if err != nil {
			return err
		}
		for _, pull := range pulls {
			implied := pull.Policy == "" && latest(pull.Image)
			if pull.Policy == "Always" || implied {
				e.Places = append(e.Places, Pulled{p.Namespace + "/" + p.Release, pull.Object, pull.Path, pull.Image, implied})
			}
		}
	}
	if len(e.Places) > 0 {
		return &PreflightError{e}
	}
	return nil
}

// latest reports whether Kubernetes takes the policy Always for an image where none is written.
func latest(image string) bool {
	ref, err := oci.Normalize(image)
	return err == nil && ref.Tag == "latest"
}

// NotLoadedError says that objects would use images that the node does not have.
type NotLoadedError struct {
	Address string
	// Platform is what the node runs.
	Platform string
	Missing  []Reference
}

// Error lists the first of them.
func (e *NotLoadedError) Error() string {
	return fmt.Sprintf("the containerd at %q does not have, for %s, what the releases use:", e.Address, e.Platform) + listReferences(e.Missing)
}

func listReferences(list []Reference) string {
	text := ""
	for _, m := range list[:min(len(list), maxListed)] {
		text += fmt.Sprintf("\n  %s (%s of %s in release %s)", m.Reference, m.Path, m.Object, m.Release)
	}
	if n := len(list) - maxListed; n > 0 {
		text += fmt.Sprintf("\n  and %d more", n)
	}
	return text
}

// CheckLoaded checks that the node has every image that the objects of a plan name, or will have what
// loading would bring. It returns those that the vendor left out, and that the node does not have. Errors
// are *PreflightError with a *NotLoadedError.
func (l *Loading) CheckLoaded(plans []ReleasePlan) (elsewhere []Reference, err error) {
	has := map[string]bool{}
	for name := range l.known {
		has[name] = true
	}
	for _, li := range l.images {
		for _, name := range li.names {
			has[name] = true
		}
	}
	carried := map[string]bool{}
	for _, b := range l.bundles {
		for i := range b.Manifest().Images {
			carried[b.Manifest().Images[i].Source] = true
		}
	}
	var missing []Reference
	for i := range plans {
		p := &plans[i]
		finds, err := chart.Discover(p.docs, nil)
		if err != nil {
			return nil, err
		}
		for _, f := range finds {
			ref, err := oci.Normalize(f.Reference)
			if err != nil {
				continue // it was judged when the plan was made
			}
			r := Reference{f.Reference, p.Namespace + "/" + p.Release, f.Object, f.Path, carried[ref.String()]}
			if ref.Digest != "" {
				ref.Tag = "" // a kubelet looks at the digest only
			}
			switch {
			case has[ref.String()]:
			case r.Carried || !f.Probable && !l.ignored(f.Reference):
				missing = append(missing, r)
			case !f.Probable:
				elsewhere = append(elsewhere, r)
			}
		}
	}
	if len(missing) > 0 {
		return nil, &PreflightError{&NotLoadedError{l.stats.Address, l.stats.Platform, missing}}
	}
	return elsewhere, nil
}

// ignored reports whether the vendor left an image out.
func (l *Loading) ignored(reference string) bool {
	ref, err := oci.Normalize(reference)
	if err != nil {
		return false
	}
	for _, b := range l.bundles {
		if slices.ContainsFunc(b.Manifest().Ignored, func(i manifest.IgnoredImage) bool { return i.Reference == ref.String() }) {
			return true
		}
	}
	return false
}
