package release

import (
	"errors"
	"fmt"
	"strings"
)

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
	// Back is the revision to go back to with Revert. It is nil if there is
	// none (the first install was interrupted, or an uninstall): then Revert
	// can only uninstall.
	Back *State
}

func (e *PendingError) Error() string {
	return fmt.Sprintf("release %q in namespace %q is in state %q at revision %d: an operation is under way or was interrupted",
		e.Release, e.Namespace, e.Status, e.Revision)
}

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
