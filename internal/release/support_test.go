package release

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/sealift/sealift/internal/support"
)

// supportCanary is what is secret in the tests, in a Secret and wherever it is repeated.
const supportCanary = "kan4ri-Vogel-77"

func supportArchive(t *testing.T, sources ...support.Source) (map[string]string, *support.Result) {
	t.Helper()
	var raw bytes.Buffer
	r, err := support.Write(t.Context(), &raw, sources, support.Options{Now: time.Unix(1_800_000_000, 0), Readme: "x"})
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(&raw)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for tr := tar.NewReader(z); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return files, r
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		files[strings.TrimPrefix(h.Name, support.Root+"/")] = string(text)
	}
}

// supported is a cluster with one release of one pod, which says its secret wherever it can.
func supported(t *testing.T) *fakeCluster {
	t.Helper()
	f := newFake(t)
	if _, err := f.Apply(t.Context(), shop(t)); err != nil {
		t.Fatal(err)
	}
	in64 := base64.StdEncoding.EncodeToString([]byte(supportCanary))
	f.api["/api/v1/namespaces/shop"] = `{"kind":"Namespace","metadata":{"name":"shop","annotations":{"kubectl.kubernetes.io/last-applied-configuration":"` + supportCanary + `"}}}`
	f.api["/api/v1/namespaces/shop/secrets"] = `{"kind":"SecretList","items":[{"metadata":{"name":"db"},"data":{"any":"` + in64 + `"}}]}`
	f.api["/api/v1/namespaces/shop/persistentvolumeclaims"] = `{"items":[{"metadata":{"name":"data","namespace":"shop"}}]}`
	f.api["/api/v1/namespaces/shop/events"] = `{"items":[` +
		`{"metadata":{"name":"b"},"type":"Warning","reason":"Failed","message":"cannot use ` + supportCanary + `\nhere","lastTimestamp":"2026-01-02T00:00:00Z","involvedObject":{"kind":"Pod","name":"web-1"},"count":3},` +
		`{"metadata":{"name":"a"},"type":"Normal","reason":"Pulled","message":"first","lastTimestamp":"2026-01-01T00:00:00Z","involvedObject":{"kind":"Pod","name":"web-1"}}]}`
	pod := `{"metadata":{"name":"web-1","namespace":"shop","uid":"u1","labels":{"app.kubernetes.io/instance":"eu"},"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"other-than-known"}},` +
		`"spec":{"containers":[{"name":"web","image":"x","env":[{"name":"DB_PASSWORD","value":"only-in-env"},{"name":"GREETING","value":"hello ` + supportCanary + `"},{"name":"PORT","value":"8080"}]}]},` +
		`"status":{"containerStatuses":[{"name":"web","restartCount":1,"state":{"running":{}},"image":"site:5000/web:1","imageID":"site:5000/web@sha256:11"}]}}`
	f.api["/api/v1/namespaces/shop/pods"] = `{"items":[` + pod + `]}`
	f.api["/api/v1/namespaces/shop/pods/web-1/log"] = "2026-01-01T00:00:00Z connecting with " + supportCanary + " as " + in64 + "\nlogin password=looks-like-one ok\n"
	f.api["/api/v1/nodes"] = `{"items":[{"metadata":{"name":"n1"},"status":{"nodeInfo":{"kubeletVersion":"v1.36.3","containerRuntimeVersion":"containerd://2"}}}]}`
	f.api["/version"] = `{"major":"1","minor":"36","gitVersion":"v1.36.3"}`
	f.kube.live = []*unstructured.Unstructured{object("Pod", "web-1", nil)}
	return f
}

func TestSupport(t *testing.T) {
	f := supported(t)
	files, r := supportArchive(t, f.Support(SupportOptions{Releases: []HelmRelease{{"shop", "eu"}}, Namespaces: []string{"shop"}}))
	for name, text := range files {
		for _, secret := range []string{supportCanary, base64.StdEncoding.EncodeToString([]byte(supportCanary)), "only-in-env", "other-than-known", "looks-like-one"} {
			if strings.Contains(text, secret) {
				t.Errorf("%s: %q is in %s", name, secret, text)
			}
		}
	}
	for name, want := range map[string]string{
		"cluster/version.json": "v1.36.3", "cluster/nodes.json": "containerd://2", "namespaces/shop/namespace.json": "Namespace",
		"namespaces/shop/events.txt":                  "Failed  Pod/web-1  x3  cannot use (hidden) here\n",
		"namespaces/shop/claims/data.json":            "PersistentVolumeClaim",
		"namespaces/shop/pods/web-1/pod.json":         `"value": "8080"`,
		"namespaces/shop/pods/web-1/web.log":          "connecting with (hidden) as (hidden)\nlogin password=(hidden) ok\n",
		"namespaces/shop/pods/web-1/web.previous.log": "connecting with (hidden)",
		"releases/shop/eu/helm.json":                  `"revision": 1`,
	} {
		if !strings.Contains(files[name], want) {
			t.Errorf("%s: %q is not in %q", name, want, files[name])
		}
	}
	if events := files["namespaces/shop/events.txt"]; strings.Index(events, "Pulled") > strings.Index(events, "Failed") {
		t.Errorf("the events are in another order: %s", events)
	}
	// What of the values Helm knows is not there.
	if strings.Contains(fmt.Sprint(files), "replicas: 2") {
		t.Error("values are in the archive")
	}
	if len(r.Files) != len(files) {
		t.Errorf("a pod is there twice: %+v", r.Files)
	}
}

// Where it is not known what is secret, what could hold it is left out.
func TestSupportUnread(t *testing.T) {
	f := supported(t)
	delete(f.api, "/api/v1/namespaces/shop/secrets")
	delete(f.api, "/api/v1/nodes")
	files, r := supportArchive(t, f.Support(SupportOptions{Releases: []HelmRelease{{"shop", "eu"}}}))
	for _, name := range []string{"namespaces/shop/events.txt", "namespaces/shop/pods/web-1/web.log"} {
		if _, there := files[name]; there {
			t.Errorf("%s is there", name)
		}
	}
	errs := files["errors.txt"]
	if !strings.Contains(errs, "namespace shop: its logs and events are left out") || !strings.Contains(errs, "nodes: ") || len(r.Errors) != 2 {
		t.Errorf("got %q", errs)
	}
	files, _ = supportArchive(t, f.Support(SupportOptions{Releases: []HelmRelease{{"shop", "eu"}}, SkipSecrets: true}))
	if log := files["namespaces/shop/pods/web-1/web.log"]; !strings.Contains(log, supportCanary) || strings.Contains(log, "looks-like-one") {
		t.Errorf("got %q", log)
	}
}

func TestNewestLines(t *testing.T) {
	for _, test := range []struct {
		text  string
		cut   bool
		limit int
		want  string
	}{
		{"a\nb\nc", false, 100, "a\nb\nc"}, {"a\nb\nc", true, 100, "a\nb\n"}, {"secret\nb\nc\n", false, 7, "b\nc\n"}, {"nolines", true, 100, ""}, {"nolines", false, 3, "nes"}, {"", true, 3, ""},
	} {
		if got := string(newestLines([]byte(test.text), test.cut, test.limit)); got != test.want {
			t.Errorf("%q: got %q, want %q", test.text, got, test.want)
		}
	}
}

func TestRunningImages(t *testing.T) {
	f := supported(t)
	f.api["/api/v1/pods"] = f.api["/api/v1/namespaces/shop/pods"]
	got, err := f.RunningImages(t.Context())
	if err != nil || len(got) != 3 || got["site:5000/web@sha256:11"] != "pod shop/web-1" || got["site:5000/web:1"] == "" || got["x"] == "" {
		t.Errorf("got %v, %v", got, err)
	}
	// A list that is not there, and a cluster that is not.
	delete(f.api, "/api/v1/pods")
	var unreachable *UnreachableError
	if _, err := f.RunningImages(t.Context()); !errors.As(err, &unreachable) {
		t.Errorf("got %v", err)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		refuse(w, http.StatusForbidden, metav1.StatusReasonForbidden)
	}))
	t.Cleanup(srv.Close)
	c, err := Connect(ClusterOptions{Kubeconfig: kubeconfig(t, srv.URL)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.RunningImages(t.Context()); !IsForbidden(err) {
		t.Errorf("got %v", err)
	}
}

func TestSecretLeaves(t *testing.T) {
	doc := map[string]any{"auths": map[string]any{"site": map[string]any{"auth": "a", "password": "b", "username": "c"}}, "list": []any{map[string]any{"token": "d"}}}
	got := leaves(doc, "", 0)
	slices.Sort(got)
	if strings.Join(got, "") != "abd" {
		t.Errorf("got %q", got)
	}
}
