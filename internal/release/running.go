package release

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// podsPage is how many pods are listed at a time, maxRunning how many are listed at all.
	podsPage   = 500
	maxRunning = 200_000
	// maxImage bounds the text of a reference or image ID, in bytes.
	maxImage = 1024
)

// RunningImages lists what the pods of all namespaces use: the references that they ask for, and the IDs of
// the images that their nodes have taken, each with one pod that does. Pods that have ended count, since they
// may be started again. Where the account may not list pods everywhere, [IsForbidden] holds for the error;
// others are *[UnreachableError].
func (c *Cluster) RunningImages(ctx context.Context) (map[string]string, error) {
	s, err := c.open(ctx, "default")
	if err != nil {
		return nil, err
	}
	uses := map[string]string{}
	o := metav1.ListOptions{Limit: podsPage}
	for n := 0; ; {
		list, err := s.clientset.CoreV1().Pods(metav1.NamespaceAll).List(ctx, o)
		if IsForbidden(err) {
			return nil, fmt.Errorf("listing the pods of all namespaces: %w", err)
		}
		if err != nil {
			return nil, &UnreachableError{Server: c.server, Err: err}
		}
		for i := range list.Items {
			noteImages(uses, &list.Items[i])
		}
		if n += len(list.Items); n > maxRunning {
			return nil, fmt.Errorf("listing the pods of all namespaces: there are more than %d", maxRunning)
		}
		if o.Continue = list.Continue; o.Continue == "" {
			return uses, nil
		}
	}
}

func noteImages(uses map[string]string, pod *corev1.Pod) {
	who := clean("pod " + pod.Namespace + "/" + pod.Name)
	note := func(texts ...string) {
		for _, text := range texts {
			if text != "" && len(text) <= maxImage {
				uses[text] = who
			}
		}
	}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			note(list[i].Image)
		}
	}
	for i := range pod.Spec.EphemeralContainers {
		note(pod.Spec.EphemeralContainers[i].Image)
	}
	for i := range pod.Spec.Volumes {
		if image := pod.Spec.Volumes[i].Image; image != nil {
			note(image.Reference)
		}
	}
	for _, list := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses, pod.Status.EphemeralContainerStatuses} {
		for i := range list {
			note(list[i].Image, list[i].ImageID)
		}
	}
}
