package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/sealift/sealift/install"
	"github.com/sealift/sealift/internal/ledger"
	"github.com/sealift/sealift/internal/release"
	"github.com/sealift/sealift/verify"
)

// installing is an install that has been made ready: all that can be known before anything is changed. Preflight, plan and
// install begin with it.
type installing struct {
	target *target
	trust  *trusting
	bundle *verify.Bundle
	accept install.AcceptOptions
	// cluster and ledger are nil where the bundle needs no cluster, or a dry run names none.
	cluster *release.Cluster
	ledger  *release.Ledger
	// state is what the cluster knows of the bundle; nil for nothing.
	state      *ledger.State
	seeding    *install.Seeding
	preview    *install.SeedResult
	site       install.Site
	releases   []*install.Release
	parameters []install.Said
	plan       *install.Plan
}

// connect connects to the cluster, and takes over what it knows to have been accepted: before the bundle is judged by that. An error
// counts only where the bundle turns out to need a cluster.
func (p *installing) connect(ctx context.Context, a *app, f *installFlags) (err error) {
	if f.dryRun && (f.unasked || a.findKubeconfig(f.kubeconfig) == "") {
		return nil
	}
	if p.cluster, err = a.connect(&f.clusterFlags); err != nil {
		return err
	}
	p.ledger = p.cluster.Ledger(f.records)
	return a.catchUp(ctx, p.trust, p.ledger, !f.dryRun)
}

// know reads what the cluster knows of the bundle, if that needs a cluster.
func (p *installing) know(ctx context.Context, a *app, f *installFlags, failed error) (err error) {
	if len(p.bundle.Manifest().Charts) == 0 {
		p.cluster, p.ledger = nil, nil
		return nil
	}
	if failed != nil || p.cluster == nil {
		return failed
	}
	name := p.bundle.Manifest().Name
	if p.state, _, err = p.ledger.Read(ctx, name); err != nil || p.state == nil || p.state.Open == nil {
		return err
	}
	// What would be planned is not what would be there.
	return install.CheckOpen(ctx, name, a.transact(&f.clusterFlags, p.cluster))
}

// prepareInstall opens the bundle, looks at cluster and registry, and plans. The caller calls done at the end of a function
// that returns *err, also where there is an error here.
func (a *app) prepareInstall(cmd *cobra.Command, args []string, f *installFlags) (_ *installing, done func(err *error), err error) {
	var closers []func(*error)
	done = func(err *error) {
		for i := len(closers) - 1; i >= 0; i-- {
			closers[i](err)
		}
	}
	p := &installing{}
	if err := f.check(cmd); err != nil {
		return nil, done, err
	}
	ctx := cmd.Context()
	if p.target, err = f.target(a, cmd, a.reporter()); err != nil {
		return nil, done, err
	}
	closers = append(closers, p.target.done)
	if p.target.named.placeholder {
		return nil, done, errOnlyStore(cmd)
	}
	words, err := f.speak(a, cmd)
	if err != nil {
		return nil, done, err
	}
	if p.trust, err = a.trusting(cmd, &f.trust); err != nil {
		return nil, done, err
	}
	failed := p.connect(ctx, a, f)
	b, closeBundle, err := a.open(cmd, args, p.trust.policy)
	if err != nil {
		return nil, done, err
	}
	closers = append(closers, closeBundle)
	p.bundle = b
	if err := p.know(ctx, a, f, failed); err != nil {
		return nil, done, err
	}
	if p.site, err = words.site(a, b.Manifest(), p.target.Target); err != nil {
		return nil, done, err
	}
	a.warn([]*verify.Bundle{b})
	if p.accept, err = a.acceptOptions(p.trust, "install", p.target.String()); err != nil && !f.dryRun {
		return nil, done, err
	}
	if err := words.over(ctx, a, p); err != nil {
		return nil, done, err
	}
	if err := p.autoscaled(ctx); err != nil {
		return nil, done, err
	}
	if p.seeding, err = p.target.prepare(ctx, []*verify.Bundle{b}); err != nil {
		return nil, done, err
	}
	// What would fail in the cluster for sure is found before hours of seeding.
	p.preview = p.seeding.Preview()
	if p.releases, err = install.Releases(b, p.preview.Images, p.site); err != nil {
		return nil, done, err
	}
	for _, r := range p.releases {
		a.warnings(r.Warnings)
	}
	if p.parameters, err = p.site.Say(b.Manifest()); err != nil {
		return nil, done, err
	}
	if err := p.makePlan(ctx, a, f); err != nil {
		return nil, done, err
	}
	if err := install.CheckNames(p.plan.Releases, b.Manifest(), p.target.Target); err != nil {
		return nil, done, err
	}
	return p, done, nil
}

// makePlan decides under which names releases are installed, and plans.
func (p *installing) makePlan(ctx context.Context, a *app, f *installFlags) (err error) {
	if err := install.ChooseColours(p.releases, p.state); err != nil {
		return err
	}
	if err := install.CheckRollouts(ctx, p.releases, p.state, p.cluster); err != nil {
		return err
	}
	p.plan, err = install.MakePlan(ctx, install.PlanInput{
		Bundle: p.bundle, Releases: p.releases, Cluster: p.cluster, State: p.state, Seed: p.preview, Target: p.site.Target,
		Environment: p.site.Chosen(), Parameters: p.parameters, RemoveDropped: f.removeDropped, Test: f.test,
		TakeOver: f.run.takeOver, Adopt: f.run.adopt,
		Programs: a.programs(f, p.site.Target.Registry), Hide: a.hide,
	})
	return err
}

// autoscaled finds out whose number of replicas is an autoscaler's to say.
func (p *installing) autoscaled(ctx context.Context) (err error) {
	if p.cluster != nil {
		p.site.Rendering.Autoscaled, err = autoscaled(ctx, p.cluster, p.bundle)
	}
	return err
}

// autoscaled lists what autoscalers of the cluster scale in the namespaces of a bundle, as "NAMESPACE/KIND/NAME". Who may not list them
// is taken to have none.
func autoscaled(ctx context.Context, cluster *release.Cluster, b *verify.Bundle) (map[string]bool, error) {
	all := map[string]bool{}
	seen := map[string]bool{}
	for i := range b.Manifest().Charts {
		namespace := b.Manifest().Charts[i].Namespace
		if seen[namespace] {
			continue
		}
		seen[namespace] = true
		found, err := cluster.Autoscaled(ctx, namespace)
		if err != nil && release.Forbidden(err) == nil {
			return nil, err
		}
		for name := range found {
			all[namespace+"/"+name] = true
		}
	}
	return all, nil
}
