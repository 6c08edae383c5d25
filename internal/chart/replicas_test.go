package chart

import (
	"strings"
	"testing"
)

func TestLeaveOutReplicas(t *testing.T) {
	deployment := func(name, more string) string {
		return "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: " + name + more + "}\nspec:\n  replicas: 3 # of " + name + "\n  paused: false\n"
	}
	hpa := "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nspec: {scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}}\n"
	keda := "apiVersion: keda.sh/v1alpha1\nkind: ScaledObject\nspec: {replicas: 1, scaleTargetRef: {name: queue}}\n"
	docs := strings.Join([]string{
		deployment("web", ""), deployment("web", ", namespace: shop"), deployment("web", ", namespace: other"), deployment("queue", ""),
		deployment("live", ""), deployment("free", ""), hpa, keda,
		"kind: StatefulSet\nmetadata: {name: web}\nspec: {replicas: 2, x: 1}\n",
	}, "---\n")
	got, err := LeaveOutReplicas([]byte(docs), "shop", func(kind, namespace, name string) bool {
		return kind == "Deployment" && namespace == "shop" && name == "live"
	})
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for i, doc := range strings.Split(docs, "---\n") {
		switch i {
		case 0, 1, 3, 4:
			lines := strings.Split(doc, "\n")
			doc = strings.Join(append(lines[:4:4], lines[5:]...), "\n")
		}
		want = append(want, doc)
	}
	if string(got) != strings.Join(want, "---\n") {
		t.Errorf("got\n%s", got)
	}
	if same, err := LeaveOutReplicas([]byte(docs[:200]), "shop", nil); err != nil || string(same) != docs[:200] {
		t.Errorf("got %s, %v", same, err)
	}
}

// Where the key has no line of its own, the document is written anew.
func TestLeaveOutReplicasUnusual(t *testing.T) {
	all := func(string, string, string) bool { return true }
	for docs, want := range map[string]string{
		"kind: A\nspec: {replicas: 2, x: 1}\n":             "---\nkind: A\nspec: {x: 1}\n",
		"kind: A\nspec:\n  replicas: 2\n":                  "---\nkind: A\nspec: {}\n",
		"kind: A\nspec:\n  x: 1\n  replicas: 2":            "---\nkind: A\nspec:\n  x: 1\n",
		"kind: A\nspec:\n  x: 1\n  replicas:\n    2\n":     "---\nkind: A\nspec:\n  x: 1\n",
		"kind: A\nspec:\n  x: 1\n  replicas: \"2\"\n# z\n": "kind: A\nspec:\n  x: 1\n# z\n",
		"kind: A\nspec:\n  ? replicas\n  : 2\n  x: 1\n":    "---\nkind: A\nspec:\n  x: 1\n",
		"kind: A\nspec:\n  replicas: 1\n  replicas: 2\n":   "---\nkind: A\nspec: {}\n",
		"kind: A\nspec: replicas\n":                        "kind: A\nspec: replicas\n",
	} {
		got, err := LeaveOutReplicas([]byte(docs), "shop", all)
		if err != nil || string(got) != want {
			t.Errorf("%q: got %q, %v; want %q", docs, got, err, want)
		}
	}
}

func FuzzAround(f *testing.F) {
	f.Add([]byte("apiVersion: v1\nkind: Pod\nspec:\n  imagePullSecrets:\n  - name: own\n  replicas: 1\n"))
	f.Add([]byte("apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nspec: {scaleTargetRef: {kind: A, name: b}}\n---\nkind: A\nmetadata: {name: b}\nspec: {replicas: 1}\n"))
	f.Fuzz(func(t *testing.T, docs []byte) {
		got, err := AddPullSecrets(docs, []string{"site"})
		if err != nil {
			return
		}
		if got, err = LeaveOutReplicas(got, "shop", func(_, _, name string) bool { return name != "" }); err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
		again, err := AddPullSecrets(got, []string{"site"})
		if err != nil || string(again) != string(got) {
			t.Fatalf("the second time %q became %q, %v", got, again, err)
		}
	})
}
