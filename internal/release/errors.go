package release

import (
	"errors"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// IsForbidden reports whether the cluster refused something for want of rights.
func IsForbidden(err error) bool { return apierrors.IsForbidden(err) }

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
	// Holder is who, as its lease says: "HOST/PROCESS/RUN". Empty: it is not
	// known, as for the Helm command, which takes no lease.
	Holder string
}

func (e *BusyError) Error() string {
	s := fmt.Sprintf("another install of release %q in namespace %q is running", e.Release, e.Namespace)
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
// rendered. It is found before anything but CRDs is installed.
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
