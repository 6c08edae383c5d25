package chart

import (
	"context"
	"errors"
	"strings"
	"testing"
)

const runJobs = `---
# Source: shop/templates/backup.yaml
apiVersion: batch/v1
kind: Job
metadata:
  name: dump
  annotations: {sealift/run: backup}
spec: {template: {spec: {containers: [{name: a, image: "quay.io/shop/dump:1"}]}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: plain}
---
apiVersion: batch/v1
kind: Job
metadata:
  name: load
  annotations:
    sealift/run: "restore" # the way back
spec: {}
---
apiVersion: batch/v1
kind: Job
metadata:
  name: second
  annotations: {"sealift/run": backup}
`

func TestSplitJobs(t *testing.T) {
	for _, lead := range []string{"", "# first\n", "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n"} {
		rest, backup, restore, err := SplitJobs([]byte(lead + runJobs))
		if err != nil {
			t.Fatal(err)
		}
		names := func(docs []byte) string {
			s, err := parseStream(docs)
			if err != nil {
				t.Fatal(err)
			}
			var list []string
			for _, o := range s.objects() {
				list = append(list, objectName(o))
			}
			return strings.Join(list, " ")
		}
		want := "ConfigMap/plain"
		if strings.Contains(lead, "Secret") {
			want = "Secret/s " + want
		}
		if got := names(rest); got != want {
			t.Errorf("rest: got %q, want %q", got, want)
		}
		if got := names(backup); got != "Job/dump Job/second" {
			t.Errorf("backup: got %q", got)
		}
		if !strings.Contains(string(restore), `sealift/run: "restore" # the way back`) || names(restore) != "Job/load" {
			t.Errorf("restore: the text has changed: %s", restore)
		}
	}
	same := []byte("a: 1\n---\nb: 2\n")
	if rest, backup, restore, err := SplitJobs(same); err != nil || &rest[0] != &same[0] || backup != nil || restore != nil {
		t.Errorf("without such Jobs: got %q, %q, %q, %v", rest, backup, restore, err)
	}
}

// A Job at the beginning of a stream, without a separator, and one after an end marker.
func TestSplitJobsUnusual(t *testing.T) {
	job := "apiVersion: batch/v1\nkind: Job\nmetadata: {name: j, annotations: {sealift/run: backup}}\n"
	for _, docs := range []string{job, job + "---\na: 1\n", "a: 1\n...\n---\n" + job, "%YAML 1.1\n---\na: 1\n...\n%YAML 1.1\n---\n" + job} {
		rest, backup, restore, err := SplitJobs([]byte(docs))
		if err != nil || restore != nil {
			t.Errorf("%q: got %q, %v", docs, restore, err)
			continue
		}
		if s, err := parseStream(backup); err != nil || len(s.objects()) != 1 {
			t.Errorf("%q: backup %q, %v", docs, backup, err)
		}
		if s, err := parseStream(rest); err != nil || len(s.objects()) != strings.Count(docs, "a: 1") {
			t.Errorf("%q: rest %q, %v", docs, rest, err)
		}
	}
}

func TestSplitJobsRefused(t *testing.T) {
	object := func(apiVersion, kind, name, annotations string) string {
		return "apiVersion: " + apiVersion + "\nkind: " + kind + "\nmetadata:\n  name: " + name + "\n  annotations: {" + annotations + "}\n"
	}
	for docs, want := range map[string]string{
		object("batch/v1", "Job", "j", "sealift/run: back-up"):                                                                                `Job/j has the annotation sealift/run: "back-up" is neither "backup" nor "restore"`,
		object("batch/v1", "Job", "j", "sealift/run: "):                                                                                       "neither",
		object("batch/v1", "Job", "j", "sealift/run: [backup]"):                                                                               "neither",
		object("batch/v1", "CronJob", "j", "sealift/run: backup"):                                                                             "only a Job",
		object("batch/v2", "Job", "j", "sealift/run: backup"):                                                                                 "only a Job",
		object("batch/v1", "Job", `""`, "sealift/run: backup"):                                                                                "no name",
		object("batch/v1", "Job", "j", "sealift/run: backup, helm.sh/hook: pre-upgrade"):                                                      "hook of Helm",
		"kind: List\nitems:\n- " + strings.ReplaceAll(strings.TrimSpace(object("batch/v1", "Job", "j", "sealift/run: backup")), "\n", "\n  "): "in a list",
	} {
		var e *RunError
		if _, _, _, err := SplitJobs([]byte(docs)); !errors.As(err, &e) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", docs, err, want)
		}
	}
}

// The definitions in crds/ come apart, those of sub-charts that are enabled only.
func TestRenderParts(t *testing.T) {
	crd := func(name string) string {
		return "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: " + name + "}\n"
	}
	c := small(t, map[string]string{
		"Chart.yaml":                     "apiVersion: v2\nname: shop\nversion: 1.0.0\ndependencies:\n- {name: sub, version: 1.0.0, repository: \"\"}\n- {name: not, version: 1.0.0, repository: \"\", condition: not.enabled}\n",
		"values.yaml":                    "not: {enabled: false}\n",
		"crds/a.yaml":                    crd("a"),
		"templates/x.yaml":               "kind: X\nmetadata: {name: x}\n",
		"templates/h.yaml":               "kind: H\nmetadata: {name: h, annotations: {helm.sh/hook: pre-install}}\n",
		"charts/sub/Chart.yaml":          "apiVersion: v2\nname: sub\nversion: 1.0.0\n",
		"charts/sub/crds/b.yaml":         crd("b"),
		"charts/not/Chart.yaml":          "apiVersion: v2\nname: not\nversion: 1.0.0\n",
		"charts/not/crds/c.yaml":         crd("c"),
		"charts/not/templates/none.yaml": "kind: N\n",
	})
	crds, docs, err := c.RenderParts(context.Background(), RenderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if s := string(crds); !strings.Contains(s, "name: a") || !strings.Contains(s, "name: b") || strings.Contains(s, "name: c") || strings.Contains(s, "kind: X") {
		t.Errorf("definitions: %s", s)
	}
	if s := string(docs); strings.Contains(s, "CustomResourceDefinition") || !strings.Contains(s, "kind: X") || !strings.Contains(s, "kind: H") {
		t.Errorf("documents: %s", s)
	}
	both, err := c.Render(context.Background(), RenderOptions{})
	if err != nil || string(both) != string(crds)+string(docs) {
		t.Errorf("together: %s, %v", both, err)
	}
}

func FuzzSplitJobs(f *testing.F) {
	f.Add([]byte(runJobs))
	f.Add([]byte("kind: List\nitems:\n- {metadata: {annotations: {sealift/run: backup}}}\n"))
	f.Fuzz(func(t *testing.T, docs []byte) {
		rest, backup, restore, err := SplitJobs(docs)
		if err != nil {
			return
		}
		before, err := parseStream(docs)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, part := range [][]byte{rest, backup, restore} {
			s, err := parseStream(part)
			if err != nil {
				t.Fatalf("%q cannot be read: %v", part, err)
			}
			n += len(s.objects())
		}
		if n != len(before.objects()) {
			t.Fatalf("%d objects became %d", len(before.objects()), n)
		}
	})
}
