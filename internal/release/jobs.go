package release

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	batchclient "k8s.io/client-go/kubernetes/typed/batch/v1"
)

const (
	// jobTTL is how long a Job stays after its end where it does not say.
	jobTTL = 24 * time.Hour
	// maxJobName is what Kubernetes allows: the name becomes a label of the pods.
	maxJobName = 63
	// maxRun is how much of a run's name the names of its Jobs get.
	maxRun = 20
)

// RunJobs runs Jobs (documents of kind Job of batch/v1, no others), one after the other, each under its name with "-" and run
// added, both cut where they are too long, and with the label sealift/run. It waits for the success of each, at most for timeout.
// A Job in no namespace gets the given one. Done Jobs stay for a day, unless they say otherwise themselves.
//
// If it is called again with the same run, Jobs that are there are not run again: it waits for those that are running, and fails with
// those that failed. When ctx ends, or the time is up, the Job that is running is stopped and deleted.
//
// Errors are *[JobError] with the last lines of the log.
func (c *Cluster) RunJobs(ctx context.Context, namespace string, docs []byte, run string, timeout time.Duration) error {
	jobs, err := readJobs(docs, namespace, run)
	if err != nil {
		return err
	}
	if timeout <= 0 {
		timeout = c.timeout
	}
	for _, job := range jobs {
		if err := c.runJob(ctx, job, timeout); err != nil {
			return err
		}
	}
	return nil
}

// readJobs reads documents, and makes them the Jobs of a run.
func readJobs(docs []byte, namespace, run string) ([]*batchv1.Job, error) {
	objects, err := readObjects(docs)
	if err != nil {
		return nil, fmt.Errorf("reading jobs: %w", err)
	}
	var jobs []*batchv1.Job
	for _, u := range objects {
		if u.GetKind() != "Job" || u.GetAPIVersion() != "batch/v1" || u.GetName() == "" {
			return nil, fmt.Errorf("reading jobs: there is a %s of %q named %q, want jobs of \"batch/v1\"",
				clean(u.GetKind()), clean(u.GetAPIVersion()), clean(u.GetName()))
		}
		job := &batchv1.Job{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(u.Object, job, true); err != nil {
			return nil, fmt.Errorf("reading job %q: %w", clean(u.GetName()), err)
		}
		job.Name, job.Status = jobName(job.Name, run), batchv1.JobStatus{}
		if job.Namespace == "" {
			job.Namespace = namespace
		}
		job.Labels = with(job.Labels, runLabel, jobRun(run))
		if job.Spec.TTLSecondsAfterFinished == nil {
			ttl := int32(jobTTL / time.Second)
			job.Spec.TTLSecondsAfterFinished = &ttl
		}
		jobs = append(jobs, job)
	}
	return jobs, nil
}

// jobRun is the name of a run as it can be part of a name and a label: one that had to be changed ends in a digest of what it was.
func jobRun(run string) string {
	short := strings.Trim(strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-':
			return r
		}
		return '-'
	}, strings.ToLower(run)), "-")
	if short == run && len(short) <= maxRun && short != "" {
		return short
	}
	return strings.TrimLeft(strings.TrimRight(cut(short, maxRun-9), "-")+"-"+digestOf(run), "-")
}

func jobName(name, run string) string {
	end := "-" + jobRun(run)
	if len(name)+len(end) <= maxJobName {
		return name + end
	}
	return strings.TrimRight(cut(name, maxJobName-len(end)-9), "-.") + "-" + digestOf(name) + end
}

func cut(s string, n int) string { return s[:min(len(s), n)] }

// digestOf tells apart what looks the same when it is cut.
func digestOf(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:4])
}

func (c *Cluster) runJob(ctx context.Context, job *batchv1.Job, timeout time.Duration) error {
	s, err := c.open(ctx, job.Namespace)
	if err != nil {
		return err
	}
	jobs := s.clientset.BatchV1().Jobs(job.Namespace)
	e := &JobError{Job: "Job/" + clean(job.Name), Namespace: job.Namespace}
	live, err := jobs.Create(ctx, job, metav1.CreateOptions{FieldManager: userAgent})
	if apierrors.IsAlreadyExists(err) {
		if live, err = jobs.Get(ctx, job.Name, metav1.GetOptions{}); err == nil && live.Labels[runLabel] != job.Labels[runLabel] {
			err = errors.New("there is another job of this name")
		}
	}
	if err != nil {
		e.Err = forbid(err)
		return e
	}
	uid := live.UID
	err = poll(ctx, timeout, func() (bool, error) {
		now, err := jobs.Get(ctx, job.Name, metav1.GetOptions{})
		switch {
		case ctx.Err() != nil:
			return false, context.Cause(ctx)
		case transient(err):
			return false, nil
		case err != nil:
			return false, forbid(err)
		case now.UID != uid:
			return false, errors.New("it was replaced")
		}
		done, reason := jobEnd(now)
		if done && reason != "" {
			e.Reason = reason
			return false, errJobFailed
		}
		return done, nil
	})
	if err == nil {
		return nil
	}
	if !errors.Is(err, errJobFailed) {
		e.Err = err
	}
	// What comes now must be done also where the time is up.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), afterwards)
	defer cancel()
	if s, err = c.open(ctx, job.Namespace); err != nil {
		return e
	}
	s.why(ctx, e, "Job", job.Name)
	if e.Reason == "" {
		if err := stopJob(ctx, s.clientset.BatchV1().Jobs(job.Namespace), job.Name, uid); err != nil {
			e.Err = fmt.Errorf("%w; and it could not be stopped: %w", e.Err, err)
		}
	}
	return e
}

// afterwards bounds what is done after a Job failed: to find out why, and to stop it.
const afterwards = time.Minute

var errJobFailed = errors.New("it failed")

// jobEnd says whether a Job has ended; reason is empty where it succeeded.
func jobEnd(job *batchv1.Job) (done bool, reason string) {
	for _, c := range job.Status.Conditions {
		if c.Status != corev1.ConditionTrue {
			continue
		}
		switch c.Type {
		case batchv1.JobComplete:
			return true, ""
		case batchv1.JobFailed:
			if reason = clean(c.Reason + ": " + c.Message); c.Message == "" {
				reason = clean(c.Reason)
			}
			return true, max(reason, " ") // never empty
		case batchv1.JobSuspended, batchv1.JobFailureTarget, batchv1.JobSuccessCriteriaMet:
		}
	}
	return false, ""
}

// stopJob deletes a Job with its pods, and waits until they are gone.
func stopJob(ctx context.Context, jobs batchclient.JobInterface, name string, uid types.UID) error {
	policy := metav1.DeletePropagationForeground
	err := jobs.Delete(ctx, name, metav1.DeleteOptions{PropagationPolicy: &policy, Preconditions: &metav1.Preconditions{UID: &uid}})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // it is gone, or another one is in its place
	}
	if err != nil {
		return forbid(err)
	}
	return poll(ctx, afterwards, func() (bool, error) {
		now, err := jobs.Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) || (err == nil && now.UID != uid) {
			return true, nil
		}
		return false, nil
	})
}

// transient says that asking again may help.
func transient(err error) bool {
	if err == nil {
		return false
	}
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return true // there was no answer
	}
	return apierrors.IsTooManyRequests(err) || apierrors.IsServerTimeout(err) || apierrors.IsTimeout(err) ||
		apierrors.IsInternalError(err) || apierrors.IsServiceUnavailable(err)
}
