package release

import (
	"net/http"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const workloads = `apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 4
  strategy: {rollingUpdate: {maxSurge: 50%}}
  template:
    spec:
      initContainers:
        - {name: side, restartPolicy: Always, resources: {requests: {cpu: 100m}}}
        - {name: once, resources: {requests: {cpu: 900m, memory: 64Mi}}}
      containers: [{name: app, resources: {requests: {cpu: 250m}, limits: {memory: 128Mi}}}]
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec: {template: {spec: {containers: [{name: a, resources: {requests: {memory: 1Gi}}}]}}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  template: {spec: {containers: [{name: a}]}}
  volumeClaimTemplates:
    - {metadata: {name: data}, spec: {storageClassName: fast}}
    - {metadata: {name: rest}}
    - {metadata: {name: none}, spec: {storageClassName: ""}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: test, annotations: {helm.sh/hook: test}}
spec: {parallelism: 100, template: {spec: {containers: [{name: a, resources: {requests: {cpu: 1}}}]}}}
`

const ready = `"conditions":[{"type":"Ready","status":"True"}],"nodeInfo":{"operatingSystem":"linux","architecture":"amd64"}`

func (f *fakeAPI) withNodes() {
	f.say("GET /api/v1/nodes", `{"kind":"NodeList","apiVersion":"v1","items":[`+
		`{"metadata":{"name":"a"},"status":{"allocatable":{"cpu":"4","memory":"8Gi","pods":"110"},`+ready+`}},`+
		`{"metadata":{"name":"b"},"status":{"allocatable":{"cpu":"2","memory":"2Gi","pods":"10"},`+ready+`}},`+
		`{"metadata":{"name":"c"},"spec":{"unschedulable":true},"status":{"allocatable":{"cpu":"64"},`+ready+`}},`+
		`{"metadata":{"name":"d"},"status":{"allocatable":{"cpu":"64"}}}]}`)
	f.say("GET /api/v1/pods", `{"kind":"PodList","apiVersion":"v1","items":[{"spec":{"nodeName":"a","containers":[{"name":"x","resources":{"requests":{"cpu":"3500m","memory":"1Gi"}}}]}},`+
		`{"spec":{"containers":[{"name":"waits","resources":{"requests":{"cpu":"100"}}}]}}]}`)
}

func TestRoom(t *testing.T) {
	f, c := newAPI(t)
	f.withNodes()
	r, err := inspect(t, c, Intended{Docs: []byte(workloads)}).Room(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Usable) != 2 || r.Nodes[2].Blocked != "cordoned" || r.Nodes[3].Blocked != "not ready" || !r.Pods {
		t.Errorf("nodes: got %+v", r.Nodes)
	}
	if want := (Amount{2500, 9 << 30, 119}); r.Free != want {
		t.Errorf("free: got %+v, want %+v", r.Free, want)
	}
	// 4 × the init container with its sidecar, twice the agent, the database.
	if want := (Amount{4 * 1000, 4*128<<20 + 2<<30, 7}); r.Needed != want {
		t.Errorf("needed: got %+v, want %+v", r.Needed, want)
	}
	if got := strings.Join(r.Short(), ","); got != "CPU" || !r.Fits() {
		t.Errorf("short of %q, fits %t; want CPU and that each fits", got, r.Fits())
	}
	if r.LargestOf != "Deployment/shop/web" || r.Largest.MilliCPU != 1000 {
		t.Errorf("largest: got %+v of %q", r.Largest, r.LargestOf)
	}
}

func TestRoomOfUpgrade(t *testing.T) {
	f, c := newAPI(t)
	f.withNodes()
	f.say("GET /apis/apps/v1/namespaces/shop/deployments/web", `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web"},"spec":{"replicas":3,"template":{"spec":{"containers":[{"name":"app","resources":{"requests":{"cpu":"1","memory":"128Mi"}}}]}}}}`)
	docs := []byte(strings.Split(workloads, "---")[0])
	r, err := inspect(t, c, Intended{Docs: docs, Upgrade: true}).Room(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// One more than there are, and two while they are replaced.
	if want := (Amount{3000, 3 * 128 << 20, 3}); r.Needed != want {
		t.Errorf("needed: got %+v, want %+v", r.Needed, want)
	}
	f.refuse("GET /api/v1/pods", http.StatusForbidden, metav1.StatusReasonForbidden)
	if r, err = inspect(t, c, Intended{Docs: docs}).Room(t.Context()); err != nil || r.Pods || r.Free != r.Total {
		t.Errorf("without pods: got %+v and %v", r, err)
	}
	f.refuse("GET /api/v1/nodes", http.StatusForbidden, metav1.StatusReasonForbidden)
	if _, err = inspect(t, c, Intended{Docs: docs}).Room(t.Context()); !IsForbidden(err) {
		t.Errorf("without nodes: got %v, want that it is forbidden", err)
	}
}

func TestClaims(t *testing.T) {
	f, c := newAPI(t)
	claims := inspect(t, c, Intended{Docs: []byte(workloads)}).Claims()
	if len(claims) != 2 || claims[0].Class != "fast" || claims[1].Class != "" || claims[1].Name != "rest" {
		t.Errorf("claims: got %+v", claims)
	}
	f.say("GET /apis/storage.k8s.io/v1/storageclasses", `{"items":[{"metadata":{"name":"slow"}},{"metadata":{"name":"fast","annotations":{"storageclass.kubernetes.io/is-default-class":"true"}}}]}`)
	classes, volumes, err := c.StorageClasses(t.Context())
	if err != nil || len(classes) != 2 || !classes["fast"] || classes["slow"] || len(volumes) != 0 {
		t.Errorf("classes: got %v, %v and %v", classes, volumes, err)
	}
}

func TestQuotas(t *testing.T) {
	f, c := newAPI(t)
	f.say("GET /api/v1/namespaces/shop/resourcequotas", `{"items":[{"metadata":{"name":"q","namespace":"shop"},"spec":{"hard":{"requests.cpu":"3","pods":"100"}},"status":{"used":{"requests.cpu":"500m","pods":"90"}}},`+
		`{"metadata":{"name":"scoped","namespace":"shop"},"spec":{"scopes":["BestEffort"],"hard":{"pods":"0"}}}]}`)
	found, err := inspect(t, c, Intended{Docs: []byte(workloads)}).Quotas(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, s := range found {
		texts = append(texts, s.Object+": "+s.Text)
	}
	want := "ResourceQuota/shop/q: it counts what containers ask for, and those of DaemonSet/shop/agent, StatefulSet/shop/db say nothing; " +
		"ResourceQuota/shop/q: of requests.cpu 2500m is left of 3, and 4 is needed"
	if got := strings.Join(texts, "; "); got != want {
		t.Errorf("got %q\nwant %q", got, want)
	}
	f.refuse("GET /api/v1/namespaces/shop/resourcequotas", http.StatusForbidden, metav1.StatusReasonForbidden)
	if _, err := inspect(t, c, Intended{Docs: []byte(workloads)}).Quotas(t.Context()); !IsForbidden(err) {
		t.Errorf("got %v, want that it is forbidden", err)
	}
}

func TestPodSecurity(t *testing.T) {
	f, c := newAPI(t)
	f.say("GET /api/v1/namespaces/shop", `{"kind":"Namespace","metadata":{"name":"shop","labels":{"pod-security.kubernetes.io/enforce":"baseline"}}}`)
	in := Intended{Release: "eu", Namespace: "shop", Docs: []byte(`apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {a: b}}
  template:
    metadata: {labels: {a: b}}
    spec:
      hostNetwork: true
      containers: [{name: app, image: x}]
`)}
	found, err := inspect(t, c, in).PodSecurity(in)
	if err != nil || len(found) == 0 || !strings.Contains(found[0].Text, "baseline") {
		t.Errorf("got %v and %v, want that the pods are refused", found, err)
	}
	f.say("GET /api/v1/namespaces/shop", `{"kind":"Namespace","metadata":{"name":"shop","labels":{"pod-security.kubernetes.io/enforce":"privileged"}}}`)
	if found, err = inspect(t, c, in).PodSecurity(in); err != nil || len(found) > 0 {
		t.Errorf("privileged: got %v and %v, want nothing", found, err)
	}
}

func TestParseAmount(t *testing.T) {
	if a, err := ParseAmount("1500m", "2Gi"); err != nil || a != (Amount{MilliCPU: 1500, Memory: 2 << 30}) || a.String() != "1.5 CPU, 2.0Gi memory, 0 pods" {
		t.Errorf("got %s and %v", a, err)
	}
	for _, text := range []string{"x", "1Zi", "1 2"} {
		if _, err := ParseAmount(text, ""); err == nil {
			t.Errorf("%q is taken for a quantity", text)
		}
	}
}
