package install

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/sealift/sealift/internal/ledger"
	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/internal/release"
	"github.com/sealift/sealift/manifest"
)

// state checks that nobody else is at work, and that no release belongs to somebody else.
func (p *preflight) state(ctx context.Context) []Finding {
	c := check{name: CheckState}
	name := p.in.Bundle.Manifest().Name
	if s := p.in.State; s != nil && s.Open != nil && !p.in.Resume {
		switch s.Condition() {
		case ledger.ConditionStaged:
			c.fail("", "'sealift promote' goes on with it, 'sealift abort' takes it back", "version %s waits to be promoted", s.Open.Receipt.Version)
		case ledger.ConditionPaused:
			c.fail("", "'sealift resume' goes on with it, 'sealift revert' takes it back", "the %s of version %s stopped where it was told to", s.Open.Action, s.Open.Receipt.Version)
		default:
			c.fail("", "'sealift resume' goes on with it, 'sealift revert' takes it back", "the %s of version %s is %s", s.Open.Action, s.Open.Receipt.Version, s.Condition())
		}
	}
	switch holder, alive, err := p.in.Ledger.Watch(ctx, name); {
	case err != nil && !release.IsForbidden(err):
		c.unknown("whether another install is at work", err)
	case alive:
		c.fail("", "wait for it to end", "another install of %s is at work: %s", name, holder)
	case holder != "":
		// It was killed before it had begun anything: its lease is taken once it has run out.
		c.warn("", "'sealift status' says whether it left something", "%s holds the lease of %s, and gives no sign of life", holder, name)
	}
	claimed, err := p.claims(ctx)
	if err != nil {
		c.unknown("which releases belong to other bundles", err)
	}
	for i := range p.in.Plan.Releases {
		plan := &p.in.Plan.Releases[i]
		key := plan.Namespace + "/" + plan.Release
		if other := claimed[key]; other != "" {
			c.fail(key, "one of the two has to be changed by its vendor, or uninstalled first", "bundle %q has a release of this name", other)
			continue
		}
		if plan.From == nil || p.records(plan) {
			continue
		}
		text := fmt.Sprintf("it is there at revision %d (chart %s %s), and no bundle has installed it", plan.From.Revision, plan.From.Chart, plan.From.Version)
		if p.in.Adopt {
			c.warn(key, "", "%s: it is taken over (--adopt)", text)
		} else {
			c.fail(key, "find out who installed it; with --adopt the bundle takes it over, and goes back to this revision when it fails", "%s", text)
		}
	}
	return c.done("nobody else is at work, and no release belongs to others")
}

// records reports whether the state of the bundle knows a release.
func (p *preflight) records(plan *ReleasePlan) bool {
	s := p.in.State
	if s == nil {
		return false
	}
	has := func(r *ledger.Receipt) bool {
		return slices.ContainsFunc(r.Releases, func(r ledger.Release) bool { return r.Namespace == plan.Namespace && r.Name == plan.Release })
	}
	if s.Installed != nil && has(s.Installed) {
		return true
	}
	if s.Open != nil && slices.ContainsFunc(s.Open.Steps, func(t ledger.Step) bool { return t.Namespace == plan.Namespace && t.Release == plan.Release }) {
		return true
	}
	// What was dropped by a version, and is there again.
	return slices.ContainsFunc(s.History, func(r ledger.Receipt) bool { return has(&r) })
}

// claims says which other bundle has a release, "NAMESPACE/RELEASE".
func (p *preflight) claims(ctx context.Context) (map[string]string, error) {
	bundles, err := p.in.Ledger.Bundles(ctx)
	if err != nil {
		return nil, err
	}
	by := map[string]string{}
	var failed error
	for _, name := range bundles {
		if name == p.in.Bundle.Manifest().Name {
			continue
		}
		s, _, err := p.in.Ledger.Read(ctx, name)
		if err != nil || s == nil {
			failed = errors.Join(failed, err)
			continue
		}
		if s.Installed != nil {
			for i := range s.Installed.Releases {
				by[s.Installed.Releases[i].Namespace+"/"+s.Installed.Releases[i].Helm()] = name
				by[s.Installed.Releases[i].Key()] = name
			}
		}
		if s.Open != nil {
			for i := range s.Open.Steps {
				by[s.Open.Steps[i].Key()] = name
			}
		}
	}
	return by, failed
}

// registry checks that the registry can be written to, and that there is room.
func (p *preflight) registry(ctx context.Context) []Finding {
	c := check{name: CheckRegistry}
	seed := p.in.Seed
	if seed == nil {
		seed = &SeedResult{Registry: p.in.Target.String()}
	}
	missing := 0
	for i := range seed.Images {
		if seed.Images[i].Action != ActionPresent {
			missing++
		}
	}
	if p.in.Store == "" {
		path := p.repository()
		repo, err := p.in.Client.Repository(ctx, p.in.Target.Registry, path, true)
		if err == nil {
			err = repo.CheckWritable(ctx)
		}
		switch {
		case err == nil:
		case missing == 0 && seed.UploadedBlobs == 0 && oci.IsDenied(err):
			c.warn("", "the next version will need it", "this account may not write to it, and need not: all images are there")
		case oci.IsDenied(err):
			c.fail("", "give --username and its password, or log in with 'docker login'; the account needs the right to push", "%v", err)
		default:
			c.fail("", "look at the registry, and at what is on the way to it", "%v", err)
		}
	}
	if len(seed.TagMoves) > 0 {
		c.warn("", "'sealift plan' lists them; --move-tags allows it", "%d tags of the registry would be moved", len(seed.TagMoves))
	}
	if free := p.in.Free; free != nil && *free < seed.UploadedBytes {
		c.fail(p.in.Store, "make room on this disk", "%d bytes are to be written, and %d are free", seed.UploadedBytes, *free)
	}
	where := seed.Registry
	if p.in.Store != "" {
		where = "store " + p.in.Store
	}
	return c.done("%s answers and can be written to; %d of %d images are there, %d bytes are to be sent", where, len(seed.Images)-missing, len(seed.Images), seed.UploadedBytes)
}

// repository is one that the bundle is seeded to.
func (p *preflight) repository() string {
	if all, err := roots(p.in.Bundle.Manifest(), p.in.Target, "", map[string]*root{}); err == nil && len(all) > 0 {
		return all[0].path
	}
	return p.in.Target.path("sealift/probe")
}

// probeNamespace is where the pods of the probe run: that of the first release whose namespace is there, since that has the Secrets for
// pulling.
func (p *preflight) probeNamespace() string {
	absent, going, _ := p.seen.Absent()
	for i := range p.intended {
		if n := p.intended[i].Namespace; !slices.Contains(absent, n) && !slices.Contains(going, n) {
			return n
		}
	}
	return "default"
}

// pull has the nodes pull an image.
func (p *preflight) pull(ctx context.Context) []Finding {
	c := check{name: CheckPull}
	if p.seen == nil {
		c.fail("", "run this again when the cluster answers", "not known: the cluster does not say what it serves")
		return c.done("")
	}
	images, missing, err := p.probeImages()
	if err != nil {
		c.unknown("which image is the smallest", err)
		return c.done("")
	}
	if len(images) == 0 {
		advice := "'sealift seed' with the same flags sends them; then run this again"
		if !missing {
			advice = ""
		}
		c.warn("", advice, "the nodes were not asked to pull: no image of the bundle is in the registry yet")
		return c.done("")
	}
	probe := release.Probe{Namespace: p.probeNamespace(), Images: images, Timeout: p.in.ProbeTimeout}
	if len(p.in.Releases) > 0 {
		probe.PullSecrets = p.in.Releases[0].Rendering.PullSecrets
	}
	results, err := p.in.Cluster.Probe(ctx, probe)
	if err != nil {
		c.unknown("whether the nodes can pull", err)
	}
	for _, r := range results {
		switch node := "Node/" + r.Node; {
		case r.Skipped != "":
			c.warn(node, "", "it was not asked to pull: %s", r.Skipped)
		case r.Failure != "":
			c.fail(node, "what the node says tells why: a name that it cannot resolve, a certificate that it does not know (docs/nodes.md), credentials (--pull-secret)", "it cannot pull %s: %s", r.Image, r.Failure)
		}
	}
	return c.done("%d nodes have pulled from the registry", len(results))
}

// probeImages chooses the smallest image that is in the registry for each platform. missing says that there are others.
func (p *preflight) probeImages() (images map[string]string, missing bool, err error) {
	m := p.in.Bundle.Manifest()
	images, size := map[string]string{}, map[string]int64{}
	if p.in.Seed == nil {
		return images, false, nil
	}
	if p.in.ProbeImage != "" {
		for _, platform := range m.Platforms {
			images[nodePlatform(platform)] = p.in.ProbeImage
		}
		return images, false, nil
	}
	there := map[string]string{}
	for i := range p.in.Seed.Images {
		if s := &p.in.Seed.Images[i]; s.Action != ActionSeed {
			there[s.Source] = s.Target
		} else {
			missing = true
		}
	}
	for i := range m.Images {
		image := &m.Images[i]
		target := there[image.Source]
		if target == "" {
			continue
		}
		children := image.Children
		if len(children) == 0 && len(image.Platforms) == 1 {
			children = []manifest.Child{{Digest: image.Digest, MediaType: image.MediaType, Platform: image.Platforms[0]}}
		}
		for _, child := range children {
			n, err := p.weight(child.Digest)
			if err != nil {
				return nil, missing, err
			}
			platform := nodePlatform(child.Platform)
			if images[platform] == "" || n < size[platform] {
				images[platform], size[platform] = target, n
			}
		}
	}
	return images, missing, nil
}

// weight is how many bytes an image manifest leads to.
func (p *preflight) weight(digest string) (int64, error) {
	raw, err := p.in.Bundle.ReadBlob(digest, manifest.MaxOCIManifestBytes)
	if err != nil {
		return 0, err
	}
	image, err := oci.ParseImage(raw)
	if err != nil {
		return 0, err
	}
	n := image.Config.Size
	for _, l := range image.Layers {
		n += l.Size
	}
	return n, nil
}

// nodePlatform is a platform without its variant, which nodes do not tell.
func nodePlatform(platform string) string {
	for i, slashes := 0, 0; i < len(platform); i++ {
		if platform[i] != '/' {
			continue
		}
		if slashes++; slashes == 2 {
			return platform[:i]
		}
	}
	return platform
}
