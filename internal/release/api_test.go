package release

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
)

// fakeAPI is an API server that answers what a test tells it to, and writes down what it was asked.
type fakeAPI struct {
	mu      sync.Mutex
	answers map[string]func(w http.ResponseWriter, r *http.Request, body []byte)
	asked   []string
	url     string
}

// newAPI starts one that serves some kinds, and a cluster that is connected to it.
func newAPI(t testing.TB) (*fakeAPI, *Cluster) {
	t.Helper()
	f := &fakeAPI{answers: map[string]func(http.ResponseWriter, *http.Request, []byte){}}
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	f.url = srv.URL
	f.say("GET /version", `{"major":"1","minor":"34","gitVersion":"v1.34.1"}`)
	f.say("GET /api", `{"kind":"APIVersions","versions":["v1"]}`)
	f.say("GET /apis", `{"kind":"APIGroupList","groups":[`+
		`{"name":"apps","versions":[{"groupVersion":"apps/v1","version":"v1"}],"preferredVersion":{"groupVersion":"apps/v1","version":"v1"}},`+
		`{"name":"batch","versions":[{"groupVersion":"batch/v1","version":"v1"}],"preferredVersion":{"groupVersion":"batch/v1","version":"v1"}},`+
		`{"name":"gone.example","versions":[{"groupVersion":"gone.example/v1","version":"v1"}],"preferredVersion":{"groupVersion":"gone.example/v1","version":"v1"}}]}`)
	f.say("GET /api/v1", kinds("v1", "namespaces Namespace", "secrets Secret +", "configmaps ConfigMap +", "pods Pod +", "services Service +", "persistentvolumeclaims PersistentVolumeClaim +", "nodes Node"))
	f.say("GET /apis/apps/v1", kinds("apps/v1", "deployments Deployment +", "statefulsets StatefulSet +", "daemonsets DaemonSet +"))
	f.say("GET /apis/batch/v1", kinds("batch/v1", "jobs Job +"))
	f.refuse("GET /apis/gone.example/v1", http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable)
	f.say("GET /api/v1/namespaces/shop", `{"kind":"Namespace","apiVersion":"v1","metadata":{"name":"shop"}}`)
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf("apiVersion: v1\nkind: Config\ncurrent-context: x\ncontexts: [{name: x, context: {cluster: x, user: x}}]\n"+
		"clusters: [{name: x, cluster: {server: %q}}]\nusers: [{name: x, user: {}}]\n", srv.URL)
	if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Connect(ClusterOptions{Kubeconfig: kubeconfig})
	if err != nil {
		t.Fatal(err)
	}
	return f, c
}

// kinds is a list of resources: "NAME KIND", with a + for those in namespaces.
func kinds(version string, list ...string) string {
	var out []string
	for _, l := range list {
		words := strings.Fields(l)
		out = append(out, fmt.Sprintf(`{"name":%q,"kind":%q,"namespaced":%t,"verbs":["get","list","patch","create","delete","watch"]}`, words[0], words[1], len(words) == 3))
	}
	return fmt.Sprintf(`{"kind":"APIResourceList","groupVersion":%q,"resources":[%s]}`, version, strings.Join(out, ","))
}

// on answers requests for "METHOD PATH".
func (f *fakeAPI) on(request string, answer func(w http.ResponseWriter, r *http.Request, body []byte)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers[request] = answer
}

func (f *fakeAPI) say(request, answer string) {
	f.on(request, func(w http.ResponseWriter, _ *http.Request, _ []byte) { _, _ = io.WriteString(w, answer) })
}

func (f *fakeAPI) refuse(request string, code int, reason metav1.StatusReason) {
	f.on(request, func(w http.ResponseWriter, _ *http.Request, _ []byte) { refuse(w, code, reason) })
}

// status answers with a status that has causes.
func (f *fakeAPI) status(request string, s metav1.Status) {
	s.Kind, s.APIVersion, s.Status = "Status", "v1", metav1.StatusFailure
	f.on(request, func(w http.ResponseWriter, _ *http.Request, _ []byte) {
		w.WriteHeader(int(s.Code))
		_ = json.NewEncoder(w).Encode(s)
	})
}

func (f *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.Header().Set("Content-Type", "application/json")
	f.mu.Lock()
	f.asked = append(f.asked, r.Method+" "+r.URL.RequestURI())
	answer := f.answers[r.Method+" "+r.URL.Path]
	f.mu.Unlock()
	if answer == nil {
		refuse(w, http.StatusNotFound, metav1.StatusReasonNotFound)
		return
	}
	answer(w, r, body)
}

// count is how many requests began like this.
func (f *fakeAPI) count(prefix string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, a := range f.asked {
		if strings.HasPrefix(a, prefix) {
			n++
		}
	}
	return n
}

// changes lists the requests that would change something: no dry runs and no questions about rights.
func (f *fakeAPI) changes() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []string
	for _, a := range f.asked {
		if !strings.HasPrefix(a, "GET ") && !strings.Contains(a, "dryRun=All") && !strings.Contains(a, "/authorization.k8s.io/") {
			list = append(list, a)
		}
	}
	return list
}

func inspect(t testing.TB, c *Cluster, in Intended) *Inspection {
	t.Helper()
	if in.Release == "" {
		in.Release, in.Namespace = "eu", "shop"
	}
	i, err := c.Inspect(t.Context(), []Intended{in})
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// decode reads what a client has sent, which may be protobuf.
func decode(w http.ResponseWriter, body []byte, to runtime.Object) bool {
	if _, _, err := scheme.Codecs.UniversalDeserializer().Decode(body, nil, to); err != nil {
		refuse(w, http.StatusBadRequest, metav1.StatusReasonBadRequest)
		return false
	}
	return true
}
