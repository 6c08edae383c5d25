package release

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// withPods keeps pods as an API server does, whose containers get the states that are told, by node.
func (f *fakeAPI) withPods(states map[string]corev1.ContainerState) (left func() int) {
	var mu sync.Mutex
	pods := map[string]corev1.Pod{}
	f.on("POST /api/v1/namespaces/shop/pods", func(w http.ResponseWriter, _ *http.Request, body []byte) {
		var pod corev1.Pod
		if !decode(w, body, &pod) {
			return
		}
		pod.CreationTimestamp = metav1.Now()
		pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "probe", State: states[pod.Spec.NodeName]}}
		mu.Lock()
		pods[pod.Name] = pod
		mu.Unlock()
		name := pod.Name
		f.on("DELETE /api/v1/namespaces/shop/pods/"+name, func(w http.ResponseWriter, _ *http.Request, _ []byte) {
			mu.Lock()
			delete(pods, name)
			mu.Unlock()
			_, _ = io.WriteString(w, `{"kind":"Status","status":"Success"}`)
		})
		_ = json.NewEncoder(w).Encode(pod)
	})
	f.on("GET /api/v1/namespaces/shop/pods", func(w http.ResponseWriter, _ *http.Request, _ []byte) {
		mu.Lock()
		defer mu.Unlock()
		list := corev1.PodList{}
		for _, pod := range pods {
			list.Items = append(list.Items, pod)
		}
		_ = json.NewEncoder(w).Encode(list)
	})
	return func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(pods)
	}
}

func TestProbe(t *testing.T) {
	f, c := newAPI(t)
	f.withNodes()
	left := f.withPods(map[string]corev1.ContainerState{
		"a": {Terminated: &corev1.ContainerStateTerminated{Reason: "StartError", ExitCode: 128}},
		"b": {Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff", Message: "Back-off: x509:\nunknown authority"}},
	})
	got, err := c.Probe(t.Context(), Probe{Namespace: "shop", Images: map[string]string{"linux/amd64": "site/pause"}})
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 4 || got[0].Failure != "" || !strings.Contains(got[1].Failure, "x509: unknown authority") || got[2].Skipped != "cordoned" || got[3].Skipped != "not ready" {
		t.Errorf("got %+v", got)
	}
	if n := left(); n != 0 {
		t.Errorf("%d pods are left", n)
	}
}

func TestProbeEnds(t *testing.T) {
	f, c := newAPI(t)
	f.withNodes()
	left := f.withPods(nil) // nothing ever happens to them
	probe := Probe{Namespace: "shop", Images: map[string]string{"linux/amd64": "site/pause"}, Timeout: 50 * time.Millisecond}
	got, err := c.Probe(t.Context(), probe)
	if err != nil || len(got) != 4 || !strings.Contains(got[0].Failure, "was not pulled within") || left() != 0 {
		t.Errorf("timeout: got %+v and %v, and %d pods are left", got, err, left())
	}
	probe.Timeout = time.Minute
	ctx, cancel := context.WithCancel(t.Context())
	stop := time.AfterFunc(100*time.Millisecond, cancel)
	defer stop.Stop()
	if _, err = c.Probe(ctx, probe); err == nil || left() != 0 {
		t.Errorf("interrupted: got %v, and %d pods are left", err, left())
	}
}
