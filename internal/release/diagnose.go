package release

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	releasev1 "helm.sh/helm/v4/pkg/release/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
)

const (
	// maxDiagnosis bounds the lines of a diagnosis besides those of logs, maxLine
	// each of them, and maxListed what is read for it.
	maxDiagnosis = 20
	maxLine      = 300
	maxListed    = 500
	// logIndent is before the lines of a log.
	logIndent = "    "
)

// Diagnose explains in a few short lines why a release is not ready: its pods
// that are not, with the reason that Kubernetes gives (ImagePullBackOff and the
// like), and the warnings about its objects since the newest revision was begun,
// newest first. Below each of the first three of these pods is the end of the
// log of the container that fails, indented. Hooks are included; what is gone or
// going is not. The lines contain no control characters, whatever the cluster says.
func (c *Cluster) Diagnose(ctx context.Context, namespace, release string) ([]string, error) {
	s, err := c.open(ctx, namespace)
	if err != nil {
		return nil, err
	}
	h, err := s.history(release)
	if err != nil {
		return nil, err
	}
	f := &family{workloads: s.workloads(h.last(), release), known: map[string]types.UID{}, uids: map[types.UID]bool{}}
	for _, w := range f.workloads {
		f.add(w.kind, &metav1.ObjectMeta{Name: w.name, UID: w.uid})
	}
	pods, err := s.pods(ctx, namespace, f)
	if err != nil {
		return nil, err
	}
	var lines []string
	logs, logged := 0, 0 // pods, and lines of theirs
	for _, pod := range pods {
		problems := podProblems(pod)
		lines = append(lines, problems...)
		if len(problems) == 0 || logs == maxLogPods || len(lines) > maxDiagnosis+logged {
			continue
		}
		tail := s.tail(ctx, pod)
		if len(tail) > 0 {
			logs++
		}
		for _, line := range tail {
			lines = append(lines, logIndent+line)
		}
		logged += len(tail)
	}
	events, err := s.clientset.CoreV1().Events(namespace).List(ctx, metav1.ListOptions{
		FieldSelector: "type=" + corev1.EventTypeWarning, Limit: maxListed,
	})
	if err != nil {
		return nil, fmt.Errorf("listing the events of namespace %q: %w", namespace, forbid(err))
	}
	lines = append(lines, warningLines(events.Items, f, s.began(ctx, h.last()))...)
	if more := len(lines) - maxDiagnosis - logged; more > 0 {
		lines = append(lines[:maxDiagnosis+logged-1], fmt.Sprintf("and %d more", more+1))
	}
	return lines, nil
}

// began is when a revision was begun, by the clock of the cluster; zero if that
// is not known.
func (s *session) began(ctx context.Context, r *releasev1.Release) time.Time {
	if r == nil {
		return time.Time{}
	}
	record, err := s.clientset.CoreV1().Secrets(r.Namespace).Get(ctx, fmt.Sprintf("%s%s.v%d", recordPrefix, r.Name, r.Version), metav1.GetOptions{})
	if err != nil {
		return time.Time{} // and nothing is too old
	}
	return record.CreationTimestamp.Time
}

// workload is an object of the release, and how to recognise its pods.
type workload struct {
	kind, name string
	uid        types.UID
	selector   labels.Selector // nil: a pod itself, or no pods
}

// workloads lists the objects of a revision and of its hooks, as far as they
// exist. Without a revision, the label that charts put on their pods by
// convention must do.
func (s *session) workloads(r *releasev1.Release, release string) []workload {
	if r == nil {
		return []workload{{name: release, selector: labels.SelectorFromSet(labels.Set{"app.kubernetes.io/instance": release})}}
	}
	manifests := []string{r.Manifest}
	for _, h := range r.Hooks {
		if !h.LastRun.StartedAt.IsZero() {
			manifests = append(manifests, h.Manifest)
		}
	}
	var found []workload
	for _, manifest := range manifests {
		resources, err := s.cfg.KubeClient.Build(strings.NewReader(manifest), false)
		if err != nil {
			continue // an explanation of the rest is better than none
		}
		live, err := s.cfg.KubeClient.Get(resources, false)
		if err != nil {
			continue
		}
		for _, objects := range live {
			for _, o := range objects {
				if u, err := asUnstructured(o); err == nil && u.GetName() != "" {
					found = append(found, workload{u.GetKind(), u.GetName(), u.GetUID(), selectorOf(u)})
				}
			}
		}
	}
	return found
}

// family is the objects of a release, with those that Kubernetes made for them.
type family struct {
	workloads []workload
	known     map[string]types.UID // by "KIND/NAME"
	uids      map[types.UID]bool
}

// add notes an object if it belongs to the release.
func (f *family) add(kind string, o metav1.Object) bool {
	mine := slices.ContainsFunc(f.workloads, func(w workload) bool {
		return (w.kind == kind && w.name == o.GetName()) || (w.selector != nil && w.selector.Matches(labels.Set(o.GetLabels())))
	}) || slices.ContainsFunc(o.GetOwnerReferences(), func(r metav1.OwnerReference) bool { return f.uids[r.UID] })
	if mine {
		f.known[kind+"/"+o.GetName()] = o.GetUID()
		f.uids[o.GetUID()] = true
	}
	return mine
}

// has says whether an event is about an object of the family, and not about one
// of the same name that is gone.
func (f *family) has(ref corev1.ObjectReference) bool {
	uid, ok := f.known[ref.Kind+"/"+ref.Name]
	return ok && (uid == "" || ref.UID == "" || uid == ref.UID)
}

// pods completes a family with what Kubernetes makes for workloads, and returns
// its pods. What is going does not count.
func (s *session) pods(ctx context.Context, namespace string, f *family) ([]*corev1.Pod, error) {
	o := metav1.ListOptions{Limit: maxListed}
	// Not everybody may list these: then their events are missing.
	if jobs, err := s.clientset.BatchV1().Jobs(namespace).List(ctx, o); err == nil {
		for i := range jobs.Items {
			f.add("Job", &jobs.Items[i])
		}
	}
	if sets, err := s.clientset.AppsV1().ReplicaSets(namespace).List(ctx, o); err == nil {
		for i := range sets.Items {
			f.add("ReplicaSet", &sets.Items[i])
		}
	}
	if claims, err := s.clientset.CoreV1().PersistentVolumeClaims(namespace).List(ctx, o); err == nil {
		for i := range claims.Items {
			f.add("PersistentVolumeClaim", &claims.Items[i])
		}
	}
	all, err := s.clientset.CoreV1().Pods(namespace).List(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("listing the pods of namespace %q: %w", namespace, forbid(err))
	}
	var pods []*corev1.Pod
	for i := range all.Items {
		pod := &all.Items[i]
		if pod.DeletionTimestamp == nil && f.add("Pod", pod) {
			pods = append(pods, pod)
		}
	}
	return pods, nil
}

func selectorOf(u *unstructured.Unstructured) labels.Selector {
	if u.GetKind() == "Job" {
		// Its own selector is set by the cluster.
		return labels.SelectorFromSet(labels.Set{"job-name": u.GetName()})
	}
	raw, ok, err := unstructured.NestedMap(u.Object, "spec", "selector")
	if !ok || err != nil {
		return nil
	}
	var selector metav1.LabelSelector
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(raw, &selector); err != nil {
		return nil
	}
	if len(selector.MatchLabels)+len(selector.MatchExpressions) == 0 {
		return nil // a Service, whose selector is a plain map
	}
	parsed, err := metav1.LabelSelectorAsSelector(&selector)
	if err != nil {
		return nil
	}
	return parsed
}

func podProblems(pod *corev1.Pod) []string {
	if pod.Status.Phase == corev1.PodSucceeded || isReady(pod) {
		return nil
	}
	name := "Pod/" + pod.Name
	var lines []string
	if pod.Status.Phase == corev1.PodFailed && pod.Status.Reason != "" {
		lines = append(lines, problem(name, pod.Status.Reason, pod.Status.Message))
	}
	for _, statuses := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for _, st := range statuses {
			at := name + " container " + st.Name
			switch {
			case st.State.Waiting != nil && st.State.Waiting.Reason != "PodInitializing" && st.State.Waiting.Reason != "ContainerCreating":
				lines = append(lines, problem(at, st.State.Waiting.Reason, st.State.Waiting.Message))
			case st.State.Terminated != nil && st.State.Terminated.ExitCode != 0:
				lines = append(lines, problem(at, fmt.Sprintf("%s (exit code %d)", st.State.Terminated.Reason, st.State.Terminated.ExitCode),
					st.State.Terminated.Message))
			case st.State.Running != nil && !st.Ready:
				lines = append(lines, problem(at, "running but not ready", ""))
			}
		}
	}
	if len(lines) > 0 {
		return lines
	}
	for _, cond := range pod.Status.Conditions {
		if cond.Status != corev1.ConditionTrue && cond.Reason != "" && cond.Type == corev1.PodScheduled {
			return []string{problem(name, cond.Reason, cond.Message)}
		}
	}
	return []string{problem(name, "not ready", "phase "+string(pod.Status.Phase))}
}

func isReady(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// warningLines lists the newest warnings about a family since a time, each text once.
func warningLines(events []corev1.Event, f *family, since time.Time) []string {
	slices.SortStableFunc(events, func(a, b corev1.Event) int { return eventTime(b).Compare(eventTime(a)) })
	var lines []string
	for _, e := range events {
		// The node's clock may be behind that of the cluster, which gave the
		// event its time of creation.
		old := eventTime(e).Before(since) && e.CreationTimestamp.Time.Before(since)
		if old || !f.has(e.InvolvedObject) {
			continue
		}
		line := problem("event "+e.InvolvedObject.Kind+"/"+e.InvolvedObject.Name, e.Reason, e.Message)
		if !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	return lines
}

func eventTime(e corev1.Event) time.Time {
	switch {
	case e.Series != nil:
		return e.Series.LastObservedTime.Time
	case !e.LastTimestamp.IsZero():
		return e.LastTimestamp.Time
	}
	return e.EventTime.Time
}

func problem(where, reason, message string) string {
	line := where + ": " + reason
	if message != "" {
		line += ": " + message
	}
	return clean(line)
}

// clean makes one short printable line of a text from the cluster.
func clean(s string) string {
	s = strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)), " ")
	if runes := []rune(s); len(runes) > maxLine {
		return string(runes[:maxLine-1]) + "…"
	}
	return s
}
