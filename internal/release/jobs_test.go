package release

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
)

const backupJob = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: backup}\nspec:\n  template: {spec: {containers: [{name: b, image: x}], restartPolicy: Never}}\n"

const backupPath = "/apis/batch/v1/namespaces/shop/jobs/backup-r1"

func liveJob(run, conditions string) string {
	return `{"apiVersion":"batch/v1","kind":"Job","metadata":{"name":"backup-r1","uid":"u","labels":{"sealift/run":"` + run +
		`"}},"status":{"conditions":[` + conditions + `]}}`
}

func TestRunJobs(t *testing.T) {
	c := newFake(t)
	run := func(timeout time.Duration) error {
		return c.RunJobs(t.Context(), "shop", []byte(backupJob), "r1", timeout)
	}

	// It does not end in time: it is stopped.
	var je *JobError
	if err := run(50 * time.Millisecond); !errors.As(err, &je) || !errors.Is(err, context.DeadlineExceeded) || je.Job != "Job/backup-r1" {
		t.Errorf("got %v", err)
	}
	if !slices.Equal(c.posts, []string{"/apis/batch/v1/namespaces/shop/jobs"}) || !slices.Equal(c.deleted, []string{backupPath}) {
		t.Errorf("created %q, deleted %q", c.posts, c.deleted)
	}

	c.deleted = nil
	c.api[backupPath] = liveJob("r1", `{"type":"Complete","status":"True"}`)
	if err := run(time.Minute); err != nil {
		t.Error(err)
	}
	c.api[backupPath] = liveJob("r2", `{"type":"Complete","status":"True"}`)
	if err := run(time.Minute); !errors.As(err, &je) {
		t.Errorf("the job of somebody else counts: %v", err)
	}
	c.api[backupPath] = liveJob("r1", `{"type":"Failed","status":"True","reason":"BackoffLimitExceeded"}`)
	c.api["/api/v1/namespaces/shop/pods"] = `{"kind":"PodList","apiVersion":"v1","items":[
	{"metadata":{"name":"backup-1","namespace":"shop"},"status":{"phase":"Failed","containerStatuses":[{"name":"b","state":{"terminated":{"exitCode":1}}}]}}]}`
	c.api["/api/v1/namespaces/shop/pods/backup-1/log"] = "disk is full\n"
	err := run(time.Minute)
	if !errors.As(err, &je) || je.Reason != "BackoffLimitExceeded" || je.Pod != "backup-1" || !slices.Equal(je.Log, []string{"disk is full"}) {
		t.Errorf("got %v", err)
	}
	if want := "Job/backup-r1 in namespace \"shop\" failed: BackoffLimitExceeded (pod backup-1)\n    disk is full"; err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
	if len(c.deleted) > 0 {
		t.Errorf("deleted %q", c.deleted)
	}
}

func TestReadJobs(t *testing.T) {
	jobs, err := readJobs([]byte(backupJob+"---\n"+strings.Replace(backupJob, "name: backup", "name: other, namespace: db", 1)+
		"status: {active: 1}\n"), "shop", "r1")
	if err != nil || len(jobs) != 2 || jobs[0].Namespace != "shop" || jobs[1].Namespace != "db" || jobs[1].Status.Active != 0 {
		t.Fatalf("got %v, %v", jobs, err)
	}
	if ttl := jobs[0].Spec.TTLSecondsAfterFinished; jobs[0].Labels[runLabel] != "r1" || ttl == nil || *ttl != 86400 {
		t.Errorf("got %+v", jobs[0])
	}
	for _, docs := range []string{
		"kind: Pod\napiVersion: v1\nmetadata: {name: x}\n", "kind: Job\napiVersion: batch/v1\n", strings.Replace(backupJob, "spec:", "spek:", 1),
		"x: 1\n", "[1]\n", "{", strings.Replace(backupJob, "{name: backup}", "7", 1),
	} {
		if got, err := readJobs([]byte(docs), "shop", "r1"); err == nil {
			t.Errorf("%q: got %v", docs, got)
		}
	}
}

func TestJobName(t *testing.T) {
	long := strings.Repeat("a", 63)
	seen := map[string]bool{}
	for _, tt := range [][2]string{
		{"backup", "r1"},
		{"backup", "R1"},
		{"backup", "r 1"},
		{"backup", ""},
		{"backup", "--"},
		{"backup", "é"},
		{long, "r1"},
		{long + "b", "r1"},
		{long, strings.Repeat("r", 100)},
		{"backup", strings.Repeat("r", 100)},
		{"backup", strings.Repeat("r", 101)},
	} {
		name, label := jobName(tt[0], tt[1]), jobRun(tt[1])
		if len(name) > maxJobName || seen[name] || name != strings.ToLower(name) || !strings.HasSuffix(name, "-"+label) ||
			strings.Trim(name, "-") != name || strings.Trim(label, "-") != label || label == "" {
			t.Errorf("%q: got %q, %q", tt, name, label)
		}
		seen[name] = true
	}
	if got := jobName("backup", "0f3a"); got != "backup-0f3a" {
		t.Errorf("got %q", got)
	}
}

func FuzzReadJobs(f *testing.F) {
	f.Add([]byte(backupJob), "r1")
	f.Add([]byte("apiVersion: v1\nkind: List\nitems:\n- {kind: Job, apiVersion: batch/v1, metadata: {name: x}}\n- 7\n"), "")
	f.Add([]byte("metadata: {name: [1]}\nkind: 7\napiVersion: batch/v1"), "é")
	f.Fuzz(func(t *testing.T, docs []byte, run string) {
		jobs, err := readJobs(docs, "shop", run)
		if err != nil {
			return
		}
		for _, j := range jobs {
			if j.Namespace == "" || j.Labels[runLabel] != jobRun(run) || j.Spec.TTLSecondsAfterFinished == nil {
				t.Errorf("got %+v", j)
			}
			if _, err := json.Marshal(j); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestJobEnd(t *testing.T) {
	for conditions, want := range map[string]struct {
		done   bool
		reason string
	}{
		``:                                     {false, ""},
		`{"type":"Complete","status":"False"}`: {false, ""},
		`{"type":"FailureTarget","status":"True"}`:                           {false, ""},
		`{"type":"Complete","status":"True"}`:                                {true, ""},
		`{"type":"Failed","status":"True"}`:                                  {true, " "},
		`{"type":"Failed","status":"True","reason":"R","message":"m\u001b"}`: {true, "R: m"},
	} {
		var job batchv1.Job
		if err := json.Unmarshal([]byte(liveJob("r1", conditions)), &job); err != nil {
			t.Fatal(err)
		}
		if done, reason := jobEnd(&job); done != want.done || reason != want.reason {
			t.Errorf("%s: got %v, %q", conditions, done, reason)
		}
	}
}
