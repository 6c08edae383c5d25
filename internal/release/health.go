package release

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"helm.sh/helm/v4/pkg/release/common"
	releasev1 "helm.sh/helm/v4/pkg/release/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cli-runtime/pkg/resource"
)

const (
	// maxExamined bounds the objects of a release that are looked at; for each there are two requests at most.
	maxExamined = 2000
	// maxPages bounds how often a list of maxListed goes on.
	maxPages = 20
	// maxRunningPods is how many pods are named for one image.
	maxRunningPods = 5
)

// Examined is what a cluster has of a release.
type Examined struct {
	// Newest is Helm's newest revision, Status what Helm says of it; 0 where Helm knows no such release.
	Newest int    `json:"newest"`
	Status string `json:"status,omitempty"`
	// Compared says that the revision asked for is recorded, so that objects were compared with it.
	Compared bool `json:"compared"`
	// Objects counts those that were looked at.
	Objects int `json:"objects"`
	// Drift are the objects that are not as the revision has them.
	Drift []Drift `json:"drift"`
	// Unhealthy are the objects that are not ready, as kstatus judges, and pods.
	Unhealthy []Unhealthy `json:"unhealthy"`
	// Pods that run for it, Restarts of their containers together.
	Pods     int `json:"pods"`
	Restarts int `json:"restarts"`
	// Images are what runs in them, each image once.
	Images []Running `json:"images"`
	// Unread says what could not be found out, and why.
	Unread []string `json:"unread"`
}

// Unhealthy is an object, or a pod, that is not as it should be.
type Unhealthy struct {
	// Object is "KIND/NAMESPACE/NAME".
	Object string `json:"object"`
	// Status is that of kstatus ("InProgress", "Failed"), "NotReady" for pods.
	Status string `json:"status"`
	Reason string `json:"reason"`
}

// Running is an image that runs.
type Running struct {
	// Reference is what the pod asks for, ID the digest that the node says it is.
	Reference string `json:"reference"`
	ID        string `json:"id"`
	// Containers counts them, Pods names a few, as "NAMESPACE/NAME".
	Containers int      `json:"containers"`
	Pods       []string `json:"pods"`
}

// Examine looks at a release: what Helm knows of it, whether its objects are as the given revision recorded them (see Drift),
// whether they are healthy, and what runs. It changes nothing, and what the account may not read is said in the result instead of
// failing. Errors are *[UnreachableError], or that of ctx.
func (c *Cluster) Examine(ctx context.Context, namespace, name string, revision int) (*Examined, error) {
	s, err := c.open(ctx, namespace)
	if err != nil {
		return nil, err
	}
	e := &Examined{Drift: []Drift{}, Unhealthy: []Unhealthy{}, Images: []Running{}, Unread: []string{}}
	x := &examination{session: s, result: e, namespace: namespace, release: name, unread: map[string]int{}, scaled: map[string]map[string]bool{}}
	h, err := s.history(name)
	if err := c.ended(ctx, err); err != nil {
		return nil, err
	}
	if err != nil {
		x.unreadable("what Helm has recorded of the release", err)
		x.report()
		return e, nil
	}
	if last := h.last(); last != nil {
		e.Newest, e.Status = last.Version, last.Info.Status.String()
	}
	recorded := h.revision(revision)
	if recorded == nil {
		if e.Newest > 0 {
			e.Unread = append(e.Unread, fmt.Sprintf("its objects: revision %d is not recorded any more", revision))
		}
		return e, nil
	}
	e.Compared = true
	if err := c.ended(ctx, x.objects(ctx, recorded)); err != nil {
		return nil, err
	}
	if err := c.ended(ctx, x.pods(ctx)); err != nil {
		return nil, err
	}
	x.report()
	return e, nil
}

// Healthy says that nothing is wrong, as far as could be seen: the release is deployed at the revision asked for, its objects are
// there as they were recorded, and ready.
func (e *Examined) Healthy() bool {
	return e.Status == common.StatusDeployed.String() && len(e.Drift)+len(e.Unhealthy) == 0
}

// ended is the error that ends an examination: that of ctx, or that the cluster does not answer.
func (c *Cluster) ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var answer apierrors.APIStatus
	if err == nil || errors.As(err, &answer) {
		return nil
	}
	if isNoAnswer(err) {
		return &UnreachableError{Server: c.server, Err: err}
	}
	return nil
}

func (h history) revision(n int) *releasev1.Release {
	for _, r := range h {
		if r.Version == n {
			return r
		}
	}
	return nil
}

// examination is the examining of one release.
type examination struct {
	*session
	result             *Examined
	namespace, release string
	live               []*unstructured.Unstructured
	// unread counts what could not be found out, by what and why.
	unread map[string]int
	// scaled are the objects that an autoscaler scales, as "KIND/NAME", by namespace; nil for one that cannot be read.
	scaled map[string]map[string]bool
}

func (x *examination) unreadable(what string, err error) {
	why := "it failed: " + clean(err.Error())
	if apierrors.IsForbidden(err) {
		why = "the account may not read it: " + clean(err.Error())
	}
	x.unread[what+": "+why]++
}

// report writes down what could not be found out, each once.
func (x *examination) report() {
	for _, text := range slices.Sorted(maps.Keys(x.unread)) {
		if n := x.unread[text]; n > 1 {
			text = fmt.Sprintf("%s (%d times)", text, n)
		}
		x.result.Unread = append(x.result.Unread, text)
	}
}

// objects compares the objects of a revision with what is there, and judges them.
func (x *examination) objects(ctx context.Context, r *releasev1.Release) error {
	docs := recordedDocuments(r.Manifest)
	if more := len(docs) - maxExamined; more > 0 {
		x.result.Unread = append(x.result.Unread, fmt.Sprintf("%d more objects: only %d are looked at", more, maxExamined))
		docs = docs[:maxExamined]
	}
	for _, doc := range docs {
		if err := ctx.Err(); err != nil {
			return err
		}
		// One by one, so that one kind that the cluster does not know any more hides only its own objects.
		infos, err := x.cfg.KubeClient.Build(strings.NewReader(doc), false)
		if err != nil {
			if isNoAnswer(err) {
				return err
			}
			what := documentName(doc, x.namespace)
			if isUnknownKind(err) {
				x.result.Drift = append(x.result.Drift, Drift{Object: what, Missing: true, Fields: []DriftField{}})
				continue
			}
			x.unreadable(what, err)
			continue
		}
		for _, info := range infos {
			if err := x.object(ctx, info); err != nil {
				return err
			}
		}
	}
	return nil
}

// object looks at one object.
func (x *examination) object(ctx context.Context, info *resource.Info) error {
	recorded, err := asUnstructured(info.Object)
	if err != nil {
		return err
	}
	x.result.Objects++
	name := objectName(info.Mapping.GroupVersionKind.Kind, info.Namespace, info.Name)
	got, err := resource.NewHelper(info.Client, info.Mapping).Get(info.Namespace, info.Name)
	switch {
	case apierrors.IsNotFound(err):
		x.result.Drift = append(x.result.Drift, Drift{Object: name, Missing: true, Fields: []DriftField{}})
		return nil
	case err != nil && isNoAnswer(err):
		return err
	case err != nil:
		x.unreadable(info.Mapping.GroupVersionKind.Kind+" objects", err)
		return nil
	}
	live, err := asUnstructured(got)
	if err != nil {
		return err
	}
	x.live = append(x.live, live)
	drift, err := x.drift(ctx, info, recorded, live)
	if err != nil {
		return err
	}
	if drift != nil {
		drift.Object = name
		x.result.Drift = append(x.result.Drift, *drift)
	}
	if result, err := status.Compute(live); err == nil && result.Status != status.CurrentStatus {
		x.result.Unhealthy = append(x.result.Unhealthy, Unhealthy{name, string(result.Status), clean(result.Message)})
	}
	return nil
}

func objectName(kind, namespace, name string) string {
	if namespace == "" {
		return clean(kind + "/" + name)
	}
	return clean(kind + "/" + namespace + "/" + name)
}

// pods looks at the pods that run for the objects.
func (x *examination) pods(ctx context.Context) error {
	families := map[string]*family{}
	for _, u := range x.live {
		w := workload{u.GetKind(), u.GetName(), u.GetUID(), selectorOf(u)}
		switch u.GetKind() {
		case "Pod", "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job", "CronJob":
		default:
			// A resource of an operator may have a selector that means something else; its pods are found by their owner.
			w.selector = nil
		}
		f := families[u.GetNamespace()]
		if f == nil {
			f = &family{known: map[string]types.UID{}, uids: map[types.UID]bool{}}
			families[u.GetNamespace()] = f
		}
		f.workloads = append(f.workloads, w)
		f.add(w.kind, &metav1.ObjectMeta{Name: w.name, UID: w.uid})
	}
	images := map[[2]string]*Running{}
	for _, namespace := range slices.Sorted(maps.Keys(families)) {
		if namespace == "" {
			continue
		}
		if err := x.podsIn(ctx, namespace, families[namespace], images); err != nil {
			return err
		}
	}
	for _, key := range slices.SortedFunc(maps.Keys(images), func(a, b [2]string) int {
		return strings.Compare(a[0]+"\x00"+a[1], b[0]+"\x00"+b[1])
	}) {
		x.result.Images = append(x.result.Images, *images[key])
	}
	return nil
}

func (x *examination) podsIn(ctx context.Context, namespace string, f *family, images map[[2]string]*Running) error {
	// Owners come before what they own. Without the right to list them, pods are found by the selectors of workloads.
	err := x.pages("the Jobs of namespace "+namespace, func(o metav1.ListOptions) (string, error) {
		list, err := x.clientset.BatchV1().Jobs(namespace).List(ctx, o)
		if err != nil {
			return "", err
		}
		for i := range list.Items {
			f.add("Job", &list.Items[i])
		}
		return list.Continue, nil
	})
	if err != nil {
		return err
	}
	err = x.pages("the ReplicaSets of namespace "+namespace, func(o metav1.ListOptions) (string, error) {
		list, err := x.clientset.AppsV1().ReplicaSets(namespace).List(ctx, o)
		if err != nil {
			return "", err
		}
		for i := range list.Items {
			f.add("ReplicaSet", &list.Items[i])
		}
		return list.Continue, nil
	})
	if err != nil {
		return err
	}
	return x.pages("the pods of namespace "+namespace, func(o metav1.ListOptions) (string, error) {
		list, err := x.clientset.CoreV1().Pods(namespace).List(ctx, o)
		if err != nil {
			return "", err
		}
		for i := range list.Items {
			if pod := &list.Items[i]; pod.DeletionTimestamp == nil && f.add("Pod", pod) {
				x.pod(pod, images)
			}
		}
		return list.Continue, nil
	})
}

// pages reads a list page by page.
func (x *examination) pages(what string, page func(metav1.ListOptions) (string, error)) error {
	o := metav1.ListOptions{Limit: maxListed}
	for range maxPages {
		next, err := page(o)
		switch {
		case err != nil && isNoAnswer(err):
			return err
		case err != nil:
			x.unreadable(what, err)
			return nil
		case next == "":
			return nil
		}
		o.Continue = next
	}
	x.unread[fmt.Sprintf("%s: only the first %d are looked at", what, maxPages*maxListed)]++
	return nil
}

// pod counts a pod, what runs in it, and what is wrong with it.
func (x *examination) pod(pod *corev1.Pod, images map[[2]string]*Running) {
	// What has ended runs no more; whether it should have is what its owner says.
	if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return
	}
	x.result.Pods++
	name := objectName("Pod", pod.Namespace, pod.Name)
	for _, line := range podProblems(pod) {
		_, reason, _ := strings.Cut(line, "Pod/"+pod.Name)
		x.result.Unhealthy = append(x.result.Unhealthy, Unhealthy{name, "NotReady", strings.TrimLeft(reason, ": ")})
	}
	for _, statuses := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for i := range statuses {
			st := &statuses[i]
			x.result.Restarts += int(st.RestartCount)
			id := imageDigest(st.ImageID)
			if id == "" {
				continue
			}
			key := [2]string{clean(specImage(pod, st.Name, st.Image)), id}
			r := images[key]
			if r == nil {
				r = &Running{Reference: key[0], ID: id}
				images[key] = r
			}
			r.Containers++
			if at := clean(pod.Namespace + "/" + pod.Name); len(r.Pods) < maxRunningPods && !slices.Contains(r.Pods, at) {
				r.Pods = append(r.Pods, at)
			}
		}
	}
}

// specImage is what a pod asks for; the status names what the node made of it.
func specImage(pod *corev1.Pod, container, otherwise string) string {
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if list[i].Name == container {
				return list[i].Image
			}
		}
	}
	return otherwise
}

var imageIDPattern = regexp.MustCompile(`sha256:[0-9a-f]{64}\z`)

// imageDigest is the digest in what a node calls an image: "NAME@sha256:…" of what was pulled, "sha256:…" of the configuration of
// what was loaded, with a scheme before it from older nodes. It is empty where there is none yet.
func imageDigest(id string) string { return imageIDPattern.FindString(id) }

// Holding says who holds the lease of a bundle, dead or alive.
type Holding struct {
	// Holder is "HOST/PROCESS/RUN"; empty for nobody.
	Holder string `json:"holder"`
	// Renewed is when the holder said last that it is alive, by its own clock; Duration is how long others watch a lease that is not
	// renewed before they take it.
	Renewed  time.Time     `json:"renewed"`
	Duration time.Duration `json:"duration"`
}

// Holding reads the lease of a bundle, at once: see [Ledger.Watch] for who has to know whether its holder is alive. Errors are *[ForbiddenError]
// among others.
func (l *Ledger) Holding(ctx context.Context, bundle string) (*Holding, error) {
	found, err := l.leaseOf(ctx, bundle)
	if err != nil {
		return nil, forbid(err)
	}
	if found == nil {
		return &Holding{}, nil
	}
	h := &Holding{Holder: clean(holderOf(found)), Duration: stated(found)}
	if found.Spec.RenewTime != nil {
		h.Renewed = found.Spec.RenewTime.Time
	}
	return h, nil
}
