package install

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/sealift/sealift/internal/release"
	"github.com/sealift/sealift/manifest"
)

// recordVerbs are what the records of Helm, and those of this program, need.
var (
	recordVerbs = []string{"get", "list", "create", "update", "delete"}
	leaseVerbs  = []string{"get", "create", "update", "delete"}
)

const leases = "coordination.k8s.io"

// rights are all that an install needs, each once.
func (p *preflight) rights(ctx context.Context) []release.Right {
	rights := p.seen.Rights(ctx, p.in.Test)
	namespaces := map[string]bool{p.in.Ledger.Namespace(): true}
	for i := range p.intended {
		in := &p.intended[i]
		namespaces[in.Namespace] = true
		if in.Upgrade {
			rights = append(rights, p.seen.RightsOver(ctx, in.Namespace, in.Release)...)
		}
	}
	for i := range p.in.Plan.Dropped {
		if d := &p.in.Plan.Dropped[i]; d.Action == ActionRemove {
			namespaces[d.Namespace] = true
			rights = append(rights, p.seen.RightsOver(ctx, d.Namespace, cmp.Or(d.As, d.Release))...)
		}
	}
	for _, n := range slices.Sorted(maps.Keys(namespaces)) {
		rights = append(rights, release.Rights("", "secrets", n, "for the records of releases", recordVerbs...)...)
		rights = append(rights, release.Rights(leases, "leases", n, "to keep other installs out", leaseVerbs...)...)
		rights = append(rights, release.Right{Verb: "get", Resource: "namespaces", Name: n, Why: "to see that it is there", Optional: true})
	}
	rights = append(rights, release.Right{Verb: "get", Resource: "namespaces", Name: "kube-system", Why: "to know the cluster by its UID"})
	for i := range p.intended {
		rights = append(rights, diagnosis(p.intended[i].Namespace)...)
	}
	for _, r := range p.in.Releases {
		rights = append(rights, ofChecks(r)...)
		rights = append(rights, ofRollout(r)...)
		for _, name := range slices.Sorted(maps.Keys(r.reads)) {
			key := r.reads[name]
			rights = append(rights, release.Right{Verb: "get", Resource: "secrets", Namespace: key.Namespace, Name: key.Name, Why: fmt.Sprintf("for parameter %s (--set-secret)", name)})
		}
	}
	if len(p.missing()) > 0 {
		rights = append(rights, release.Right{Verb: "create", Resource: "namespaces", Why: "to create " + strings.Join(p.missing(), ", ")})
	}
	nodes := release.Rights("", "nodes", "", "to compare what the nodes have with what is needed", "list")
	nodes = append(nodes, release.Rights("", "pods", "", "to see what of the nodes is in use", "list")...)
	nodes = append(nodes, release.Rights("storage.k8s.io", "storageclasses", "", "to see that volumes can be made", "list")...)
	for i := range nodes {
		nodes[i].Optional = !p.in.ProbeNodes || nodes[i].Resource != "nodes"
	}
	rights = append(rights, nodes...)
	if p.in.ProbeNodes {
		rights = append(rights, release.Rights("", "pods", p.probeNamespace(), "for the probe of the nodes", "create", "list", "delete")...)
	}
	return release.MergeRights(rights)
}

// diagnosis are the rights by which it can be said why something does not become ready.
func diagnosis(namespace string) []release.Right {
	const why = "to say why something is not ready"
	rights := slices.Concat(
		release.Rights("", "pods", namespace, why, "list"), release.Rights("", "events", namespace, why, "list"), release.Rights("", "pods/log", namespace, why, "get"),
		release.Rights("apps", "replicasets", namespace, why, "list"), release.Rights("batch", "jobs", namespace, why, "list"),
		release.Rights("", "persistentvolumeclaims", namespace, why, "list"), release.Rights("", "resourcequotas", namespace, "to see what is left of quotas", "list"),
		release.Rights("", "limitranges", namespace, "to see what is left of quotas", "list"),
	)
	for i := range rights {
		rights[i].Optional = true
	}
	return rights
}

// ofChecks are the rights for the health checks of a release.
func ofChecks(r *Release) []release.Right {
	var rights []release.Right
	for i := range r.Spec.Checks {
		c := &r.Spec.Checks[i]
		why := fmt.Sprintf("for check %s of release %s/%s", c.Name, r.Namespace, r.Name)
		switch {
		case c.HTTP != nil:
			rights = append(rights, release.Rights("", "services", r.Namespace, why, "get")...)
			rights = append(rights, release.Rights("", "services/proxy", r.Namespace, why, "get")...)
		case c.TCP != nil:
			rights = append(rights, release.Rights("", "services", r.Namespace, why, "get")...)
			rights = append(rights, release.Rights("discovery.k8s.io", "endpointslices", r.Namespace, why, "list")...)
		case c.Job != nil:
			rights = append(rights, release.Rights("batch", "jobs", r.Namespace, why, "get", "list", "watch", "create", "patch", "delete")...)
		}
	}
	return rights
}

// ofRollout are the rights for a front that leads to a release.
func ofRollout(r *Release) []release.Right {
	if r.Spec.Rollout == nil {
		return nil
	}
	why := fmt.Sprintf("for the front of release %s/%s", r.Namespace, r.Name)
	rights := release.Rights("", "services", r.Namespace, why, "get", "create", "patch", "delete")
	rights = append(rights, release.Rights("", "pods", r.Namespace, why, "list")...)
	rights = append(rights, release.Rights("discovery.k8s.io", "endpointslices", r.Namespace, why, "list")...)
	if r.Spec.Rollout.Front.Kind == manifest.FrontHTTPRoute {
		rights = append(rights, release.Rights("gateway.networking.k8s.io", "httproutes", r.Namespace, why, "get", "create", "patch", "delete")...)
	}
	if r.Spec.Rollout.Strategy == manifest.RolloutCanary {
		rights = append(rights, release.Rights("apps", "deployments", r.Namespace, why, "get", "list", "patch")...)
		rights = append(rights, release.Rights("autoscaling", "horizontalpodautoscalers", r.Namespace, why, "list")...)
	}
	return rights
}

// missing are the namespaces that this program creates: those of releases, and that of its records.
func (p *preflight) missing() []string {
	absent, _, _ := p.seen.Absent()
	return slices.DeleteFunc(absent, func(name string) bool { return p.seen.Made(name) && !p.own(name) })
}

// own reports whether a namespace is that of a release, or of the records: it is created before any object is.
func (p *preflight) own(name string) bool {
	return name == p.in.Ledger.Namespace() || slices.ContainsFunc(p.intended, func(in release.Intended) bool { return in.Namespace == name })
}

// access checks the rights, and then, with what it is allowed to, tries the objects.
func (p *preflight) access(ctx context.Context) []Finding {
	c := check{name: CheckPermissions}
	rights := p.rights(ctx)
	lacking, err := p.in.Cluster.Lacks(ctx, rights)
	if err != nil {
		c.unknown("what this account may do", err)
	}
	// Verbs of one resource stand in one line.
	type place struct{ what, why string }
	verbs := map[place][]string{}
	var order []place
	optional := map[place]bool{}
	for _, r := range lacking {
		_, what, _ := strings.Cut(r.String(), " ")
		at := place{what, r.Why}
		if verbs[at] == nil {
			order = append(order, at)
			optional[at] = true
		}
		verbs[at] = append(verbs[at], r.Verb)
		optional[at] = optional[at] && r.Optional
	}
	for _, at := range order {
		text := fmt.Sprintf("this account may not %s %s: %s", strings.Join(verbs[at], ", "), at.what, at.why)
		advice := "have it granted: 'sealift preflight --print-rbac' prints all that an install needs"
		if strings.HasPrefix(at.why, "because ") {
			advice += "; nobody may give others what he has not got, unless he may escalate or bind roles"
		}
		if optional[at] {
			c.warn("", advice, "%s", text)
		} else {
			c.fail("", advice, "%s", text)
		}
	}
	return slices.Concat(c.done("this account may do all that an install needs (%d rights)", len(rights)), p.try(ctx, lacking))
}

// PrintRBAC writes, as YAML, the least that an account has to be given so that it can install: see release.PrintRBAC. Errors are those of
// Preflight.
func PrintRBAC(ctx context.Context, in PreflightInput, account release.Account) ([]byte, error) {
	if in.Cluster == nil {
		return nil, errors.New("the bundle needs no cluster, and so no rights in one")
	}
	p := &preflight{in: in, intended: intended(in)}
	var err error
	if p.seen, err = in.Cluster.Inspect(ctx, p.intended, in.Ledger.Namespace(), account.Namespace); err != nil {
		return nil, err
	}
	rights := p.rights(ctx)
	missing := p.missing()
	if len(missing) > 0 {
		// They are printed, and whoever creates them saves the account the right to create any.
		rights = slices.DeleteFunc(rights, func(r release.Right) bool {
			return r.Resource == "namespaces" && r.Group == "" && r.Verb == "create" && r.Why == "to create "+strings.Join(missing, ", ")
		})
	}
	return release.PrintRBAC(rights, account, "sealift-"+in.Bundle.Manifest().Name, missing)
}
