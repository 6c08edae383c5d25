package release

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"helm.sh/helm/v4/pkg/kube"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/resource"
)

// maxObjects bounds the objects that an error names.
const maxObjects = 10

// client is Helm's Kubernetes client for one operation. It begins nothing once
// the operation is cancelled, and remembers what failed, which Helm's errors
// tell as text only.
type client struct {
	kube.Interface
	ctx context.Context //nolint:containedctx // lives as long as the operation, because Helm's interface carries no context

	notReady   []string // what the last failed wait waited for
	deleteErrs []error  // which Helm drops
	kept       []string // what was not deleted, because it holds data
	// scaled says whose number of replicas is not said by an update; nil for nobody's.
	scaled func(namespace, kind, name string) bool
}

func (c *client) Create(resources kube.ResourceList, options ...kube.ClientCreateOption) (*kube.Result, error) {
	if err := c.ctx.Err(); err != nil {
		return nil, err
	}
	return c.Interface.Create(resources, options...)
}

// Update returns a result in any case: Helm uses it without looking at the error.
func (c *client) Update(original, target kube.ResourceList, options ...kube.ClientUpdateOption) (*kube.Result, error) {
	if err := c.ctx.Err(); err != nil {
		return &kube.Result{}, err
	}
	for _, info := range target {
		if u, ok := info.Object.(*unstructured.Unstructured); ok && c.scaled != nil && c.scaled(info.Namespace, u.GetKind(), info.Name) {
			unstructured.RemoveNestedField(u.Object, "spec", "replicas")
		}
	}
	result, err := c.Interface.Update(c.withoutData(original, target), target, options...)
	if result == nil {
		result = &kube.Result{}
	}
	return result, err
}

func (c *client) Delete(resources kube.ResourceList, policy metav1.DeletionPropagation) (*kube.Result, []error) {
	if err := c.ctx.Err(); err != nil {
		return nil, []error{err}
	}
	deleted := c.withoutData(resources, nil)
	if len(deleted) == 0 && len(resources) > 0 {
		return &kube.Result{}, nil // to Helm, nothing to delete is an error
	}
	result, errs := c.Interface.Delete(deleted, policy)
	c.deleteErrs = append(c.deleteErrs, errs...)
	return result, errs
}

func (c *client) GetWaiter(strategy kube.WaitStrategy) (kube.Waiter, error) {
	return c.GetWaiterWithOptions(strategy)
}

// GetWaiterWithOptions implements kube.InterfaceWaitOptions, which Helm looks
// for; without it the waits would not end with the context.
func (c *client) GetWaiterWithOptions(strategy kube.WaitStrategy, options ...kube.WaitOption) (kube.Waiter, error) {
	var (
		w   kube.Waiter
		err error
	)
	if with, ok := c.Interface.(kube.InterfaceWaitOptions); ok {
		w, err = with.GetWaiterWithOptions(strategy, options...)
	} else {
		w, err = c.Interface.GetWaiter(strategy)
	}
	if err != nil {
		return nil, err
	}
	return &waiter{Waiter: w, client: c}, nil
}

// waiter notes what did not become ready.
type waiter struct {
	kube.Waiter
	client *client
}

func (w *waiter) Wait(resources kube.ResourceList, timeout time.Duration) error {
	return w.wait(resources, timeout, w.Waiter.Wait)
}

func (w *waiter) WaitWithJobs(resources kube.ResourceList, timeout time.Duration) error {
	return w.wait(resources, timeout, w.Waiter.WaitWithJobs)
}

func (w *waiter) wait(resources kube.ResourceList, timeout time.Duration, f func(kube.ResourceList, time.Duration) error) error {
	if err := w.client.ctx.Err(); err != nil {
		return err
	}
	w.client.notReady = nil
	err := f(resources, timeout)
	if err != nil && w.client.ctx.Err() == nil {
		w.client.notReady = w.client.unready(resources)
	}
	return err
}

func (w *waiter) WatchUntilReady(resources kube.ResourceList, timeout time.Duration) error {
	if err := w.client.ctx.Err(); err != nil {
		return err
	}
	return w.Waiter.WatchUntilReady(resources, timeout)
}

func (w *waiter) WaitForDelete(resources kube.ResourceList, timeout time.Duration) error {
	if err := w.client.ctx.Err(); err != nil {
		return err
	}
	if len(resources) > 0 {
		if resources = resources.Filter(func(i *resource.Info) bool { return !holdsData(i) }); len(resources) == 0 {
			return nil
		}
	}
	deadline := time.Now().Add(timeout)
	if err := w.Waiter.WaitForDelete(resources, timeout); err != nil {
		// It may end long before its time, with an error, for the reason below.
		early := w.client.ctx.Err() == nil && time.Now().Before(deadline)
		if !early || !slices.ContainsFunc(resources, func(i *resource.Info) bool { return i.Client != nil }) {
			return err
		}
	}
	return w.client.gone(resources, max(time.Until(deadline), gonePoll))
}

// gonePoll is the time between two looks at an object that is being deleted.
const gonePoll = 200 * time.Millisecond

// gone waits until none of the objects is there any more. Helm's own wait (4.3.1) passes over
// objects whose status it has not seen yet, so that it may end while they are being deleted,
// and the next install would meet them.
func (c *client) gone(resources kube.ResourceList, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(c.ctx, timeout)
	defer cancel()
	tick := time.NewTicker(gonePoll)
	defer tick.Stop()
	for _, info := range resources {
		if info.Client == nil {
			continue // does not stand for an object of a cluster
		}
		for {
			now := *info // reading changes it
			err := now.Get()
			if apierrors.IsNotFound(err) {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("waiting for the deletion of %s %q: %w", info.Mapping.GroupVersionKind.Kind, info.Name, errors.Join(ctx.Err(), err))
			case <-tick.C:
			}
		}
	}
	return nil
}

// unready reads the objects again and says which are not ready. It is an
// explanation: what it cannot find out, it leaves out.
func (c *client) unready(resources kube.ResourceList) []string {
	live, err := c.Get(resources, false)
	if err != nil {
		return nil
	}
	var lines []string
	for _, objects := range live {
		for _, o := range objects {
			u, err := asUnstructured(o)
			if err != nil {
				continue
			}
			result, err := status.Compute(u)
			if err != nil || result.Status == status.CurrentStatus {
				continue
			}
			lines = append(lines, clean(fmt.Sprintf("%s/%s: %s", u.GetKind(), u.GetName(), result.Message)))
		}
	}
	sort.Strings(lines)
	if more := len(lines) - maxObjects; more > 0 {
		lines = append(lines[:maxObjects], fmt.Sprintf("and %d more", more))
	}
	return lines
}

func asUnstructured(o runtime.Object) (*unstructured.Unstructured, error) {
	if u, ok := o.(*unstructured.Unstructured); ok {
		return u, nil
	}
	if o == nil {
		return nil, errors.New("no object")
	}
	m, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	return &unstructured.Unstructured{Object: m}, err
}
