package release

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"helm.sh/helm/v4/pkg/action"
	releasev1 "helm.sh/helm/v4/pkg/release/v1"
)

// RunTests runs the tests of a chart: its hooks "test", one after the other, as the helm command does, and waits for each at most for
// timeout (0: that of the Cluster). A release without tests has passed. A test that is still running when the time is up, or when ctx
// ends, is stopped. An error is a *[JobError] with the last lines of its log.
func (c *Cluster) RunTests(ctx context.Context, name, namespace string, timeout time.Duration) error {
	if timeout <= 0 {
		timeout = c.timeout
	}
	s, err := c.open(ctx, namespace)
	if err != nil {
		return err
	}
	a := action.NewReleaseTesting(s.cfg)
	a.Namespace = namespace
	a.Timeout = timeout
	a.WaitOptions = waitOptions(ctx)
	rel, shutdown, err := a.Run(name)
	if err == nil {
		err = shutdown()
	}
	if err == nil {
		return nil
	}
	cause := context.Cause(ctx)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), afterwards)
	defer cancel()
	fail := fmt.Errorf("testing release %q in namespace %q: %w", name, namespace, forbid(err))
	r, relErr := asRelease(rel)
	if relErr != nil {
		return fail
	}
	i := slices.IndexFunc(r.Hooks, func(h *releasev1.Hook) bool {
		return slices.Contains(h.Events, releasev1.HookTest) && !h.LastRun.StartedAt.IsZero() && h.LastRun.Phase != releasev1.HookPhaseSucceeded
	})
	if i < 0 {
		return fail
	}
	h := r.Hooks[i]
	e := &JobError{Job: clean(h.Kind + "/" + h.Name), Namespace: namespace, Reason: "the test failed", Err: forbid(err)}
	if cause != nil {
		e.Reason = "the test was stopped"
	}
	if after, openErr := c.open(ctx, namespace); openErr == nil {
		// Its log first: the policy of the chart may delete it then.
		after.why(ctx, e, h.Kind, h.Name)
		if h.Kind == "Job" || h.Kind == "Pod" {
			if stopErr := after.stopHook(ctx, c, h, time.Time{}); stopErr != nil {
				e.Err = errors.Join(e.Err, fmt.Errorf("stopping it: %w", stopErr))
			}
		}
	}
	if shutdown != nil && cause == nil {
		// Where ctx has ended, its client does nothing more. It returns the error of the test again where that was the reason.
		_ = shutdown()
	}
	return e
}
