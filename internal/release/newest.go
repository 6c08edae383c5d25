package release

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"helm.sh/helm/v4/pkg/release/common"
	releasev1 "helm.sh/helm/v4/pkg/release/v1"
)

// Newest is the newest revision of a release, whatever became of it.
type Newest struct {
	State
	// Run is that of the Release it was made from, see [Release.Run]; another one, or "", where somebody else made it.
	Run string
	// Pending says that an operation on it is under way or was killed.
	Pending bool
	// Back is the revision that it was rolled back to; 0 for none.
	Back int
}

// Newest returns the newest revision of a release; nil where there is none.
func (c *Cluster) Newest(ctx context.Context, name, namespace string) (*Newest, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s, err := c.open(ctx, namespace)
	if err != nil {
		return nil, err
	}
	h, err := s.history(name)
	if err != nil || h.last() == nil {
		return nil, err
	}
	last := h.last()
	n := &Newest{State: *stateOf(last), Back: last.Info.RollbackRevision}
	n.Run, _ = strings.CutSuffix(last.Labels[runLabel], fmt.Sprintf(".%d", last.Version))
	n.Pending = last.Info.Status.IsPending() || last.Info.Status == common.StatusUninstalling
	return n, nil
}

// Settle ends what an interrupted operation left running, and marks its revision as failed, so that the release can be
// upgraded again. Nothing goes back. It is for what must not go back; where it may, Recover is better, since the next
// upgrade begins from something known.
func (c *Cluster) Settle(ctx context.Context, name, namespace string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return c.change(ctx, name, namespace, nil, func(ctx context.Context, s *session, h history) error {
		last := h.last()
		if last == nil || !last.Info.Status.IsPending() {
			return nil
		}
		return s.interrupt(ctx, c, last)
	})
}

// interrupt marks a revision as failed of which nothing runs any more then.
func (s *session) interrupt(ctx context.Context, c *Cluster, last *releasev1.Release) error {
	if err := s.stopHooks(ctx, c, last); err != nil {
		return err
	}
	last.SetStatus(common.StatusFailed, "it was interrupted")
	if err := s.cfg.Releases.Update(last); err != nil {
		return fmt.Errorf("recording that revision %d of release %q was interrupted: %w", last.Version, last.Name, err)
	}
	return nil
}

// Keeps lists what [Cluster.Remove] would leave of a release in the cluster, as that does. It changes nothing.
func (c *Cluster) Keeps(ctx context.Context, name, namespace string) ([]string, error) {
	s, err := c.open(ctx, namespace)
	if err != nil {
		return nil, err
	}
	h, err := s.history(name)
	if err != nil || h.last() == nil {
		return nil, err
	}
	there, err := s.stays(ctx, h.last())
	if err != nil || h.last().Info.Status == common.StatusUninstalled {
		return there, err
	}
	resources, err := s.cfg.KubeClient.Build(strings.NewReader(h.last().Manifest), false)
	if err != nil {
		return nil, fmt.Errorf("reading the objects of release %q: %w", name, err)
	}
	goes := map[string]bool{}
	for _, info := range resources {
		if holdsData(info) {
			continue
		}
		u, err := asUnstructured(info.Object)
		if err != nil {
			return nil, err
		}
		goes[objectOf(info)] = u.GetAnnotations()[keepAnnotation] != keepPolicy
	}
	return slices.DeleteFunc(there, func(o string) bool { return goes[o] }), nil
}
