package release

import (
	"context"
	"io"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// logLines and logBytes bound what is read of the log of a container.
	logLines = 10
	logBytes = 16 << 10
	// maxLogPods bounds the pods whose logs are read for one explanation.
	maxLogPods = 3
)

// failing is the container of a pod that keeps it from being ready; previous says that what it said is in the log of its
// former run. It is empty where no container has run.
func failing(pod *corev1.Pod) (container string, previous bool) {
	for _, statuses := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for i := range statuses {
			st := &statuses[i]
			switch {
			case st.State.Terminated != nil && st.State.Terminated.ExitCode != 0:
				return st.Name, false
			case st.State.Waiting != nil && st.RestartCount > 0:
				return st.Name, true
			case st.State.Running != nil && !st.Ready && st.RestartCount > 0:
				return st.Name, true
			case st.State.Running != nil && !st.Ready:
				return st.Name, false
			}
		}
	}
	return "", false
}

// tail is the end of the log of the container that fails, in lines without control characters. It is an explanation: what
// cannot be read is left out.
func (s *session) tail(ctx context.Context, pod *corev1.Pod) []string {
	container, previous := failing(pod)
	if container == "" {
		return nil
	}
	if lines := s.log(ctx, pod, container, previous); len(lines) > 0 || !previous {
		return lines
	}
	return s.log(ctx, pod, container, false)
}

func (s *session) log(ctx context.Context, pod *corev1.Pod, container string, previous bool) []string {
	lines, size := int64(logLines), int64(logBytes)
	stream, err := s.clientset.CoreV1().Pods(pod.Namespace).GetLogs(pod.Name, &corev1.PodLogOptions{
		Container: container, Previous: previous, TailLines: &lines, LimitBytes: &size,
	}).Stream(ctx)
	if err != nil {
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(stream, logBytes))
	if firstError(err, stream.Close()) != nil && len(text) == 0 {
		return nil
	}
	var out []string
	for line := range strings.SplitSeq(string(text), "\n") {
		if line = clean(line); line != "" {
			out = append(out, line)
		}
	}
	return out[max(0, len(out)-logLines):]
}

// podOf finds the pod of a Job, or the pod itself, that tells most: the newest that failed, else the newest.
func (s *session) podOf(ctx context.Context, kind, name, namespace string) *corev1.Pod {
	o := metav1.ListOptions{Limit: maxListed, LabelSelector: "job-name=" + name}
	if kind == "Pod" {
		o = metav1.ListOptions{Limit: 1, FieldSelector: "metadata.name=" + name}
	}
	list, err := s.clientset.CoreV1().Pods(namespace).List(ctx, o)
	if err != nil {
		return nil
	}
	var best *corev1.Pod
	for i := range list.Items {
		pod := &list.Items[i]
		better := best == nil || (bad(pod) && !bad(best)) ||
			(bad(pod) == bad(best) && pod.CreationTimestamp.After(best.CreationTimestamp.Time))
		if better {
			best = pod
		}
	}
	return best
}

// bad says that a pod has failed, or keeps failing.
func bad(pod *corev1.Pod) bool {
	container, _ := failing(pod)
	return pod.Status.Phase == corev1.PodFailed || container != ""
}

// why completes a JobError with the pod of a Job, and what it said last.
func (s *session) why(ctx context.Context, e *JobError, kind, name string) {
	pod := s.podOf(ctx, kind, name, e.Namespace)
	if pod == nil {
		return
	}
	e.Pod = clean(pod.Name)
	if e.Log = s.tail(ctx, pod); len(e.Log) == 0 {
		e.Log = podProblems(pod)
	}
}
