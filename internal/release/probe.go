package release

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// probeLabel marks the pods of a probe with its run.
	probeLabel = "sealift/probe"
	// probeCommand is not there in any image, so that nothing of it is run.
	probeCommand = "/sealift-probe-runs-nothing"
	// probePoll is the time between two looks, probeOld the age at which pods of another probe are taken to be left over.
	probePoll = 500 * time.Millisecond
	probeOld  = 15 * time.Minute
	// maxProbed bounds the nodes that are probed at the same time.
	maxProbed = 200
)

// Probe says what is to be pulled where.
type Probe struct {
	Namespace string
	// Images are references by platform, "OS/ARCHITECTURE"; nodes of others are left out.
	Images map[string]string
	// PullSecrets are names of Secrets of the namespace.
	PullSecrets []string
	// Timeout bounds the whole; 0 for two minutes.
	Timeout time.Duration
}

// Probed is what became of a node.
type Probed struct {
	Node  string
	Image string
	// Failure is why it could not pull, in the words of its kubelet; empty where it could.
	Failure string
	// Skipped is why it was not tried; empty where it was.
	Skipped string
}

// Probe has each node that takes pods pull an image, by a pod that runs nothing, and deletes these pods in any case. An error says that
// this could not be done.
func (c *Cluster) Probe(ctx context.Context, p Probe) (results []Probed, err error) {
	s, err := c.open(ctx, p.Namespace)
	if err != nil {
		return nil, err
	}
	if p.Timeout <= 0 {
		p.Timeout = 2 * time.Minute
	}
	list, err := s.clientset.CoreV1().Nodes().List(ctx, metav1.ListOptions{Limit: maxNodes})
	if err != nil {
		return nil, fmt.Errorf("listing nodes: %w", err)
	}
	id := make([]byte, 5)
	_, _ = rand.Read(id) // never fails
	run := hex.EncodeToString(id)
	waiting := map[string]int{} // pods by name
	defer func() {
		err = errors.Join(err, c.endProbe(ctx, p.Namespace, run))
	}()
	for n := range list.Items {
		node := roomOf(&list.Items[n])
		r := Probed{Node: node.Name, Image: p.Images[node.Platform], Skipped: node.Blocked}
		switch {
		case r.Skipped != "":
		case r.Image == "":
			r.Skipped = "the bundle has no image for " + node.Platform
		case len(waiting) == maxProbed:
			r.Skipped = fmt.Sprintf("%d nodes are enough", maxProbed)
		default:
			pod := probePod(p, run, len(results), list.Items[n].Name, r.Image)
			if _, err := s.clientset.CoreV1().Pods(p.Namespace).Create(ctx, pod, metav1.CreateOptions{FieldManager: userAgent}); err != nil {
				return results, fmt.Errorf("creating a pod for node %q: %w", node.Name, err)
			}
			waiting[pod.Name] = len(results)
		}
		results = append(results, r)
	}
	return results, s.awaitProbes(ctx, p, run, waiting, results)
}

// awaitProbes looks at the pods until all have shown whether they can be pulled.
func (s *session) awaitProbes(ctx context.Context, p Probe, run string, waiting map[string]int, results []Probed) error {
	ctx, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	tick := time.NewTicker(probePoll)
	defer tick.Stop()
	last := map[string]string{}
	for len(waiting) > 0 {
		pods, err := s.clientset.CoreV1().Pods(p.Namespace).List(ctx, metav1.ListOptions{LabelSelector: probeLabel + "=" + run, Limit: maxProbed})
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("listing the pods of the probe in namespace %q: %w", p.Namespace, err)
		}
		for n := range pods.Items {
			pod := &pods.Items[n]
			at, ok := waiting[pod.Name]
			if !ok {
				continue
			}
			pulled, failure := pullState(pod)
			if failure != "" && last[pod.Name] == "" {
				last[pod.Name] = failure // the first one says most
			}
			// A first failure may be the network's: the kubelet tries again, and says so by backing off.
			if failure != "" && backsOff(pod) {
				results[at].Failure = last[pod.Name]
			}
			if pulled || failure != "" && backsOff(pod) {
				delete(waiting, pod.Name)
			}
		}
		if len(waiting) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			for name, at := range waiting {
				results[at].Failure = last[name]
				if results[at].Failure == "" {
					results[at].Failure = fmt.Sprintf("the image was not pulled within %v", p.Timeout)
				}
			}
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return nil
			}
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}

// probePod is a pod that the strictest level of Pod Security lets in, on a node whatever its taints are.
func probePod(p Probe, run string, n int, node, image string) *corev1.Pod {
	yes, no, nobody, seconds, grace := true, false, int64(65534), int64(p.Timeout/time.Second)+30, int64(0)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: fmt.Sprintf("sealift-probe-%s-%d", run, n), Namespace: p.Namespace,
			Labels: map[string]string{probeLabel: run, "app.kubernetes.io/managed-by": userAgent},
		},
		Spec: corev1.PodSpec{
			NodeName: node, RestartPolicy: corev1.RestartPolicyNever, ActiveDeadlineSeconds: &seconds, TerminationGracePeriodSeconds: &grace,
			AutomountServiceAccountToken: &no, EnableServiceLinks: &no,
			Tolerations:     []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
			SecurityContext: &corev1.PodSecurityContext{RunAsNonRoot: &yes, RunAsUser: &nobody, SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
			Containers: []corev1.Container{{
				Name: "probe", Image: image, Command: []string{probeCommand}, ImagePullPolicy: corev1.PullAlways,
				SecurityContext: &corev1.SecurityContext{
					AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes, Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				},
			}},
		},
	}
	for _, name := range p.PullSecrets {
		pod.Spec.ImagePullSecrets = append(pod.Spec.ImagePullSecrets, corev1.LocalObjectReference{Name: name})
	}
	return pod
}

// pullReasons are the reasons by which a kubelet says that it has no image (kubelet, "images": errors).
var pullReasons = []string{
	"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageInspect", "ErrImageNeverPull", "RegistryUnavailable", "SignatureValidationFailed",
	"ImageInspectError",
}

// pullState says whether a node has pulled, or why not, as far as that is known.
func pullState(pod *corev1.Pod) (pulled bool, failure string) {
	for _, st := range pod.Status.ContainerStatuses {
		switch w := st.State.Waiting; {
		case st.State.Running != nil, st.State.Terminated != nil:
			return true, ""
		case w == nil || w.Reason == "ContainerCreating" || w.Reason == "PodInitializing" || w.Reason == "":
		case slices.Contains(pullReasons, w.Reason):
			return false, problem(w.Reason, w.Message, "")
		default:
			return true, "" // it failed later: there was nothing to run
		}
	}
	if pod.Status.Phase == corev1.PodFailed {
		// The kubelet did not take the pod at all.
		return false, problem(pod.Status.Reason, pod.Status.Message, "")
	}
	return false, ""
}

// backsOff says that a kubelet has tried more than once, or will not try at all.
func backsOff(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodFailed || slices.ContainsFunc(pod.Status.ContainerStatuses, func(st corev1.ContainerStatus) bool {
		return st.State.Waiting != nil && slices.Contains([]string{"ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}, st.State.Waiting.Reason)
	})
}

// endProbe deletes the pods of a run, and those that a killed one has left.
func (c *Cluster) endProbe(ctx context.Context, namespace, run string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), inspectTimeout)
	defer cancel()
	s, err := c.open(ctx, namespace)
	if err != nil {
		return err
	}
	pods, err := s.clientset.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: probeLabel, Limit: maxListed})
	if err != nil {
		return fmt.Errorf("looking for the pods of the probe in namespace %q: %w", namespace, err)
	}
	now := int64(0)
	for n := range pods.Items {
		pod := &pods.Items[n]
		if pod.Labels[probeLabel] != run && time.Since(pod.CreationTimestamp.Time) < probeOld {
			continue
		}
		e := s.clientset.CoreV1().Pods(namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &now})
		if e != nil && !apierrors.IsNotFound(e) {
			err = errors.Join(err, fmt.Errorf("deleting pod %q of the probe in namespace %q: %w", pod.Name, namespace, e))
		}
	}
	return err
}
