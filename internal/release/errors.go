package release

import (
	"errors"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// IsForbidden reports whether the cluster refused something for want of rights; [Forbidden] says of which.
func IsForbidden(err error) bool {
	var e *ForbiddenError
	return errors.As(err, &e) || apierrors.IsForbidden(err)
}

// ErrNoKubeconfig says that no kubeconfig was named.
var ErrNoKubeconfig = errors.New("no kubeconfig is named")

// KubeconfigError says that a kubeconfig cannot be used: it is missing, broken,
// or has no such context.
type KubeconfigError struct {
	Path    string
	Context string // empty: the current one
	Err     error
}

func (e *KubeconfigError) Error() string {
	if e.Context != "" {
		return fmt.Sprintf("reading context %q of kubeconfig %q: %v", e.Context, e.Path, e.Err)
	}
	return fmt.Sprintf("reading kubeconfig %q: %v", e.Path, e.Err)
}

func (e *KubeconfigError) Unwrap() error { return e.Err }

// ExecError says that the credentials of a user of a kubeconfig come from a program
// (exec plugin or auth-provider), which may not be run.
type ExecError struct {
	User    string // as the kubeconfig calls it
	Program string // the command; for an auth-provider without one, the provider
}

func (e *ExecError) Error() string {
	return fmt.Sprintf("the credentials of user %q come from the program %q, and no program may be run", e.User, e.Program)
}

// UnreachableError says that the cluster did not answer.
type UnreachableError struct {
	Server string
	Err    error
}

func (e *UnreachableError) Error() string {
	return fmt.Sprintf("reaching the cluster at %q: %v", e.Server, e.Err)
}

func (e *UnreachableError) Unwrap() error { return e.Err }

// PendingError says that an operation on the release is under way or was
// killed: Helm refuses to upgrade it.
type PendingError struct {
	Release, Namespace string
	// Status is Helm's: "pending-install", "pending-upgrade",
	// "pending-rollback" or "uninstalling".
	Status   string
	Revision int
	// Holder is who holds the lease of the release, "HOST/PROCESS/RUN". It is
	// empty if nobody does, and then no install is running that takes leases.
	// One that was killed holds it until the next install takes it.
	Holder string
	// Back is the revision to go back to with Cluster.Revert. It is nil if there
	// is none (the first install was interrupted, or an uninstall): then it can
	// only uninstall.
	Back *State
}

func (e *PendingError) Error() string {
	why := "an operation is under way or was interrupted"
	if e.Holder != "" {
		why = fmt.Sprintf("another install (%s) is running or was killed", e.Holder)
	}
	return fmt.Sprintf("release %q in namespace %q is in state %q at revision %d: %s", e.Release, e.Namespace, e.Status, e.Revision, why)
}

// BusyError says that another install is working on the release, or was until a
// moment ago. Nothing was begun.
type BusyError struct {
	Release, Namespace string
	// Bundle is set instead of Release where the lease is that of a bundle, and Namespace is then that of its state.
	Bundle string
	// Holder is who, as its lease says: "HOST/PROCESS/RUN". Empty: it is not
	// known, as for the Helm command, which takes no lease.
	Holder string
}

func (e *BusyError) Error() string {
	s := fmt.Sprintf("another install of release %q in namespace %q is running", e.Release, e.Namespace)
	if e.Bundle != "" {
		s = fmt.Sprintf("another install of bundle %q is running", e.Bundle)
	}
	if e.Holder != "" {
		s += " (" + e.Holder + ")"
	}
	return s
}

// OvertakenError says that a release is not changed back, or not worked on any
// further, because its history was changed by another program.
type OvertakenError struct {
	Release, Namespace string
	// Revision is the newest one that this program made or knows of, Newest the
	// newest that there is; 0: there is none.
	Revision, Newest int
}

func (e *OvertakenError) Error() string {
	if e.Newest == e.Revision {
		return fmt.Sprintf("revision %d of release %q was replaced by another program", e.Revision, e.Release)
	}
	return fmt.Sprintf("release %q was changed by another program: its newest revision was %d and now is %d", e.Release, e.Revision, e.Newest)
}

// LeaseError says that the lease that protects a release could not be taken, for
// example for lack of rights, or was lost while it was needed.
type LeaseError struct {
	Lease, Namespace string
	// Forbidden says that the rights to get, create, update and delete leases
	// (coordination.k8s.io) in the namespace are missing.
	Forbidden bool
	// Lost says that it had been taken: another install may be running now.
	Lost bool
	Err  error
}

func (e *LeaseError) Error() string {
	verb := "taking"
	if e.Lost {
		verb = "keeping"
	}
	return fmt.Sprintf("%s the lease %q in namespace %q: %v", verb, e.Lease, e.Namespace, e.Err)
}

func (e *LeaseError) Unwrap() error { return e.Err }

// NoRevisionError says that the revision to go back to is not in the history.
type NoRevisionError struct {
	Release, Namespace string
	Revision           int
}

func (e *NoRevisionError) Error() string {
	return fmt.Sprintf("release %q in namespace %q has no revision %d", e.Release, e.Namespace, e.Revision)
}

// TooLargeError says that a release does not fit into its record in the
// cluster, one Secret, which holds the chart, the values and all that was
// rendered. It is found before anything is installed.
type TooLargeError struct {
	Release     string
	Size, Limit int // bytes, compressed and encoded
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("the record of release %q has %d bytes, and the cluster takes %d", e.Release, e.Size, e.Limit)
}

// Actions of a Result and of a FailedError.
const (
	ActionInstall   = "install"
	ActionUpgrade   = "upgrade"
	ActionRollback  = "rollback"
	ActionUninstall = "uninstall"
)

// FailedError says that an operation failed, with what is known about why.
type FailedError struct {
	Action             string
	Release, Namespace string
	Revision           int // 0 if the operation failed before it had one
	// Hook is the hook that failed, "pre-upgrade Job/shop-migrate"; empty if
	// none did.
	Hook string
	// Objects are those that did not become ready:
	// "Deployment/shop: Available: 0/1".
	Objects []string
	Err     error
}

func (e *FailedError) Error() string {
	var b strings.Builder
	verb := map[string]string{
		ActionInstall: "installing", ActionUpgrade: "upgrading", ActionRollback: "rolling back", ActionUninstall: "uninstalling",
	}[e.Action]
	fmt.Fprintf(&b, "%s release %q in namespace %q: ", verb, e.Release, e.Namespace)
	switch {
	case e.Hook != "":
		fmt.Fprintf(&b, "hook %s failed: ", e.Hook)
	case len(e.Objects) > 0:
		// Err says the same with more words.
		return b.String() + "not ready: " + strings.Join(e.Objects, "; ")
	}
	// Helm and kstatus spread their messages over several lines.
	b.WriteString(strings.Join(strings.Fields(e.Err.Error()), " "))
	return b.String()
}

func (e *FailedError) Unwrap() error { return e.Err }

// ForbiddenError says which right was missing, as the cluster says it.
type ForbiddenError struct {
	// Verb is what was to be done ("list"), Resource to what ("deployments.apps", "pods/log"), Namespace where; empty
	// outside of namespaces. Any of them is empty where the cluster does not say.
	Verb, Resource, Namespace string
	Err                       error
}

func (e *ForbiddenError) Error() string {
	if e.Err != nil {
		return e.Err.Error()
	}
	return fmt.Sprintf("no right to %s %s in namespace %q", e.Verb, e.Resource, e.Namespace)
}

func (e *ForbiddenError) Unwrap() error { return e.Err }

// Forbidden returns what the cluster says about a right that was missing, and nil for other errors.
func Forbidden(err error) *ForbiddenError {
	var e *ForbiddenError
	if errors.As(err, &e) {
		return e
	}
	var status apierrors.APIStatus
	if !apierrors.IsForbidden(err) || !errors.As(err, &status) {
		return nil
	}
	s := status.Status()
	e = &ForbiddenError{Err: err}
	if s.Details != nil {
		e.Resource = s.Details.Kind
		if s.Details.Group != "" {
			e.Resource += "." + s.Details.Group
		}
	}
	// The rest it says in words only. They decide nothing.
	words := strings.Fields(s.Message)
	for i := 0; i+1 < len(words); i++ {
		next := strings.Trim(words[i+1], `":,`)
		switch {
		case words[i] == "cannot" && e.Verb == "":
			e.Verb = clean(next)
		case words[i] == "resource" && strings.Contains(next, "/"):
			_, sub, _ := strings.Cut(next, "/")
			name, group, _ := strings.Cut(e.Resource, ".")
			if e.Resource = name + "/" + sub; group != "" {
				e.Resource += "." + group
			}
		case words[i] == "namespace" && e.Namespace == "":
			e.Namespace = next
		}
	}
	e.Resource, e.Namespace = clean(e.Resource), clean(e.Namespace)
	return e
}

// forbid makes a *[ForbiddenError] of an error that says so.
func forbid(err error) error {
	if e := Forbidden(err); e != nil {
		return e
	}
	return err
}

// ForeignError says that an install met what somebody else has installed. Nothing was changed.
type ForeignError struct {
	Release, Namespace string
	// Object is "KIND/NAME", or "release" for the release itself.
	Object string
	// Owner is whose it is, as far as the cluster tells.
	Owner string
}

func (e *ForeignError) Error() string {
	return fmt.Sprintf("release %q in namespace %q: %s is there already and belongs to %s", e.Release, e.Namespace, e.Object, e.Owner)
}

// FieldConflict is an object with fields that others have set to other values.
type FieldConflict struct {
	// Object is "KIND/NAME".
	Object string
	// Fields are their paths (".spec.replicas"), and Managers who has set each of them.
	Fields, Managers []string
}

// FieldConflictError says that fields of live objects were set by others. Nothing was changed.
type FieldConflictError struct {
	Release, Namespace string
	Conflicts          []FieldConflict
}

func (e *FieldConflictError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "release %q in namespace %q: others have set fields of its objects", e.Release, e.Namespace)
	for _, c := range e.Conflicts {
		for i, f := range c.Fields {
			fmt.Fprintf(&b, "; %s %s by %q", c.Object, f, c.Managers[i])
		}
	}
	return b.String()
}

// CRDError says why a CustomResourceDefinition was not applied.
type CRDError struct {
	Name string
	// Owner is the Helm release "NAMESPACE/NAME" that has it; empty for none.
	Owner string
	// Kept says that the live definition stays, since the other one has not all versions in which objects may be stored.
	Kept bool
	Err  error
}

func (e *CRDError) Error() string {
	s := fmt.Sprintf("custom resource definition %q", e.Name)
	if e.Owner != "" {
		s += fmt.Sprintf(" (of release %q)", e.Owner)
	}
	return fmt.Sprintf("%s: %v", s, e.Err)
}

func (e *CRDError) Unwrap() error { return e.Err }

// NamespaceGone says that something failed because its namespace is not there.
func NamespaceGone(err error) bool {
	var status apierrors.APIStatus
	return apierrors.IsNotFound(err) && errors.As(err, &status) && status.Status().Details != nil && status.Status().Details.Kind == "namespaces"
}

// JobError says that a Job, or a test of a chart, failed.
type JobError struct {
	// Job is "KIND/NAME", Reason the cluster's ("BackoffLimitExceeded").
	Job, Namespace string
	Reason         string
	// Pod is the one that failed, and Log its last lines.
	Pod string
	Log []string
	Err error
}

func (e *JobError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s in namespace %q failed", e.Job, e.Namespace)
	if e.Reason != "" {
		b.WriteString(": " + e.Reason)
	}
	if e.Err != nil {
		b.WriteString(": " + strings.Join(strings.Fields(e.Err.Error()), " "))
	}
	if e.Pod != "" {
		b.WriteString(" (pod " + e.Pod + ")")
	}
	for _, l := range e.Log {
		b.WriteString("\n    " + l)
	}
	return b.String()
}

func (e *JobError) Unwrap() error { return e.Err }

// CheckError says that a health check did not succeed in time.
type CheckError struct {
	// What was asked: "http://shop:80/healthz", "tcp://db:5432".
	What, Namespace string
	// Last is the last answer.
	Last string
	Err  error
}

func (e *CheckError) Error() string {
	s := fmt.Sprintf("checking %s in namespace %q", e.What, e.Namespace)
	if e.Last != "" {
		s += ": last answer: " + e.Last
	}
	if e.Err != nil {
		s += fmt.Sprintf(": %v", e.Err)
	}
	return s
}

func (e *CheckError) Unwrap() error { return e.Err }
