package install

import (
	"context"
	"fmt"
	"slices"

	"github.com/sealift/sealift/internal/chart"
	"github.com/sealift/sealift/internal/ledger"
	"github.com/sealift/sealift/internal/release"
	"github.com/sealift/sealift/manifest"
	"github.com/sealift/sealift/verify"
)

// PlanMediaType is the first member of every plan.
const PlanMediaType = "application/vnd.sealift.plan.v1+json"

// Actions of a ReleasePlan. The others are release.ActionInstall and release.ActionUpgrade.
const (
	// ActionEither: no cluster was asked.
	ActionEither = "install or upgrade"
	// ActionLeave: chart, values and objects are those that are deployed, and nothing has been changed since; it is not
	// touched.
	ActionLeave = "leave"
)

// Actions of a DroppedRelease.
const (
	// ActionKeep: the release stays, and the bundle does not look after it any more.
	ActionKeep = "keep"
	// ActionRemove: it is uninstalled, what holds data stays.
	ActionRemove = "remove"
)

// Plan is what an install would do, computed without changing anything. It holds no secrets, and nothing that is made of
// them.
type Plan struct {
	MediaType string `json:"mediaType"`
	Bundle    string `json:"bundle"`
	Version   string `json:"version"`
	// Manifest is the digest of the bundle's manifest.
	Manifest string `json:"manifest"`

	// Cluster is its UID, Kubernetes its version; empty where none was asked.
	Cluster    string `json:"cluster,omitempty"`
	Kubernetes string `json:"kubernetes,omitempty"`
	// Registry is where the images will be, as HOST[/PREFIX]; empty where the nodes get them otherwise. Rendering says how
	// objects are changed.
	Registry  string         `json:"registry,omitempty"`
	Rendering *RenderingPlan `json:"rendering,omitempty"`
	// Environment and Parameters are what the site says; secret ones without their values.
	Environment string `json:"environment,omitempty"`
	Parameters  []Said `json:"parameters"`
	// Replaces is the version that is installed, empty for none; Serial counts the changes of what the cluster knows about
	// the bundle.
	Replaces      string `json:"replaces,omitempty"`
	Serial        int64  `json:"serial"`
	RemoveDropped bool   `json:"removeDropped,omitempty"`
	// Test says that the tests of charts are run; TakeOver and Adopt that fields, releases and objects of others are taken.
	Test     bool `json:"test,omitempty"`
	TakeOver bool `json:"takeOver,omitempty"`
	Adopt    bool `json:"adopt,omitempty"`

	// Seed is what would be sent to the registry; nil where there is none.
	Seed *SeedResult `json:"seed,omitempty"`
	// Releases in the order in which they are begun.
	Releases []ReleasePlan `json:"releases"`
	// Dropped are releases that the version before had and this one has not.
	Dropped []DroppedRelease `json:"dropped"`
	// Mentions are places of the objects that name a registry other than the site's.
	Mentions []MentionPlan `json:"mentions"`
	// Programs are foreign programs that are run.
	Programs []string `json:"programs"`
	// Steps in the order in which they are begun, each with its way back.
	Steps []PlannedStep `json:"steps"`
}

// RenderingPlan is Rendering as a plan has it.
type RenderingPlan struct {
	Pin         Pin      `json:"pin"`
	NoRewrite   bool     `json:"noRewrite,omitempty"`
	PullSecrets []string `json:"pullSecrets,omitempty"`
	ConfigMaps  []string `json:"configMaps,omitempty"`
}

// ReleasePlan is what an install would do with one release.
type ReleasePlan struct {
	Release   string `json:"release"`
	Namespace string `json:"namespace"`
	// As is the name under which Helm has it, where that is another.
	As      string `json:"as,omitempty"`
	Chart   string `json:"chart"`
	Version string `json:"version"`
	// Action is release.ActionInstall, release.ActionUpgrade, ActionLeave or ActionEither.
	Action string `json:"action"`
	// From is the revision that a failure would go back to.
	From *release.State `json:"from,omitempty"`
	// AsFirst says that the chart does not render for an upgrade without looking at the cluster, so
	// that the objects are those of a first installation.
	AsFirst bool `json:"asFirst,omitempty"`
	// Objects are the rewritten objects, as YAML documents, without what Secrets hold and what is drawn at random. A plan that
	// is kept need not have them: Digest binds it to them.
	Objects string `json:"objects,omitempty"`
	// Digest is that of Objects, see chart.Settle.
	Digest string `json:"digest"`
	// Left are the fields that are left out of Objects and Digest.
	Left []chart.Left `json:"left"`
	// Changes compare what is in the cluster with what would be there.
	Changes []ObjectPlan `json:"changes"`
	// MoreChanges is how many objects change beyond those.
	MoreChanges int `json:"moreChanges,omitempty"`
	// Definitions are the custom resource definitions that are created or changed.
	Definitions []DefinitionPlan `json:"definitions"`
	// Images that change, and those that come with new objects.
	Images []ImagePlan `json:"images"`
	// Hooks are those that run, as "pre-upgrade Job/NAME".
	Hooks []string `json:"hooks"`
	// Backup and Restore are the Jobs that run before, and on the way back.
	Backup  []string `json:"backup,omitempty"`
	Restore []string `json:"restore,omitempty"`
	// Impact is what happens to pods.
	Impact []ImpactPlan `json:"impact"`
	// NoReturn are the reasons for which there is no way back once the release was begun.
	NoReturn []string `json:"noReturn"`
	// Notes are for people.
	Notes []string `json:"notes"`

	// docs are all objects as they are, parts the same by what is done with them.
	docs  []byte
	parts rendered
	// spec is what the vendor says of the release; nil where a plan was read.
	spec *manifest.Chart
}

// Key is "NAMESPACE/RELEASE".
func (p *ReleasePlan) Key() string { return p.Namespace + "/" + p.Release }

// Changed reports whether the release is touched.
func (p *ReleasePlan) Changed() bool { return p.Action != ActionLeave }

// Bases of an ObjectPlan.
const (
	// AgainstLive: the cluster has said what an apply would change.
	AgainstLive = "live"
	// AgainstRecorded: what is rendered was compared with what was rendered for the revision before.
	AgainstRecorded = "recorded"
)

// ObjectPlan is an object that changes.
type ObjectPlan struct {
	chart.ObjectChange
	// Against is AgainstLive or AgainstRecorded, and empty where there was nothing to compare with.
	Against string `json:"against,omitempty"`
	// Why says why the cluster could not tell.
	Why string `json:"why,omitempty"`
	// Stays says of a removed object that it is left in the cluster.
	Stays bool `json:"stays,omitempty"`
}

// DefinitionPlan is a custom resource definition that changes.
type DefinitionPlan struct {
	Name string `json:"name"`
	// Action is chart.ObjectAdded or chart.ObjectChanged.
	Action string `json:"action"`
	// Added and Removed are versions.
	Added   []string `json:"added"`
	Removed []string `json:"removed"`
	// StorageWas and Storage are the versions in which objects are kept, where they differ.
	StorageWas string `json:"storageWas,omitempty"`
	Storage    string `json:"storage,omitempty"`
}

// ImagePlan is an image that a release uses anew, and what it used in that place before.
type ImagePlan struct {
	Was string `json:"was,omitempty"`
	Is  string `json:"is"`
	// Objects are where, "KIND/NAME".
	Objects []string `json:"objects"`
}

// Effects of an ImpactPlan.
const (
	EffectStart   = "start"
	EffectReplace = "replace"
	EffectRemove  = "remove"
	EffectScale   = "scale"
)

// ImpactPlan is what happens to the pods of a workload.
type ImpactPlan struct {
	Object string `json:"object"`
	// Effect is EffectStart, EffectReplace, EffectRemove or EffectScale.
	Effect string `json:"effect"`
	// Pods is how many there are to be now; for EffectStart and EffectScale, afterwards.
	Pods int `json:"pods"`
}

// DroppedRelease is a release that the version before had, and this one has not.
type DroppedRelease struct {
	Release   string `json:"release"`
	Namespace string `json:"namespace"`
	As        string `json:"as,omitempty"`
	Chart     string `json:"chart"`
	Version   string `json:"version"`
	Revision  int    `json:"revision"`
	// Action is ActionKeep or ActionRemove.
	Action string `json:"action"`
}

// MentionPlan is a place that names a registry other than the site's.
type MentionPlan struct {
	Release string `json:"release"` // "NAMESPACE/NAME"
	Object  string `json:"object"`
	Path    string `json:"path"`
	// Reference is the image that is named, or the host.
	Reference string `json:"reference"`
	// Carried says that the bundle has the image.
	Carried bool `json:"carried,omitempty"`
}

// PlannedStep is a step of the install, with its way back.
type PlannedStep struct {
	// Kind is one of ledger.StepCRDs and so on.
	Kind string `json:"kind"`
	// Release is "NAMESPACE/NAME".
	Release string `json:"release"`
	// After are the indexes of steps that have to be done before.
	After []int `json:"after"`
	// Do and Back are for people; Back is empty where nothing is to be taken back.
	Do   string `json:"do"`
	Back string `json:"back,omitempty"`
	// Hold says that '--until RELEASE' stops after it.
	Hold bool `json:"hold,omitempty"`
	// NoReturn are the reasons for which nothing goes back once it was begun.
	NoReturn []string `json:"noReturn"`
}

// PlanInput is what a plan is made from.
type PlanInput struct {
	Bundle   *verify.Bundle
	Releases []*Release
	// Cluster is nil where none is asked; State is what it knows of the bundle, nil for nothing.
	Cluster *release.Cluster
	State   *ledger.State
	// Seed is the preview of what is sent; nil where there is no registry.
	Seed *SeedResult
	// Target is where the images will be.
	Target      Target
	Environment string
	Parameters  []Said
	// RemoveDropped uninstalls releases that the new version has no more; Test runs the tests of charts.
	RemoveDropped, Test bool
	// TakeOver takes fields that others own, Adopt releases and objects that others have installed.
	TakeOver, Adopt bool
	// Programs are foreign programs that would be run, as far as the caller knows: the cluster's own are added.
	Programs []string
	// Hide takes secrets out of texts that people are shown; nil where there are none.
	Hide func(string) string
}

// MakePlan makes a plan. Errors are those of PlanReleases.
func MakePlan(ctx context.Context, in PlanInput) (*Plan, error) {
	if in.Hide == nil {
		in.Hide = func(s string) string { return s }
	}
	m := in.Bundle.Manifest()
	p := &Plan{
		MediaType: PlanMediaType, Bundle: m.Name, Version: m.Version, Manifest: in.Bundle.Evidence().Manifest,
		Registry: in.Target.String(), Environment: in.Environment, Parameters: in.Parameters, RemoveDropped: in.RemoveDropped, Seed: in.Seed,
		Test: in.Test, TakeOver: in.TakeOver, Adopt: in.Adopt,
		Dropped: []DroppedRelease{}, Mentions: []MentionPlan{}, Programs: slices.Clone(in.Programs), Steps: []PlannedStep{},
	}
	if p.Parameters == nil {
		p.Parameters = []Said{}
	}
	if p.Programs == nil {
		p.Programs = []string{}
	}
	if len(in.Releases) > 0 {
		r := in.Releases[0].Rendering
		p.Rendering = &RenderingPlan{Pin: r.Pin, NoRewrite: r.NoRewrite, PullSecrets: r.PullSecrets, ConfigMaps: r.ConfigMaps}
		if p.Rendering.Pin == "" {
			p.Rendering.Pin = PinDigest
		}
	}
	if in.State != nil {
		p.Serial = in.State.Serial
		if in.State.Installed != nil {
			p.Replaces = in.State.Installed.Version
		}
	}
	w, err := newPlanner(ctx, in.Cluster, in.Hide)
	if err != nil {
		return nil, err
	}
	p.Cluster, p.Kubernetes = w.uid, w.version
	if in.Cluster != nil {
		if program := in.Cluster.Program(); program != nil {
			p.Programs = append(p.Programs, fmt.Sprintf("%s, for the credentials of user %q of the kubeconfig", program.Program, program.User))
		}
	}
	if p.Releases, err = w.releases(ctx, in.Releases); err != nil {
		return nil, err
	}
	p.dropped(in.State)
	if p.Mentions, err = mentionsOf(p.Releases, m, in.Target, in.Hide); err != nil {
		return nil, err
	}
	p.Steps = p.steps(in.Releases, in.Test)
	return p, nil
}

// dropped finds the releases that are installed and that the plan has not.
func (p *Plan) dropped(s *ledger.State) {
	if s == nil || s.Installed == nil {
		return
	}
	for i := range s.Installed.Releases {
		r := &s.Installed.Releases[i]
		if slices.ContainsFunc(p.Releases, func(n ReleasePlan) bool { return n.Key() == r.Key() }) {
			continue
		}
		d := DroppedRelease{Release: r.Name, Namespace: r.Namespace, As: r.As, Chart: r.Chart, Version: r.Version, Revision: r.Revision, Action: ActionKeep}
		if p.RemoveDropped {
			d.Action = ActionRemove
		}
		p.Dropped = append(p.Dropped, d)
	}
}
