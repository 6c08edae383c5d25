package ledger

// MediaType is the first member of every state.
const MediaType = "application/vnd.sealift.state.v1+json"

const (
	// MaxBytes bounds a state, in bytes of JSON. It is kept compressed, in a Secret of at most 1 MiB.
	MaxBytes = 8 << 20
	// MaxHistory is how many receipts a state keeps behind the newest. A receipt that is dropped
	// cannot be gone back to.
	MaxHistory = 20
	// MaxSteps bounds the steps of a transaction.
	MaxSteps = 8192
)

// State is what a cluster knows about one bundle.
type State struct {
	MediaType string `json:"mediaType"`
	// Name is that of the bundle.
	Name string `json:"name"`
	// Serial grows by one with each write.
	Serial int64 `json:"serial"`
	// Installed is what the cluster has; nil where nothing is, or nothing was ever.
	Installed *Receipt `json:"installed,omitempty"`
	// Open is the transaction that has not ended; nil for none.
	Open *Transaction `json:"open,omitempty"`
	// History are the receipts before Installed, oldest first, and failed attempts among them.
	History []Receipt `json:"history"`
	// Accepted are the versions of the bundle that were accepted here, one for each channel, ClockFloor a time that has
	// certainly passed (RFC 3339): the part of the trust record that all who install in this cluster share.
	Accepted   []Accepted `json:"accepted"`
	ClockFloor string     `json:"clockFloor,omitempty"`
	// Values name what the site has said, kept outside of the state: an ID for each document that a
	// receipt or the open transaction refers to.
	Values []string `json:"values"`
}

// Accepted is a version of a bundle that was accepted, as in the record of package site.
type Accepted struct {
	Channel string `json:"channel"`
	Version string `json:"version"`
	Digest  string `json:"digest"`
	Created string `json:"created"`
	At      string `json:"at"`
	// Root and RootVersion name the vendor's root document under which it was accepted; empty for none.
	Root        string `json:"root,omitempty"`
	RootVersion int    `json:"rootVersion,omitempty"`
	// Replaces says that it counts whatever was accepted before; it is not kept.
	Replaces bool `json:"-"`
}

// What becomes of the accepted version of a bundle when it was installed, see [Receipt.Accept].
const (
	// AcceptRaise: it is accepted where it is newer than what was.
	AcceptRaise = ""
	// AcceptReplace: it is accepted whatever was before, as a root's reset or an operator's word allows.
	AcceptReplace = "replace"
	// AcceptOlder: it is an older one than what was accepted, as an operator's word allows, and lowers nothing.
	AcceptOlder = "older"
	// AcceptNothing: it decides nothing, since nobody is proven to have made it.
	AcceptNothing = "nothing"
)

// Actions of a transaction.
const (
	ActionInstall   = "install"
	ActionUpgrade   = "upgrade"
	ActionRollback  = "rollback"
	ActionUninstall = "uninstall"
)

// Outcomes of a receipt.
const (
	// OutcomeDone: all of it is in the cluster.
	OutcomeDone = "done"
	// OutcomeBack: it failed, or was given up, and all was changed back.
	OutcomeBack = "changed back"
)

// Receipt says what became of a transaction: what was installed, by whom, why it was trusted. It holds
// no secrets, and is what is carried back, signed or not.
type Receipt struct {
	// ID is that of the transaction, never the same twice.
	ID      string `json:"id"`
	Action  string `json:"action"`
	Outcome string `json:"outcome"`
	// Failure is why it was changed back.
	Failure string `json:"failure,omitempty"`

	Bundle  string `json:"bundle"`
	Version string `json:"version"`
	Channel string `json:"channel"`
	// Manifest is the digest of the bundle's manifest: its identity.
	Manifest string `json:"manifest"`
	// Replaces is the version that was installed before; empty for none.
	Replaces string `json:"replaces,omitempty"`
	Created  string `json:"created,omitempty"`
	Expires  string `json:"expires,omitempty"`

	// Signers are who is proven to have signed, each with the times that are proven; Rule and Policy are
	// those of the site by which they were enough.
	Signers []Signer `json:"signers"`
	Rule    string   `json:"rule,omitempty"`
	Policy  string   `json:"policy,omitempty"`
	// Groups are those of the rule, with who of them has signed: the vendor, and who else had to approve. Roots are the
	// vendors' root documents that say who may.
	Groups []Group `json:"groups,omitempty"`
	Roots  []Root  `json:"roots,omitempty"`
	// Unsigned says that nobody is proven to have made the bundle.
	Unsigned bool `json:"unsigned,omitempty"`
	// Accept says what the install means for the accepted version: AcceptRaise, AcceptReplace, AcceptOlder or AcceptNothing.
	Accept string `json:"accept,omitempty"`
	// Overrides are what would have been refused, and Reason the operator's for allowing it.
	Overrides []string `json:"overrides"`
	Reason    string   `json:"reason,omitempty"`

	// Cluster is the UID of the cluster (that of the namespace kube-system), Kubernetes its version.
	Cluster    string `json:"cluster"`
	Kubernetes string `json:"kubernetes,omitempty"`
	// Registry is where the images are, as HOST[/PREFIX]; empty where they are in the node's containerd.
	Registry string `json:"registry,omitempty"`
	// Begun and Ended are RFC 3339 in UTC by the clock of who did it; By is USER@HOST.
	Begun string `json:"begun"`
	Ended string `json:"ended,omitempty"`
	By    string `json:"by"`
	// Tool is the version of Sealift.
	Tool string `json:"tool,omitempty"`

	Environment string      `json:"environment,omitempty"`
	Parameters  []Parameter `json:"parameters"`
	// Values is the ID of what the site said, see State.Values; empty for nothing.
	Values string `json:"values,omitempty"`
	// Plan is the digest of the plan that was followed; empty where none was saved.
	Plan string `json:"plan,omitempty"`
	// BackupDone is the operator's word about a backup; NoReturn are the points of no return that were accepted.
	BackupDone string   `json:"backupDone,omitempty"`
	NoReturn   []string `json:"noReturn"`

	Releases []Release `json:"releases"`
	Images   []Image   `json:"images"`
	Checks   []Checked `json:"checks"`
	// Kept are objects and data that were left in the cluster.
	Kept []string `json:"kept"`
	// Journal is the end of the site's journal when it was recorded.
	JournalSeq    int64  `json:"journalSeq,omitempty"`
	JournalDigest string `json:"journalDigest,omitempty"`
}

// Signer is one who signed.
type Signer struct {
	Who   string   `json:"who"`
	Times []string `json:"times"`
}

// Group is a group of a rule, and who of it has signed.
type Group struct {
	Name      string   `json:"name"`
	Threshold int      `json:"threshold"`
	Signers   []string `json:"signers"`
	// Root and RootVersion name the root document that says who the group is; empty where the policy does.
	Root        string `json:"root,omitempty"`
	RootVersion int    `json:"rootVersion,omitempty"`
}

// Root is a vendor's root document.
type Root struct {
	Name    string `json:"name"`
	Version int    `json:"version"`
	Digest  string `json:"digest"`
}

// Parameter is what counted for a parameter. Value is empty for secrets.
type Parameter struct {
	Name    string `json:"name"`
	Value   string `json:"value,omitempty"`
	Secret  bool   `json:"secret,omitempty"`
	Default bool   `json:"default,omitempty"`
}

// Release is a release as a receipt knows it.
type Release struct {
	Namespace string `json:"namespace"`
	// Name is the vendor's, As the one that Helm has it under, where that differs (see manifest.Colours).
	Name string `json:"name"`
	As   string `json:"as,omitempty"`

	Chart   string `json:"chart"`
	Version string `json:"version"`
	// Revision is Helm's.
	Revision int `json:"revision"`
	// Objects is the digest of what is recorded of this revision in the cluster, without what Secrets hold
	// (see release.Recorded); empty where it is not known.
	Objects string `json:"objects,omitempty"`
	// Values is the digest of the values, without secret parameters.
	Values string `json:"values,omitempty"`
	// Rollback is the vendor's word about a way back from this version to an earlier one, see package manifest.
	Rollback string `json:"rollback,omitempty"`
	// Left says that the version has this release no more, and that it was left where it is.
	Left bool `json:"left,omitempty"`
	// Front leads to the release where it has one.
	Front *Front `json:"front,omitempty"`
}

// Key is "NAMESPACE/NAME".
func (r *Release) Key() string { return r.Namespace + "/" + r.Name }

// Helm is the name under which Helm has the release.
func (r *Release) Helm() string {
	if r.As != "" {
		return r.As
	}
	return r.Name
}

// Front is the object that leads to a release that is rolled out.
type Front struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
	// Strategy is that of the manifest.
	Strategy string `json:"strategy"`
	// Service is the name of the chart's Service to which it leads, in which * stands for that of the Helm release.
	Service string `json:"service,omitempty"`
	// Object is the YAML of an HTTPRoute, in the step that makes it only.
	Object string `json:"object,omitempty"`
	// To is the Helm release that it leads to; Also is the one that gets Share percent besides, while a
	// canary goes on; Spare is the release that it led to before, which is still there.
	To    string `json:"to"`
	Also  string `json:"also,omitempty"`
	Share int    `json:"share,omitempty"`
	// OldPods and NewPods are how many pods make that share, where it is made of pods; set by what has switched it.
	OldPods int    `json:"oldPods,omitempty"`
	NewPods int    `json:"newPods,omitempty"`
	Spare   string `json:"spare,omitempty"`
}

// Image is an image and where it is.
type Image struct {
	Source string `json:"source"`
	// Target is the reference in the site's registry, Digest what is there under it.
	Target string `json:"target"`
	Digest string `json:"digest"`
	// Platforms are the digests of the image manifests below it, which running containers report.
	Manifests []string `json:"manifests,omitempty"`
	// Configs are the digests of the configurations of these, which containers report whose image was loaded
	// into the node.
	Configs []string `json:"configs,omitempty"`
	// Referrers are the signatures, attestations and SBOMs that came with it.
	Referrers []Referrer `json:"referrers,omitempty"`
}

// Referrer is an artifact about an image.
type Referrer struct {
	// ArtifactType is what it says it is, or for one that is found by its tag "signature", "attestation" or "sbom".
	ArtifactType string `json:"artifactType"`
	Digest       string `json:"digest"`
}

// Checked is a health check, or a chart's test, that was run.
type Checked struct {
	Release string `json:"release"` // "NAMESPACE/NAME"
	Name    string `json:"name"`
	Result  string `json:"result"`
}

// Phases of a transaction.
const (
	// PhaseForward: steps are taken in order.
	PhaseForward = "forward"
	// PhaseBack: steps are taken back in reverse order.
	PhaseBack = "back"
	// PhasePaused: stopped at a hold point, as asked; it goes on with resume, or back with revert.
	PhasePaused = "paused"
	// PhaseStaged: all is there, and what is new waits to be promoted, or aborted.
	PhaseStaged = "staged"
	// PhaseHeld: it failed after a point of no return, or could not be changed back.
	PhaseHeld = "held"
)

// Transaction is a change of what is installed that has been begun.
type Transaction struct {
	ID     string `json:"id"`
	Action string `json:"action"`
	Phase  string `json:"phase"`
	// Failure is why it goes back, or is held.
	Failure string `json:"failure,omitempty"`
	// Receipt is what will be recorded when it succeeds.
	Receipt Receipt `json:"receipt"`
	// Steps in the order in which they are begun.
	Steps []Step `json:"steps"`
	// Options are what the one who goes on has to know.
	Options Options `json:"options"`
}

// Options of a transaction that hold until its end.
type Options struct {
	// TimeoutSeconds bounds each wait.
	TimeoutSeconds int  `json:"timeoutSeconds"`
	Test           bool `json:"test,omitempty"`
	TakeOver       bool `json:"takeOver,omitempty"`
	Adopt          bool `json:"adopt,omitempty"`
	// AcceptNoReturn says that points of no return may be passed.
	AcceptNoReturn bool `json:"acceptNoReturn,omitempty"`
	// RemoveDropped says that releases which the new version has no more are uninstalled.
	RemoveDropped bool `json:"removeDropped,omitempty"`
	// Mapping and the like: how names were made, see install.Target. Pin and NoRewrite: see install.Rendering.
	Target    map[string]string `json:"target,omitempty"`
	Rendering map[string]string `json:"rendering,omitempty"`
}

// Kinds of steps.
const (
	// StepCRDs applies the custom resource definitions of a chart; taken back, it applies the former ones.
	StepCRDs = "crds"
	// StepBackup runs a chart's backup Jobs; taken back, it runs its restore Jobs.
	StepBackup = "backup"
	// StepRelease installs or upgrades a release, or rolls it back to an earlier revision.
	StepRelease = "release"
	// StepTest runs the tests of a chart, StepCheck a vendor's health check.
	StepTest  = "test"
	StepCheck = "check"
	// StepRemove uninstalls a release, keeping its history.
	StepRemove = "remove"
	// StepFront switches a front.
	StepFront = "front"
)

// Status of a step.
const (
	StepPlanned = "planned"
	// StepBegun: it may have been begun; what it did is to be found out in the cluster.
	StepBegun  = "begun"
	StepDone   = "done"
	StepFailed = "failed"
	// StepReverting: it may have been begun to be taken back.
	StepReverting = "reverting"
	StepReverted  = "reverted"
)

// Step is one change.
type Step struct {
	Kind   string `json:"kind"`
	Status string `json:"status"`
	// Namespace and Release say which, as Receipt.Releases has it: As is Helm's name of it.
	Namespace string `json:"namespace"`
	Release   string `json:"release"`
	As        string `json:"as,omitempty"`
	// Name is that of a check.
	Name string `json:"name,omitempty"`
	// From is the revision that was deployed before, 0 for none; To the one that was made, 0 while that is
	// not known, or the one that was to be gone back to.
	From int `json:"from,omitempty"`
	To   int `json:"to,omitempty"`
	// Seen is the newest revision that there was, of whatever status, when From was looked up: what is newer, and not this
	// transaction's, is somebody else's.
	Seen int `json:"seen,omitempty"`
	// Objects is the digest of what was rendered.
	Objects string `json:"objects,omitempty"`
	// NoReturn are the reasons for which there is no way back once the step was begun; empty where there is one.
	NoReturn []string `json:"noReturn,omitempty"`
	// Tries is how often it failed: Jobs are run anew then.
	Tries int `json:"tries,omitempty"`
	// Was names what the cluster keeps of what was there before: the Secret with former definitions, for StepCRDs.
	Was string `json:"was,omitempty"`
	// Front is what it was before a StepFront, and what it becomes.
	FrontWas *Front `json:"frontWas,omitempty"`
	FrontTo  *Front `json:"frontTo,omitempty"`
	// Round is when a StepFront waits to be promoted: those of one round are switched together, and rounds, from 1, one after
	// the other. 0 is one that waits for nobody.
	Round int `json:"round,omitempty"`
	// After are the indexes of steps that have to be done before this one begins.
	After []int `json:"after,omitempty"`
}

// Needs says that the step of a transaction with this action cannot be taken without the bundle.
func (s *Step) Needs(action string) bool {
	switch s.Kind {
	case StepRemove, StepFront, StepTest:
		return false
	case StepRelease:
		return action != ActionRollback
	}
	return true
}

// Key is "NAMESPACE/RELEASE".
func (s *Step) Key() string { return s.Namespace + "/" + s.Release }

// Helm is the name under which Helm has the release.
func (s *Step) Helm() string {
	if s.As != "" {
		return s.As
	}
	return s.Release
}

// Words for what a state is in, see [State.Condition].
const (
	ConditionNothing     = "nothing installed"
	ConditionInstalled   = "installed"
	ConditionInterrupted = "interrupted"
	ConditionPaused      = "paused"
	ConditionStaged      = "staged"
	ConditionHeld        = "held"
)

// Condition says in one word how the bundle stands. Interrupted is a transaction whose holder is gone, or at work: who
// asks has to look at the lease.
func (s *State) Condition() string {
	switch {
	case s.Open == nil && s.Installed == nil:
		return ConditionNothing
	case s.Open == nil:
		return ConditionInstalled
	case s.Open.Phase == PhasePaused:
		return ConditionPaused
	case s.Open.Phase == PhaseStaged:
		return ConditionStaged
	case s.Open.Phase == PhaseHeld:
		return ConditionHeld
	}
	return ConditionInterrupted
}

// GoingBack says that it was being taken back, so that going on means going on with that.
func (t *Transaction) GoingBack() bool {
	if t.Phase == PhaseBack {
		return true
	}
	// Held by a way back that failed. A step that is found out to have been killed goes back, too, but only while going on.
	return t.Phase == PhaseHeld && t.PassedNoReturn() == nil
}

// PassedNoReturn is the first step that had no way back and may have been begun; nil for none.
func (t *Transaction) PassedNoReturn() *Step {
	for i := range t.Steps {
		if s := &t.Steps[i]; len(s.NoReturn) > 0 && s.Status != StepPlanned && s.Status != StepReverted {
			return s
		}
	}
	return nil
}
