package release

import (
	"io"
	"net/http"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

const tried = `apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  template:
    spec:
      containers: [{name: app, image: new}]
---
apiVersion: v1
kind: Secret
metadata: {name: key}
stringData: {password: hunter2}
data: {token: bmV3}
---
apiVersion: batch/v1
kind: Job
metadata: {name: migrate, annotations: {helm.sh/hook: pre-upgrade}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: test, annotations: {helm.sh/hook: test}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: foreign}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: elsewhere, namespace: absent}
---
apiVersion: v1
kind: Service
metadata: {name: web}
`

// owned is an object of the release eu, as a cluster has it.
func owned(kind, name, rest string) string {
	return `{"apiVersion":"v1","kind":"` + kind + `","metadata":{"name":"` + name + `","labels":{"app.kubernetes.io/managed-by":"Helm"},` +
		`"annotations":{"meta.helm.sh/release-name":"eu","meta.helm.sh/release-namespace":"shop"}}` + rest + `}`
}

func conflictStatus(causes ...string) metav1.Status {
	s := metav1.Status{Code: http.StatusConflict, Reason: metav1.StatusReasonConflict, Message: "Apply failed", Details: &metav1.StatusDetails{}}
	for n := 0; n < len(causes); n += 2 {
		s.Details.Causes = append(s.Details.Causes, metav1.StatusCause{Type: metav1.CauseTypeFieldManagerConflict, Field: causes[n], Message: causes[n+1]})
	}
	return s
}

func trials(t *testing.T, i *Inspection, o TryOptions) map[string]Trial {
	t.Helper()
	by := map[string]Trial{}
	for _, trial := range i.Try(t.Context(), o) {
		by[trial.Object.String()] = trial
	}
	return by
}

func TestTry(t *testing.T) {
	f, c := newAPI(t)
	f.say("GET /apis/apps/v1/namespaces/shop/deployments/web", owned("Deployment", "web", `,"spec":{"replicas":5,"template":{"spec":{"containers":[{"name":"app","image":"old"}]}}}`))
	f.status("PATCH /apis/apps/v1/namespaces/shop/deployments/web", conflictStatus(
		".spec.template.spec.containers[name=\"app\"].image", `conflict with "kubectl-edit" using apps/v1`,
		".spec.replicas", `conflict with "kubectl" with subresource "scale" using apps/v1`,
		".spec.paused", `conflict with "helm" using apps/v1`,
	))
	f.say("GET /api/v1/namespaces/shop/secrets/key", owned("Secret", "key", `,"data":{"token":"b2xk"}`))
	f.status("PATCH /api/v1/namespaces/shop/secrets/key", conflictStatus(".data.token", `conflict with "kubectl-edit" using v1`))
	f.say("GET /apis/batch/v1/namespaces/shop/jobs/migrate", owned("Job", "migrate", ""))
	f.say("PATCH /apis/batch/v1/namespaces/shop/jobs/migrate-sealift-dry-run", `{}`)
	f.say("GET /api/v1/namespaces/shop/configmaps/foreign", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"foreign","managedFields":[{"manager":"kubectl-create"}]}}`)
	f.on("PATCH /api/v1/namespaces/shop/configmaps/foreign", func(w http.ResponseWriter, _ *http.Request, _ []byte) {
		w.Header().Add("Warning", `299 - "this is \"old\""`)
		_, _ = io.WriteString(w, `{}`)
	})
	f.status("PATCH /api/v1/namespaces/shop/services/web", metav1.Status{Code: http.StatusUnprocessableEntity, Reason: metav1.StatusReasonInvalid, Message: "Service \"web\" is invalid:\n\x1b[31mspec.ports"})
	i := inspect(t, c, Intended{Docs: []byte(tried), Upgrade: true})
	got := trials(t, i, TryOptions{})

	web := got["Deployment/shop/web"]
	want := []Conflict{
		{".spec.replicas", "kubectl", "5", "3"},
		{`.spec.template.spec.containers[name="app"].image`, "kubectl-edit", `"old"`, `"new"`},
	}
	if len(web.Conflicts) != 2 || web.Conflicts[0] != want[0] || web.Conflicts[1] != want[1] || web.Err != nil || web.Owner != "" {
		t.Errorf("Deployment: got %+v, want the conflicts %v", web, want)
	}
	if key := got["Secret/shop/key"]; len(key.Conflicts) != 1 || key.Conflicts[0].Live != "(secret)" || key.Conflicts[0].New != "(secret)" {
		t.Errorf("Secret: got %+v, want a conflict without values", key)
	}
	if job := got["Job/shop/migrate"]; job.Refused != "" || job.Err != nil || f.count("PATCH /apis/batch/v1/namespaces/shop/jobs/migrate-sealift-dry-run?") != 1 {
		t.Errorf("hook: got %+v, want it tried under another name", job)
	}
	if _, tested := got["Job/shop/test"]; tested {
		t.Error("a test was tried")
	}
	if foreign := got["ConfigMap/shop/foreign"]; foreign.Owner != "kubectl-create" || len(foreign.Warnings) != 1 {
		t.Errorf("foreign: got %+v, want an owner and a warning", foreign)
	}
	if elsewhere := got["ConfigMap/absent/elsewhere"]; elsewhere.Skipped == "" {
		t.Errorf("elsewhere: got %+v, want it left out", elsewhere)
	}
	if service := got["Service/shop/web"]; !strings.Contains(service.Refused, "spec.ports") || strings.ContainsAny(service.Refused, "\n\x1b") {
		t.Errorf("Service: got %+v, want it refused in one clean line", service)
	}
	if got := f.changes(); got != nil {
		t.Errorf("changed: %v", got)
	}
}

func TestTryAutoscaled(t *testing.T) {
	f, c := newAPI(t)
	f.say("GET /apis/apps/v1/namespaces/shop/deployments/web", owned("Deployment", "web", `,"spec":{"replicas":5}`))
	f.on("PATCH /apis/apps/v1/namespaces/shop/deployments/web", func(w http.ResponseWriter, _ *http.Request, body []byte) {
		if strings.Contains(string(body), "replicas") {
			refuse(w, http.StatusConflict, metav1.StatusReasonConflict)
			return
		}
		_, _ = io.WriteString(w, `{}`)
	})
	docs := []byte(strings.Split(tried, "---")[0])
	if web := trials(t, inspect(t, c, Intended{Docs: docs, Upgrade: true}), TryOptions{})["Deployment/shop/web"]; web.Refused == "" {
		t.Errorf("without an autoscaler: got %+v, want it refused", web)
	}
	f.say("GET /apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers",
		`{"kind":"HorizontalPodAutoscalerList","items":[{"kind":"HorizontalPodAutoscaler","metadata":{"name":"h"},"spec":{"scaleTargetRef":{"apiVersion":"apps/v1","kind":"Deployment","name":"web"}}}]}`)
	web := trials(t, inspect(t, c, Intended{Docs: docs, Upgrade: true}), TryOptions{})["Deployment/shop/web"]
	if web.Scaled != "HorizontalPodAutoscaler/shop/h" || web.Refused != "" || web.Err != nil {
		t.Errorf("got %+v, want the replicas left out for the autoscaler", web)
	}
}

// TestTryDefinition: definitions of crds/ are tried as they are applied, by which those of the version before are no conflict.
func TestTryDefinition(t *testing.T) {
	f, c := newAPI(t)
	f.say("GET /api/v1/namespaces/shop/configmaps/d", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"d","managedFields":[{"manager":"sealift","operation":"Apply"}]}}`)
	f.on("PATCH /api/v1/namespaces/shop/configmaps/d", func(w http.ResponseWriter, r *http.Request, _ []byte) {
		if q := r.URL.Query(); q.Get("fieldManager") != "sealift" || q.Get("force") != "true" || q.Get("dryRun") != "All" {
			refuse(w, http.StatusConflict, metav1.StatusReasonConflict)
			return
		}
		_, _ = io.WriteString(w, `{}`)
	})
	docs := []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: d, namespace: shop}\n")
	d := trials(t, inspect(t, c, Intended{Definitions: docs, Upgrade: true}), TryOptions{})["ConfigMap/shop/d"]
	if d.Object == nil || d.Refused != "" || len(d.Conflicts) > 0 || d.Owner != "" || d.Err != nil {
		t.Errorf("got %+v, want it taken", d)
	}
}

func TestTryNotKnown(t *testing.T) {
	f, c := newAPI(t)
	f.refuse("GET /apis/apps/v1/namespaces/shop/deployments/web", http.StatusInternalServerError, metav1.StatusReasonInternalError)
	f.refuse("PATCH /api/v1/namespaces/shop/services/web", http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable)
	f.status("PATCH /api/v1/namespaces/shop/secrets/key", metav1.Status{
		Code: http.StatusUnprocessableEntity, Reason: metav1.StatusReasonInvalid, Message: "Invalid value: \"hunter2\"",
		Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Field: "stringData.password", Message: "hunter2"}}},
	})
	got := trials(t, inspect(t, c, Intended{Docs: []byte(tried)}), TryOptions{Lacking: []Right{{Verb: "patch", Group: "batch", Resource: "jobs", Namespace: "shop"}}})
	if got["Deployment/shop/web"].Err == nil || got["Service/shop/web"].Err == nil {
		t.Errorf("got %+v and %+v, want both not known", got["Deployment/shop/web"], got["Service/shop/web"])
	}
	if job := got["Job/shop/migrate"]; job.Skipped == "" || f.count("PATCH /apis/batch") > 0 {
		t.Errorf("without the right: got %+v, want it left out", job)
	}
	if key := got["Secret/shop/key"]; strings.Contains(key.Refused, "hunter2") || !strings.Contains(key.Refused, "stringData.password") {
		t.Errorf("Secret: got %q, want the field and not what is in it", key.Refused)
	}
}

func TestFieldPath(t *testing.T) {
	tree := map[string]any{
		"spec": map[string]any{
			"ports":  []any{map[string]any{"port": int64(80), "name": "http"}, map[string]any{"port": int64(80), "protocol": "UDP", "name": "dns"}},
			"args":   []any{"a", "b"},
			"labels": map[string]any{"x": "y"},
		},
	}
	for path, want := range map[string]string{
		`.spec.ports[port=80,protocol="TCP"].name`: `"http"`, `.spec.ports[port=80,protocol="UDP"].name`: `"dns"`, `.spec.args[="b"]`: `"b"`, `.spec.args[1]`: `"b"`,
		".spec.labels": `{"x":"y"}`, ".spec.gone": "", ".spec.args[7]": "", ".spec.args.x": "", `.spec.ports[port=81]`: "",
	} {
		steps, ok := parseFieldPath(path)
		if got := valueAt(tree, steps, false); !ok || got != want {
			t.Errorf("%s: got %s (%t), want %s", path, got, ok, want)
		}
	}
	for _, path := range []string{"spec", ".spec[", ".spec[x", ".spec[x=", ".spec[x=1", ".spec[-1]", ".spec[x=1}", ".spec[a=1,]", strings.Repeat(".a", maxFieldPath)} {
		if steps, ok := parseFieldPath(path); ok {
			t.Errorf("%.20s: got %v, want it refused", path, steps)
		}
	}
	secret := &unstructured.Unstructured{Object: map[string]any{"data": map[string]any{"a": "b"}}}
	for _, path := range []string{".data", ".data.a", ".data.a.b", ""} {
		if steps, _ := parseFieldPath(path); strings.Contains(valueAt(secret.Object, steps, true), "b") {
			t.Errorf("%q shows what is in a Secret", path)
		}
	}
}

func FuzzFieldPath(f *testing.F) {
	for _, s := range []string{`.spec.containers[name="a"].image`, `[="x"]`, `.a[1][b=2,c="]"]`, `.`, `[=`, `.a[b={"c":[1]}]`} {
		f.Add(s)
	}
	tree := map[string]any{"a": []any{map[string]any{"b": int64(2), "c": "]"}, "x"}, "": map[string]any{}}
	f.Fuzz(func(t *testing.T, path string) {
		steps, ok := parseFieldPath(path)
		if !ok {
			return
		}
		if got := valueAt(tree, steps, false); len(got) > maxValue+len("…") {
			t.Errorf("a value of %d bytes", len(got))
		}
	})
}
