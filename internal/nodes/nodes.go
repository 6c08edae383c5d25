// Package nodes writes the configuration by which container runtimes find in the site's registry what
// is called after other registries, so that no reference has to be rewritten.
//
// All of it is written so that a miss stays inside the site: what the site's registry does not have is
// not asked for anywhere else, where the runtime can be told so.
package nodes

import (
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Format is whose configuration is written.
type Format string

// Formats.
const (
	// Containerd is for containerd 1.5 and later: hosts.toml files below config_path.
	Containerd Format = "containerd"
	// K3s and RKE2 are registries.yaml, from which these two configure their containerd.
	K3s  Format = "k3s"
	RKE2 Format = "rke2"
	// CRIO and Podman are a drop-in for containers-registries.conf(5), version 2.
	CRIO   Format = "crio"
	Podman Format = "podman"
	// OpenShift is an ImageDigestMirrorSet and an ImageTagMirrorSet, for OpenShift 4.13 and later.
	OpenShift Format = "openshift"
)

var formats = []Format{Containerd, K3s, RKE2, CRIO, Podman, OpenShift}

// ParseFormat reads the name of a format.
func ParseFormat(text string) (Format, error) {
	if f := Format(text); slices.Contains(formats, f) {
		return f, nil
	}
	return "", fmt.Errorf("format %q is none of containerd, k3s, rke2, crio, podman, openshift", text)
}

// Directory is where nodes look for the files of the format; "" where an API server takes them.
func (f Format) Directory() string {
	switch f {
	case Containerd:
		return "/etc/containerd/certs.d"
	case K3s:
		return "/etc/rancher/k3s"
	case RKE2:
		return "/etc/rancher/rke2"
	case CRIO, Podman:
		return "/etc/containers"
	default:
		return ""
	}
}

// Endpoint is the site's registry as nodes reach it.
type Endpoint struct {
	// Host is a host, or host:port.
	Host string
	// PlainHTTP says that it is spoken to without TLS.
	PlainHTTP bool
	// CA says that the certificate authority that it is trusted by is put beside the configuration.
	CA bool
}

// url is the address of the registry, or that of its API for what is below a path.
func (e Endpoint) url(below string) string {
	u := "https://"
	if e.PlainHTTP {
		u = "http://"
	}
	u += e.Host
	if below != "" {
		u += "/v2/" + below
	}
	return u
}

// Place says where a repository of another registry is in the site's.
type Place struct {
	// Registry is the other one, a host or host:port; Repository the path there.
	Registry, Repository string
	// Path is that at the site.
	Path string
}

// route leads all that is called after a part of a registry to a part of the site's.
type route struct {
	// registry is the other one; repository is a path there, of a repository or of several below it,
	// "" for the whole registry.
	registry, repository string
	to                   Endpoint
	// path is what stands at the site for the registry and the repository; it may be "".
	path string
	// bundles are the names of those that need it.
	bundles []string
}

// source is the left side of the route as references have it.
func (r *route) source() string { return join(r.registry, r.repository) }

// location is the right side of the route as references have it.
func (r *route) location() string { return join(r.to.Host, r.path) }

func join(host, below string) string { return strings.TrimSuffix(host+"/"+below, "/") }

// Mirrors are routes, and the bundles that they are for.
type Mirrors struct {
	// bundles are versions by name.
	bundles map[string]string
	routes  []route
}

// Prefix is what comes before the paths of a registry at the site; it may be empty.
type Prefix struct {
	Path string
	// All says that every path of the registry gets it; else some of them, by rules of the site's own,
	// get other names.
	All bool
}

// New returns the mirrors that a bundle needs, of which places are the repositories, in the registry
// to. What keeps its name needs none. prefixes are by registry, of those whose paths stay as they are
// at the site but for a prefix, whichever of them bundles have. Errors are *FormatError.
func New(f Format, name, version string, places []Place, prefixes map[string]Prefix, to Endpoint) (*Mirrors, error) {
	m := &Mirrors{bundles: map[string]string{name: version}}
	byRegistry := map[string][]Place{}
	for _, p := range places {
		byRegistry[p.Registry] = append(byRegistry[p.Registry], p)
	}
	for _, registry := range slices.Sorted(maps.Keys(byRegistry)) {
		list := byRegistry[registry]
		if registry == to.Host {
			if i := slices.IndexFunc(list, func(p Place) bool { return p.Repository != p.Path }); i >= 0 {
				return nil, &FormatError{f, join(registry, list[i].Repository), join(registry, list[i].Path), "what leads there would lead the site's own references away"}
			}
			continue
		}
		prefix, ok := prefixes[registry]
		for _, r := range routes(f, list, prefix, ok) {
			r.to, r.bundles = to, []string{name}
			m.routes = append(m.routes, r)
		}
	}
	return m, m.check()
}

// routes lead the places of one registry to the site: one for all of them where its paths only get a
// prefix, known says whether they do. What is true of the places of one bundle alone does not count:
// another one that has the same names may have other places. The nodes of OpenShift have the
// platform's own images, which may come from other namespaces of the same registry: there it is one
// for each namespace.
func routes(f Format, places []Place, prefix Prefix, known bool) []route {
	ok := known
	for _, p := range places {
		other, alike := prefixOf(p)
		ok = ok && alike && other == prefix.Path
	}
	// containerd knows whole registries only. What its rules call otherwise cannot be had then, and
	// is refused with the bundle that has it.
	if ok && (prefix.All && f != OpenShift || f == Containerd) {
		return []route{{registry: places[0].Registry, path: prefix.Path}}
	}
	byPath := map[string]route{}
	for _, p := range places {
		r := route{registry: p.Registry, repository: p.Repository, path: p.Path}
		if dir := path.Dir(p.Repository); ok && prefix.All && dir != "." {
			r.repository, r.path = dir, strings.TrimPrefix(prefix.Path+"/"+dir, "/")
		}
		byPath[r.repository+" "+r.path] = r
	}
	var list []route
	for _, key := range slices.Sorted(maps.Keys(byPath)) {
		list = append(list, byPath[key])
	}
	return list
}

// prefixOf is what comes before the path of a place at the site; ok says that the path itself stays.
func prefixOf(p Place) (prefix string, ok bool) {
	if p.Path == p.Repository {
		return "", true
	}
	return strings.CutSuffix(p.Path, "/"+p.Repository)
}

var (
	hostPattern = regexp.MustCompile(`\A(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?\z`)
	pathPattern = regexp.MustCompile(`\A[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*\z`)
	wordPattern = regexp.MustCompile(`\A[0-9A-Za-z.+_-]+\z`)
)

// check holds what goes into files to what registries and paths are made of, sorts it, and refuses
// what leads to two places.
func (m *Mirrors) check() error {
	for name, version := range m.bundles {
		if !wordPattern.MatchString(name) || !wordPattern.MatchString(version) {
			return fmt.Errorf("%q %q is no name and version of a bundle", name, version)
		}
	}
	slices.SortFunc(m.routes, func(a, b route) int { return strings.Compare(a.source(), b.source()) })
	for i, r := range m.routes {
		if !hostPattern.MatchString(r.registry) || !hostPattern.MatchString(r.to.Host) {
			return fmt.Errorf("%q or %q is no registry", r.registry, r.to.Host)
		}
		for _, p := range []string{r.repository, r.path} {
			if p != "" && !pathPattern.MatchString(p) {
				return fmt.Errorf("%q is no path of a registry", p)
			}
		}
		if r.repository != "" && r.path == "" {
			return fmt.Errorf("%q has no path at the site", r.source())
		}
		if i > 0 && m.routes[i-1].source() == r.source() {
			return &ConflictError{r.source(), m.routes[i-1].to.url(m.routes[i-1].path), r.to.url(r.path), m.routes[i-1].bundles}
		}
	}
	return nil
}

// ConflictError says that one registry or repository would lead to two places.
type ConflictError struct {
	Source, First, Second string
	// Others are the names of bundles besides those that lead to the second one, that may need the
	// first.
	Others []string
}

// Error names all three.
func (e *ConflictError) Error() string {
	return fmt.Sprintf("%q leads to %s and cannot lead to %s too", e.Source, e.First, e.Second)
}

// Merge returns the routes of both. Of a bundle that both are for the version of o counts. With
// replace, what leads elsewhere in m leads to where o says, and the bundles of m that needed that, and
// are not in o, are left out. Errors are *ConflictError.
func (m *Mirrors) Merge(o *Mirrors, replace bool) (*Mirrors, error) {
	all := &Mirrors{bundles: maps.Clone(m.bundles)}
	newer := map[string]route{}
	for _, r := range o.routes {
		newer[r.source()] = r
	}
	var lost []string
	for _, r := range m.routes {
		n, ok := newer[r.source()]
		if !ok || n.leadsAs(r) {
			continue
		}
		others := without(r.bundles, n.bundles)
		if !replace {
			return nil, &ConflictError{r.source(), r.to.url(r.path), n.to.url(n.path), others}
		}
		lost = append(lost, others...)
	}
	for _, name := range lost {
		delete(all.bundles, name)
	}
	maps.Copy(all.bundles, o.bundles)
	for _, r := range m.routes {
		r.bundles = without(r.bundles, lost)
		n, ok := newer[r.source()]
		if !ok {
			all.routes = append(all.routes, r)
			continue
		}
		same := n.leadsAs(r)
		// The certificate stays where it is.
		n.to.CA = n.to.CA || same && r.to.CA && !n.to.PlainHTTP
		n.bundles = union(r.bundles, n.bundles)
		newer[r.source()] = n
	}
	for _, r := range newer {
		all.routes = append(all.routes, r)
	}
	return all, all.check()
}

// leadsAs reports whether both lead to the same place.
func (r *route) leadsAs(o route) bool { return r.path == o.path && r.to.Host == o.to.Host }

// without is a without what is in b.
func without(a, b []string) []string {
	var left []string
	for _, name := range a {
		if !slices.Contains(b, name) {
			left = append(left, name)
		}
	}
	return left
}

func union(a, b []string) []string {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}

// only are the routes of some registries, and the bundles that need these.
func (m *Mirrors) only(registries ...string) *Mirrors {
	part := &Mirrors{bundles: map[string]string{}}
	for _, r := range m.routes {
		if slices.Contains(registries, r.registry) {
			part.routes = append(part.routes, r)
			for _, name := range r.bundles {
				part.bundles[name] = m.bundles[name]
			}
		}
	}
	return part
}

// registries are the other ones, in their order.
func (m *Mirrors) registries() []string {
	var list []string
	for _, r := range m.routes {
		list = append(list, r.registry)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// endpoints are the site's, in the order of their hosts.
func (m *Mirrors) endpoints() []Endpoint {
	byHost := map[string]Endpoint{}
	for _, r := range m.routes {
		e := r.to
		e.CA = e.CA || byHost[e.Host].CA
		byHost[e.Host] = e
	}
	var list []Endpoint
	for _, host := range slices.Sorted(maps.Keys(byHost)) {
		list = append(list, byHost[host])
	}
	return list
}

// FormatError says that a format cannot lead a registry, or a repository, to where it is at the site.
type FormatError struct {
	Format Format
	// Source is the registry or repository, Target what it is called at the site.
	Source, Target string
	Why            string
}

// Error names all of them.
func (e *FormatError) Error() string {
	return fmt.Sprintf("%s cannot lead %q to %q: %s", e.Format, e.Source, e.Target, e.Why)
}

// whole is the one route of a registry, for formats that only put a prefix before all paths.
func (m *Mirrors) whole(f Format, registry string) (route, error) {
	list := m.only(registry).routes
	if i := slices.IndexFunc(list, func(r route) bool { return r.repository != "" }); i >= 0 {
		return route{}, &FormatError{f, list[i].source(), list[i].location(), "it can put a prefix before the paths of a registry, but cannot change single ones"}
	}
	return list[0], nil
}

// hub are the names of Docker Hub. Runtimes make the first one of references that name no registry,
// and of those that name the second; the last is what its server is called. Whoever uses containerd
// without Kubernetes may ask for any of them.
var hub = []string{"docker.io", "index.docker.io", "registry-1.docker.io"}

// names are those under which the routes of a registry have to be found.
func (m *Mirrors) names(registry string) []string {
	if registry != hub[0] {
		return []string{registry}
	}
	known := m.registries()
	return slices.DeleteFunc(slices.Clone(hub), func(name string) bool { return name != registry && slices.Contains(known, name) })
}

// File is a file of a configuration.
type File struct {
	// Path is relative to Format.Directory, with slashes.
	Path    string `json:"path"`
	Content string `json:"content"`
}

// Authority is the certificate authority by which a registry of the site is trusted.
type Authority struct {
	// Host is the registry's, PEM its certificates.
	Host, PEM string
}

// Render writes the files of a format, and notes about what else is to be done. The certificates of
// ca are written for the registry that they are for, where routes say that it needs them. Errors are
// *FormatError.
func Render(f Format, m *Mirrors, ca Authority) (files []File, notes []string, err error) {
	if len(m.routes) == 0 {
		return nil, []string{"nothing in there is called after another registry: nodes need nothing"}, nil
	}
	switch f {
	case Containerd:
		files, err = containerd(m, ca)
		return files, containerdNotes(), err
	case K3s, RKE2:
		files, err = rancher(f, m, ca)
		return files, rancherNotes(f, m), err
	case CRIO, Podman:
		return registriesConf(m, ca), registriesNotes(f), nil
	case OpenShift:
		files, err = openShift(m, ca)
		return files, openShiftNotes(m, ca), err
	default:
		return nil, nil, fmt.Errorf("no format %q", f)
	}
}

// quoted is a text as TOML's basic strings and YAML's double-quoted ones have it: what goes into it is
// made of the characters of registries and paths.
func quoted(text string) string { return strconv.Quote(text) }
