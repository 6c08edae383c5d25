package release

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"unicode"

	releasev1 "helm.sh/helm/v4/pkg/release/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
)

const (
	// maxDiagnosis bounds the lines of a diagnosis, maxLine each of them, and
	// maxListed what is read for it.
	maxDiagnosis = 20
	maxLine      = 300
	maxListed    = 500
)

// Diagnose explains in a few short lines why a release is not ready: its pods
// that are not, with the reason that Kubernetes gives (ImagePullBackOff and the
// like), and the newest warnings about its objects. Hooks are included. The
// lines contain no control characters, whatever the cluster says.
func (c *Cluster) Diagnose(ctx context.Context, namespace, release string) ([]string, error) {
	s, err := c.open(ctx, namespace)
	if err != nil {
		return nil, err
	}
	h, err := s.history(release)
	if err != nil {
		return nil, err
	}
	workloads := s.workloads(h.last(), release)
	pods, err := s.clientset.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{Limit: maxListed})
	if err != nil {
		return nil, fmt.Errorf("listing the pods of namespace %q: %w", namespace, err)
	}
	var lines []string
	for i := range pods.Items {
		pod := &pods.Items[i]
		if slices.ContainsFunc(workloads, func(w workload) bool { return w.owns(pod) }) {
			lines = append(lines, podProblems(pod)...)
		}
	}
	events, err := s.clientset.CoreV1().Events(namespace).List(ctx, metav1.ListOptions{
		FieldSelector: "type=" + corev1.EventTypeWarning, Limit: maxListed,
	})
	if err != nil {
		return nil, fmt.Errorf("listing the events of namespace %q: %w", namespace, err)
	}
	lines = append(lines, warningLines(events.Items, workloads)...)
	if more := len(lines) - maxDiagnosis; more > 0 {
		lines = append(lines[:maxDiagnosis-1], fmt.Sprintf("and %d more", more+1))
	}
	return lines, nil
}

// workload is an object of the release, and how to recognise its pods.
type workload struct {
	kind, name string
	selector   labels.Selector // nil: a pod itself, or no pods
}

func (w workload) owns(pod *corev1.Pod) bool {
	if w.kind == "Pod" {
		return w.name == pod.Name
	}
	return w.selector != nil && w.selector.Matches(labels.Set(pod.Labels))
}

// concerns says whether an event is about the workload, or about something that
// it made, whose name begins with its own.
func (w workload) concerns(ref corev1.ObjectReference) bool {
	return ref.Name == w.name || strings.HasPrefix(ref.Name, w.name+"-")
}

// workloads lists the objects of a revision and of its hooks. Without a
// revision, the label that charts put on their pods by convention must do.
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
		for _, info := range resources {
			u, err := asUnstructured(info.Object)
			if err == nil && u.GetName() != "" {
				found = append(found, workload{kind: u.GetKind(), name: u.GetName(), selector: selectorOf(u)})
			}
		}
	}
	return found
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

// warningLines lists the newest warnings about the workloads, each text once.
func warningLines(events []corev1.Event, workloads []workload) []string {
	slices.SortStableFunc(events, func(a, b corev1.Event) int { return eventTime(b).Compare(eventTime(a).Time) })
	var lines []string
	for _, e := range events {
		if !slices.ContainsFunc(workloads, func(w workload) bool { return w.concerns(e.InvolvedObject) }) {
			continue
		}
		line := problem("event "+e.InvolvedObject.Kind+"/"+e.InvolvedObject.Name, e.Reason, e.Message)
		if !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	return lines
}

func eventTime(e corev1.Event) metav1.Time {
	switch {
	case e.Series != nil:
		return metav1.Time{Time: e.Series.LastObservedTime.Time}
	case !e.LastTimestamp.IsZero():
		return e.LastTimestamp
	}
	return metav1.Time{Time: e.EventTime.Time}
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
