package release

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sealift/sealift/internal/chart"
)

const (
	// FrontManager owns the fields of fronts.
	FrontManager = "sealift-front"
	// FrontLabel is on fronts; its value is the vendor's name of the release.
	FrontLabel = "sealift/front"
	// replicasNote is on Deployments that were scaled for a canary: how many replicas they have otherwise.
	replicasNote = "sealift/replicas"

	// frontPoll is the time between two looks at what a front leads to.
	frontPoll = 250 * time.Millisecond
	// frontTimeout bounds the waiting for endpoints where pods are ready already, and only slices have to follow.
	frontTimeout = 2 * time.Minute
	// maxFrontPods bounds the pods behind a front that are looked at.
	maxFrontPods = 5000
)

// Kinds of fronts.
const (
	FrontService   = "Service"
	FrontHTTPRoute = "HTTPRoute"
)

// Front is an object that leads to one of two releases of a chart, or to both.
type Front struct {
	Namespace, Kind, Name string
	// Release is what the vendor calls the releases.
	Release string
	// Service is the name of the chart's Service, with * for the name that Helm has the release under.
	Service string
	// To is the release that it leads to, Also the one that gets Share percent besides; empty for none.
	To, Also string
	Share    int
	// Object is the YAML of an HTTPRoute to make it from where it is not there; empty where the site makes it.
	Object []byte
}

// of is the name of the Service of a release.
func (f *Front) of(release string) string { return strings.Replace(f.Service, "*", release, 1) }

// FrontTakenError says that an object with the name of a front is there, and is not one that Sealift made for the release.
type FrontTakenError struct {
	Kind, Namespace, Name string
	// By is whose it seems to be: a release of Helm, or the release of another front; empty where it is not known.
	By string
}

func (e *FrontTakenError) Error() string {
	by := "which is not a front of this release"
	if e.By != "" {
		by = "which belongs to " + e.By
	}
	return fmt.Sprintf("the front has to be %s %q in namespace %q, and there is one already, %s", e.Kind, e.Name, e.Namespace, by)
}

// FrontMissingError says that a front which the site has to make is not there, or has no rule that could lead to the release.
type FrontMissingError struct {
	Kind, Namespace, Name string
	// There says that it is there, without such a rule.
	There bool
}

func (e *FrontMissingError) Error() string {
	if e.There {
		return fmt.Sprintf("no rule of %s %q in namespace %q leads to the release, or to nothing yet", e.Kind, e.Name, e.Namespace)
	}
	return fmt.Sprintf("there is no %s %q in namespace %q", e.Kind, e.Name, e.Namespace)
}

// FrontError says that a front could not be switched.
type FrontError struct {
	Kind, Namespace, Name string
	Err                   error
}

func (e *FrontError) Error() string {
	return fmt.Sprintf("switching %s %q in namespace %q: %v", e.Kind, e.Name, e.Namespace, e.Err)
}

func (e *FrontError) Unwrap() error { return e.Err }

// NoEndpointsError says that no pod, or too few, behind a Service is ready to be led to.
type NoEndpointsError struct {
	Service, Namespace string
	Got, Want          int
}

func (e *NoEndpointsError) Error() string {
	return fmt.Sprintf("service %q in namespace %q has %d ready endpoints, want %d", e.Service, e.Namespace, e.Got, e.Want)
}

// ForeignPodsError says that a front which selects both versions would select other pods, too.
type ForeignPodsError struct {
	Namespace string
	Selector  string
	Pods      []string
}

func (e *ForeignPodsError) Error() string {
	return fmt.Sprintf("the labels %s, by which a front would find both versions in namespace %q, are on other pods, too: %s", e.Selector, e.Namespace, strings.Join(e.Pods, ", "))
}

// FrontState is what there is of a front.
type FrontState struct {
	// Release is that of its label; empty where it is not one of Sealift's.
	Release string
	// By is the release of Helm that it belongs to; empty for none.
	By string
	// Selector is that of a Service.
	Selector map[string]string
	// Weights are those of an HTTPRoute, by the name of the Service.
	Weights map[string]int
	// uid and version are for changes that demand that nothing has happened meanwhile.
	uid     types.UID
	version string
	route   *httpRoute
}

// ReadFront looks at a front; nil where it is not there. An HTTPRoute in a cluster that does not serve them is not there.
func (c *Cluster) ReadFront(ctx context.Context, namespace, kind, name string) (*FrontState, error) {
	s, err := c.open(ctx, namespace)
	if err != nil {
		return nil, err
	}
	return s.readFront(ctx, namespace, kind, name)
}

func (s *session) readFront(ctx context.Context, namespace, kind, name string) (*FrontState, error) {
	f := &FrontState{}
	var meta metav1.ObjectMeta
	if kind == FrontHTTPRoute {
		r, err := s.readRoute(ctx, namespace, name)
		if err != nil || r == nil {
			return nil, err
		}
		meta, f.route, f.Weights = r.meta, r, r.weights()
	} else {
		svc, err := s.clientset.CoreV1().Services(namespace).Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading service %q in namespace %q: %w", name, namespace, err)
		}
		meta, f.Selector = svc.ObjectMeta, svc.Spec.Selector
	}
	f.Release, f.uid, f.version = meta.Labels[FrontLabel], meta.UID, meta.ResourceVersion
	if by := meta.Annotations["meta.helm.sh/release-name"]; by != "" {
		f.By = clean(fmt.Sprintf("release %q of Helm", by))
	}
	return f, nil
}

// taken is a *FrontTakenError where what is there is not the front.
func (f *Front) taken(there *FrontState) error {
	if there == nil || there.Release == f.Release || f.Kind == FrontHTTPRoute && there.Release == "" && there.By == "" && len(f.Object) == 0 {
		return nil
	}
	by := there.By
	if there.Release != "" {
		by = clean(fmt.Sprintf("the front of release %q", there.Release))
	}
	return &FrontTakenError{Kind: f.Kind, Namespace: f.Namespace, Name: f.Name, By: by}
}

// CheckFront finds out, changing nothing, whether a front can be made, or be switched: errors are *[FrontTakenError] and
// *[FrontMissingError].
func (c *Cluster) CheckFront(ctx context.Context, f Front) error {
	s, err := c.open(ctx, f.Namespace)
	if err != nil {
		return err
	}
	there, err := s.readFront(ctx, f.Namespace, f.Kind, f.Name)
	if err != nil {
		return err
	}
	if err := f.taken(there); err != nil {
		return err
	}
	switch {
	case f.Kind == FrontHTTPRoute && there == nil && len(f.Object) == 0:
		return &FrontMissingError{Kind: f.Kind, Namespace: f.Namespace, Name: f.Name}
	case f.Kind == FrontHTTPRoute && there != nil && len(there.route.ours(&f)) == 0:
		return &FrontMissingError{Kind: f.Kind, Namespace: f.Namespace, Name: f.Name, There: true}
	}
	return nil
}

// Shared is how many pods of two versions are behind a front.
type Shared struct {
	Old, New int
}

// Percent is the share of the new ones, rounded.
func (s Shared) Percent() int {
	if s.Old+s.New == 0 {
		return 0
	}
	return (200*s.New + s.Old + s.New) / (2 * (s.Old + s.New))
}

// ApplyFront makes a front lead where f says, in one request, creating it where it is not there, and returns when it does.
// was is what it has led to before, nil for nothing: what was scaled for a canary gets its replicas back. Before the
// front is changed, all ready pods of what it is to lead to are endpoints, so that nobody is led to where nothing is.
// Nothing is stopped: the old version goes on as it is.
//
// It may be repeated until it succeeds. Errors are those of [Cluster.CheckFront], *[NoEndpointsError] and
// *[ForeignPodsError], in a *[FrontError].
func (c *Cluster) ApplyFront(ctx context.Context, f Front, was *Front) (Shared, error) {
	s, err := c.open(ctx, f.Namespace)
	if err != nil {
		return Shared{}, err
	}
	shared, err := s.applyFront(ctx, &f, was, c.timeout)
	if err != nil {
		return Shared{}, &FrontError{Kind: f.Kind, Namespace: f.Namespace, Name: f.Name, Err: err}
	}
	return shared, nil
}

func (s *session) applyFront(ctx context.Context, f, was *Front, timeout time.Duration) (Shared, error) {
	there, err := s.readFront(ctx, f.Namespace, f.Kind, f.Name)
	if err != nil {
		return Shared{}, err
	}
	if err := f.taken(there); err != nil {
		return Shared{}, err
	}
	if f.Kind == FrontHTTPRoute {
		return Shared{Old: 100 - f.Share, New: f.Share}, s.leadRoute(ctx, f, was, there, timeout)
	}
	var shared Shared
	if f.Also != "" {
		if shared, err = s.share(ctx, f, timeout); err != nil {
			return Shared{}, err
		}
	} else {
		// What gets all users has all its replicas before.
		if err := s.unscale(ctx, f.Namespace, f.of(f.To), timeout); err != nil {
			return Shared{}, err
		}
		n, err := s.awaitEndpoints(ctx, f.Namespace, f.of(f.To), 0, timeout)
		if err != nil {
			return Shared{}, err
		}
		shared.New = n
	}
	if err := s.leadService(ctx, f, there, timeout); err != nil {
		return Shared{}, err
	}
	if was != nil {
		for _, old := range []string{was.To, was.Also} {
			if old == "" || f.Also != "" || old == f.To {
				continue
			}
			if err := s.unscale(ctx, f.Namespace, was.of(old), 0); err != nil && !apierrors.IsNotFound(err) {
				return Shared{}, err
			}
		}
	}
	return shared, nil
}

// leadService makes a Service select the pods of f.To, or those that both versions have in common.
func (s *session) leadService(ctx context.Context, f *Front, there *FrontState, timeout time.Duration) error {
	services := s.clientset.CoreV1().Services(f.Namespace)
	to, err := services.Get(ctx, f.of(f.To), metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("reading the service of release %q: %w", f.To, err)
	}
	selector := to.Spec.Selector
	behind := []string{to.Name}
	if f.Also != "" {
		also, err := services.Get(ctx, f.of(f.Also), metav1.GetOptions{})
		if err != nil {
			return fmt.Errorf("reading the service of release %q: %w", f.Also, err)
		}
		if selector, err = s.common(ctx, to, also); err != nil {
			return err
		}
		behind = append(behind, also.Name)
	}
	if len(selector) == 0 {
		return fmt.Errorf("service %q selects no pods", to.Name)
	}
	object := map[string]any{
		"apiVersion": "v1", "kind": "Service",
		"metadata": map[string]any{"name": f.Name, "namespace": f.Namespace, "labels": map[string]any{FrontLabel: f.Release}},
		"spec":     map[string]any{"selector": selector, "ports": frontPorts(to.Spec.Ports), "sessionAffinity": cmp.Or(string(to.Spec.SessionAffinity), "None")},
	}
	if there != nil {
		// Not one that was deleted, and made by somebody else, since it was looked at.
		object["metadata"].(map[string]any)["uid"] = there.uid //nolint:forcetypeassert // it is made above
	}
	raw, err := json.Marshal(object)
	if err != nil {
		return err
	}
	force := true
	if _, err := services.Patch(ctx, f.Name, types.ApplyPatchType, raw, metav1.PatchOptions{FieldManager: FrontManager, Force: &force}); err != nil {
		return err
	}
	return s.awaitFront(ctx, f.Namespace, f.Name, behind, timeout)
}

// frontPorts are the ports of a Service, without those of the nodes.
func frontPorts(ports []corev1.ServicePort) []map[string]any {
	list := make([]map[string]any, 0, len(ports))
	for i := range ports {
		p := &ports[i]
		port := map[string]any{"port": p.Port, "targetPort": p.TargetPort, "protocol": cmp.Or(string(p.Protocol), "TCP")}
		if p.Name != "" {
			port["name"] = p.Name
		}
		if p.AppProtocol != nil {
			port["appProtocol"] = *p.AppProtocol
		}
		list = append(list, port)
	}
	return list
}

// common is the selector that finds the pods of two Services, and no others.
func (s *session) common(ctx context.Context, one, two *corev1.Service) (map[string]string, error) {
	b := chart.Behind{One: one.Spec.Selector, Two: two.Spec.Selector, Common: chart.CommonLabels(one.Spec.Selector, two.Spec.Selector)}
	if len(b.Common) == 0 {
		return nil, fmt.Errorf("the selectors of services %q and %q have nothing in common", one.Name, two.Name)
	}
	return b.Common, s.onlyThese(ctx, one.Namespace, b)
}

// CheckShares finds out whether other pods than those of two versions have the labels by which a front would find both. Then the
// error is a *[ForeignPodsError].
func (c *Cluster) CheckShares(ctx context.Context, namespace string, b chart.Behind) error {
	s, err := c.open(ctx, namespace)
	if err != nil {
		return err
	}
	return s.onlyThese(ctx, namespace, b)
}

func (s *session) onlyThese(ctx context.Context, namespace string, b chart.Behind) error {
	pods, err := s.behind(ctx, namespace, b.Common)
	if err != nil {
		return err
	}
	foreign := &ForeignPodsError{Namespace: namespace, Selector: labels.Set(b.Common).String()}
	one, two := labels.SelectorFromSet(b.One), labels.SelectorFromSet(b.Two)
	for i := range pods {
		if set := labels.Set(pods[i].Labels); !one.Matches(set) && !two.Matches(set) && len(foreign.Pods) < maxObjects {
			foreign.Pods = append(foreign.Pods, pods[i].Name)
		}
	}
	if len(foreign.Pods) > 0 {
		return foreign
	}
	return nil
}

// behind are the pods that a selector finds, but for those that have ended, or are about to.
func (s *session) behind(ctx context.Context, namespace string, selector map[string]string) ([]corev1.Pod, error) {
	if len(selector) == 0 {
		return nil, fmt.Errorf("a service in namespace %q selects no pods", namespace)
	}
	list, err := s.clientset.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{
		LabelSelector: labels.SelectorFromSet(selector).String(), Limit: maxFrontPods,
	})
	if err != nil {
		return nil, fmt.Errorf("listing the pods %s in namespace %q: %w", labels.Set(selector), namespace, err)
	}
	if list.Continue != "" {
		return nil, fmt.Errorf("there are more than %d pods %s in namespace %q", maxFrontPods, labels.Set(selector), namespace)
	}
	return slices.DeleteFunc(list.Items, func(p corev1.Pod) bool {
		return p.DeletionTimestamp != nil || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
	}), nil
}

// endpoints are the addresses of a Service that traffic is sent to.
func (s *session) endpoints(ctx context.Context, namespace, service string) (map[string]bool, error) {
	list, err := s.clientset.DiscoveryV1().EndpointSlices(namespace).List(ctx, metav1.ListOptions{
		LabelSelector: discoveryv1.LabelServiceName + "=" + service, Limit: maxFrontPods,
	})
	if err != nil {
		return nil, fmt.Errorf("listing the endpoints of service %q in namespace %q: %w", service, namespace, err)
	}
	ready := map[string]bool{}
	for i := range list.Items {
		for j := range list.Items[i].Endpoints {
			e := &list.Items[i].Endpoints[j]
			if e.Conditions.Ready != nil && !*e.Conditions.Ready {
				continue
			}
			for _, address := range e.Addresses {
				ready[address] = true
			}
		}
	}
	return ready, nil
}

// EndpointsReady counts the endpoints of a Service that traffic is sent to.
func (c *Cluster) EndpointsReady(ctx context.Context, namespace, service string) (int, error) {
	s, err := c.open(ctx, namespace)
	if err != nil {
		return 0, err
	}
	ready, err := s.endpoints(ctx, namespace, service)
	return len(ready), err
}

// await looks again and again until ok says yes, or has said with a *[NoEndpointsError] for too long that it does not yet.
func await(ctx context.Context, timeout time.Duration, ok func(ctx context.Context) error) error {
	bounded, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	tick := time.NewTicker(frontPoll)
	defer tick.Stop()
	var waits *NoEndpointsError
	for {
		err := ok(bounded)
		if waits != nil && bounded.Err() != nil && ctx.Err() == nil {
			return waits // the time was over in the middle of a look
		}
		if err == nil || !errors.As(err, &waits) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-bounded.Done():
			return waits
		case <-tick.C:
		}
	}
}

// awaitEndpoints waits until all ready pods of a Service, and at least want, are its endpoints, and counts them.
func (s *session) awaitEndpoints(ctx context.Context, namespace, service string, want int, timeout time.Duration) (n int, err error) {
	err = await(ctx, min(timeout, frontTimeout), func(ctx context.Context) error {
		svc, err := s.clientset.CoreV1().Services(namespace).Get(ctx, service, metav1.GetOptions{})
		if err != nil {
			return fmt.Errorf("reading service %q in namespace %q: %w", service, namespace, err)
		}
		pods, err := s.behind(ctx, namespace, svc.Spec.Selector)
		if err != nil {
			return err
		}
		ready := 0
		for i := range pods {
			if isReady(&pods[i]) {
				ready++
			}
		}
		found, err := s.endpoints(ctx, namespace, service)
		if err != nil {
			return err
		}
		if n = len(found); n < max(1, ready, want) {
			return &NoEndpointsError{Service: service, Namespace: namespace, Got: n, Want: max(1, ready, want)}
		}
		return nil
	})
	return n, err
}

// awaitFront waits until a front has the endpoints of the Services that it leads to, and no others.
func (s *session) awaitFront(ctx context.Context, namespace, front string, services []string, timeout time.Duration) error {
	return await(ctx, min(timeout, frontTimeout), func(ctx context.Context) error {
		want := map[string]bool{}
		for _, service := range services {
			found, err := s.endpoints(ctx, namespace, service)
			if err != nil {
				return err
			}
			maps.Copy(want, found)
		}
		got, err := s.endpoints(ctx, namespace, front)
		if err != nil {
			return err
		}
		if !maps.Equal(got, want) {
			return &NoEndpointsError{Service: front, Namespace: namespace, Got: len(got), Want: len(want)}
		}
		return nil
	})
}

// deployment is the one behind a Service.
func (s *session) deployment(ctx context.Context, namespace, service string) (*appsv1.Deployment, error) {
	svc, err := s.clientset.CoreV1().Services(namespace).Get(ctx, service, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("reading service %q in namespace %q: %w", service, namespace, err)
	}
	list, err := s.clientset.AppsV1().Deployments(namespace).List(ctx, metav1.ListOptions{Limit: maxFrontPods})
	if err != nil {
		return nil, fmt.Errorf("listing the deployments in namespace %q: %w", namespace, err)
	}
	var found []*appsv1.Deployment
	selector := labels.SelectorFromSet(svc.Spec.Selector)
	for i := range list.Items {
		if selector.Matches(labels.Set(list.Items[i].Spec.Template.Labels)) {
			found = append(found, &list.Items[i])
		}
	}
	if len(found) != 1 {
		return nil, fmt.Errorf("service %q in namespace %q has %d deployments behind it, want 1 to share users out by its replicas", service, namespace, len(found))
	}
	return found[0], nil
}

func replicas(d *appsv1.Deployment) int {
	if d.Spec.Replicas == nil {
		return 1
	}
	return int(*d.Spec.Replicas)
}

// share scales the new version so that it gets its share, as exactly as whole pods allow, beside what the old one has.
func (s *session) share(ctx context.Context, f *Front, timeout time.Duration) (Shared, error) {
	old, err := s.deployment(ctx, f.Namespace, f.of(f.To))
	if err != nil {
		return Shared{}, err
	}
	now, err := s.deployment(ctx, f.Namespace, f.of(f.Also))
	if err != nil {
		return Shared{}, err
	}
	if err := s.noAutoscaler(ctx, f.Namespace, old.Name, now.Name); err != nil {
		return Shared{}, err
	}
	shared := Shared{Old: replicas(old), New: podsFor(f.Share, replicas(old))}
	if shared.Old == 0 {
		return Shared{}, fmt.Errorf("deployment %q of the old version has no replicas to share users with", old.Name)
	}
	note := now.Annotations[replicasNote]
	if note == "" {
		note = strconv.Itoa(replicas(now))
	}
	if err := s.scale(ctx, now, shared.New, note); err != nil {
		return Shared{}, err
	}
	return shared, s.awaitScaled(ctx, now, f.of(f.Also), shared.New, timeout)
}

// podsFor is how many new pods beside old ones come next to a share in percent; at least one.
func podsFor(share, old int) int {
	rest := 100 - share
	return max(1, (2*old*share+rest)/(2*rest))
}

// noAutoscaler refuses Deployments whose replicas an autoscaler decides about.
func (s *session) noAutoscaler(ctx context.Context, namespace string, names ...string) error {
	list, err := s.clientset.AutoscalingV2().HorizontalPodAutoscalers(namespace).List(ctx, metav1.ListOptions{Limit: maxFrontPods})
	if err != nil {
		return fmt.Errorf("listing the autoscalers in namespace %q: %w", namespace, err)
	}
	for i := range list.Items {
		if target := list.Items[i].Spec.ScaleTargetRef; target.Kind == "Deployment" && slices.Contains(names, target.Name) {
			return fmt.Errorf("autoscaler %q decides about the replicas of deployment %q, by which users would be shared out", list.Items[i].Name, target.Name)
		}
	}
	return nil
}

// unscale gives the Deployment behind a Service the replicas back that it had before a canary, if it was scaled for one. It
// waits for them unless timeout is 0.
func (s *session) unscale(ctx context.Context, namespace, service string, timeout time.Duration) error {
	d, err := s.scaledFor(ctx, namespace, service)
	if err != nil || d == nil {
		return err
	}
	n, err := strconv.Atoi(d.Annotations[replicasNote])
	if err != nil || n < 0 || n > maxFrontPods {
		return fmt.Errorf("annotation %s of deployment %q is no number of replicas", replicasNote, d.Name)
	}
	if err := s.scale(ctx, d, n, ""); err != nil || timeout == 0 {
		return err
	}
	return s.awaitScaled(ctx, d, service, n, timeout)
}

// scaledFor is the Deployment behind a Service that was scaled for a canary; nil for none.
func (s *session) scaledFor(ctx context.Context, namespace, service string) (*appsv1.Deployment, error) {
	svc, err := s.clientset.CoreV1().Services(namespace).Get(ctx, service, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	list, err := s.clientset.AppsV1().Deployments(namespace).List(ctx, metav1.ListOptions{Limit: maxFrontPods})
	if err != nil {
		return nil, fmt.Errorf("listing the deployments in namespace %q: %w", namespace, err)
	}
	selector := labels.SelectorFromSet(svc.Spec.Selector)
	for i := range list.Items {
		d := &list.Items[i]
		if d.Annotations[replicasNote] != "" && selector.Matches(labels.Set(d.Spec.Template.Labels)) {
			return d, nil
		}
	}
	return nil, nil
}

// scale sets the replicas of a Deployment, noting how many it has otherwise; an empty note removes it.
func (s *session) scale(ctx context.Context, d *appsv1.Deployment, n int, note string) error {
	var kept any
	if note != "" {
		kept = note
	}
	raw, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"annotations": map[string]any{replicasNote: kept}},
		"spec":     map[string]any{"replicas": n},
	})
	if err != nil {
		return err
	}
	deployments := s.clientset.AppsV1().Deployments(d.Namespace)
	now, err := deployments.Patch(ctx, d.Name, types.MergePatchType, raw, metav1.PatchOptions{FieldManager: FrontManager})
	if err != nil {
		return fmt.Errorf("scaling deployment %q in namespace %q to %d: %w", d.Name, d.Namespace, n, err)
	}
	if err := s.disown(ctx, now); err != nil {
		return fmt.Errorf("giving up the replicas of deployment %q in namespace %q: %w", d.Name, d.Namespace, err)
	}
	return nil
}

// disownTries is how often giving up fields is tried: the controller writes the status at the same time.
const disownTries = 20

// disown has nobody own what this program has set in a Deployment, so that the next upgrade by Helm meets no other owner of
// spec.replicas that it would have to fight with.
func (s *session) disown(ctx context.Context, now *appsv1.Deployment) error {
	deployments := s.clientset.AppsV1().Deployments(now.Namespace)
	for try := 1; ; try++ {
		owners := slices.DeleteFunc(slices.Clone(now.ManagedFields), func(m metav1.ManagedFieldsEntry) bool { return m.Manager == FrontManager })
		if len(owners) == len(now.ManagedFields) {
			return nil
		}
		raw, err := json.Marshal([]map[string]any{
			{"op": "test", "path": "/metadata/resourceVersion", "value": now.ResourceVersion},
			{"op": "replace", "path": "/metadata/managedFields", "value": owners},
		})
		if err != nil {
			return err
		}
		_, err = deployments.Patch(ctx, now.Name, types.JSONPatchType, raw, metav1.PatchOptions{FieldManager: FrontManager})
		if err == nil || try == disownTries || !apierrors.IsConflict(err) && !apierrors.IsInvalid(err) {
			return err
		}
		if now, err = deployments.Get(ctx, now.Name, metav1.GetOptions{}); err != nil {
			return err
		}
	}
}

// awaitScaled waits until a Deployment has n ready pods, which are endpoints of its Service.
func (s *session) awaitScaled(ctx context.Context, d *appsv1.Deployment, service string, n int, timeout time.Duration) error {
	err := await(ctx, timeout, func(ctx context.Context) error {
		now, err := s.clientset.AppsV1().Deployments(d.Namespace).Get(ctx, d.Name, metav1.GetOptions{})
		if err != nil {
			return fmt.Errorf("reading deployment %q in namespace %q: %w", d.Name, d.Namespace, err)
		}
		st := now.Status
		if st.ObservedGeneration < now.Generation || int(st.AvailableReplicas) != n || int(st.Replicas) != n {
			return &NoEndpointsError{Service: service, Namespace: d.Namespace, Got: int(st.AvailableReplicas), Want: n}
		}
		return nil
	})
	if err != nil {
		return err
	}
	_, err = s.awaitEndpoints(ctx, d.Namespace, service, n, timeout)
	return err
}

// DeleteFront removes a front that Sealift made for a release. One that is not there, or that the site made, stays, without
// what Sealift put there. Errors are in a *[FrontError].
func (c *Cluster) DeleteFront(ctx context.Context, f Front) error {
	s, err := c.open(ctx, f.Namespace)
	if err != nil {
		return err
	}
	if err := s.deleteFront(ctx, &f); err != nil {
		return &FrontError{Kind: f.Kind, Namespace: f.Namespace, Name: f.Name, Err: err}
	}
	return nil
}

func (s *session) deleteFront(ctx context.Context, f *Front) error {
	there, err := s.readFront(ctx, f.Namespace, f.Kind, f.Name)
	if err != nil || there == nil {
		return err
	}
	if there.Release != f.Release {
		if f.Kind == FrontHTTPRoute && there.Release == "" && there.By == "" {
			f.To, f.Also = "", ""
			return s.writeRoute(ctx, f, there.route)
		}
		return nil
	}
	options := metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &there.uid}}
	if f.Kind == FrontHTTPRoute {
		err = s.deleteRoute(ctx, f.Namespace, f.Name, options)
	} else {
		err = s.clientset.CoreV1().Services(f.Namespace).Delete(ctx, f.Name, options)
	}
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
