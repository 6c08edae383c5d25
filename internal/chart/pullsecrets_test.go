package chart

import (
	"strings"
	"testing"
)

func TestAddPullSecrets(t *testing.T) {
	for name, c := range map[string]struct{ docs, want string }{
		"pod": {
			"apiVersion: v1\nkind: Pod # it\nspec:\n  # one\n  containers: []\n",
			"apiVersion: v1\nkind: Pod # it\nspec:\n  # one\n  imagePullSecrets: [{name: site}, {name: \"1\"}]\n  containers: []\n",
		},
		"service account": {
			"# Source: x\napiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a}\n",
			"# Source: x\nimagePullSecrets: [{name: site}, {name: \"1\"}]\napiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a}\n",
		},
		"cron job, in one line": {
			"apiVersion: batch/v1\nkind: CronJob\nspec: {jobTemplate: {spec: {template: {spec: {containers: []}}}}}\n",
			"apiVersion: batch/v1\nkind: CronJob\nspec: {jobTemplate: {spec: {template: {spec: {imagePullSecrets: [{name: site}, {name: \"1\"}], containers: []}}}}}\n",
		},
		"some are there": {
			"apiVersion: apps/v1\nkind: Deployment\nspec:\n  template:\n    spec:\n      imagePullSecrets:\n      - name: own\n      - name: \"1\"\n",
			"---\napiVersion: apps/v1\nkind: Deployment\nspec:\n  template:\n    spec:\n      imagePullSecrets:\n        - name: own\n        - name: \"1\"\n        - name: site\n",
		},
		"all are there": {
			"apiVersion: v1\nkind: Pod\nspec:\n  imagePullSecrets: [{name: '1'}, {name: site}]\n",
			"apiVersion: v1\nkind: Pod\nspec:\n  imagePullSecrets: [{name: '1'}, {name: site}]\n",
		},
		"nothing is there": {
			"apiVersion: v1\nkind: Pod\nspec:\n  imagePullSecrets:\n  containers: []\n",
			"---\napiVersion: v1\nkind: Pod\nspec:\n  imagePullSecrets:\n    - name: site\n    - name: \"1\"\n  containers: []\n",
		},
		"another's": {
			"apiVersion: example.com/v1\nkind: Deployment\nspec: {template: {spec: {containers: []}}}\n",
			"apiVersion: example.com/v1\nkind: Deployment\nspec: {template: {spec: {containers: []}}}\n",
		},
		"empty": {"apiVersion: v1\nkind: Pod\nspec: {}\n", "apiVersion: v1\nkind: Pod\nspec: {}\n"},
	} {
		got, err := AddPullSecrets([]byte(c.docs), []string{"site", "1"})
		if err != nil || string(got) != c.want {
			t.Errorf("%s: got %v\n%s\nwant\n%s", name, err, got, c.want)
		}
		again, err := AddPullSecrets(got, []string{"site", "1"})
		if err != nil || string(again) != string(got) {
			t.Errorf("%s: the second time: %v\n%s", name, err, again)
		}
	}
	_, err := AddPullSecrets([]byte("apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {imagePullSecrets: site}\n"), []string{"site"})
	if err == nil || !strings.Contains(err.Error(), "Pod/p: imagePullSecrets is no list") {
		t.Errorf("got %v", err)
	}
	list := "kind: List\nitems:\n- apiVersion: v1\n  kind: ServiceAccount\n- apiVersion: v1\n  kind: Pod\n  spec: {containers: []}\n"
	got, err := AddPullSecrets([]byte(list), []string{"site"})
	if err != nil || strings.Count(string(got), "name: site") != 2 {
		t.Errorf("a list: %v\n%s", err, got)
	}
}
