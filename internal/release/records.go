package release

import (
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"

	helmrelease "helm.sh/helm/v4/pkg/release"
	releasev1 "helm.sh/helm/v4/pkg/release/v1"
	"helm.sh/helm/v4/pkg/storage/driver"
)

const (
	// maxRecord is what Kubernetes takes as the data of a Secret.
	maxRecord = 1 << 20
	// runLabel marks a release record with the run that created it and its
	// revision: Helm copies the labels of a record to those that follow.
	runLabel = "sealift/run"
)

// records is Helm's storage for one operation on one release. It knows which
// records the operation created, keeps it from working on a history that others
// changed meanwhile, and checks the limit of a record, of which the cluster says
// no more than "Too long".
type records struct {
	driver.Driver
	run string // marks what is created; it is never the same twice

	// watched says that newest is the newest revision that there may be.
	watched bool
	newest  int

	// check is asked before a record is created; nil: nothing is in the way.
	check func(*releasev1.Release) error

	tried   *releasev1.Release // what was to be created last
	created bool               // and the cluster said that it was
}

// watch makes all that follows fail with an *[OvertakenError] where the newest
// revision is not that of h any more, or one that was created since.
func (d *records) watch(h history) {
	d.watched, d.newest = true, 0
	if last := h.last(); last != nil {
		d.newest = last.Version
	}
}

// Query implements driver.Queryor. Helm's actions begin with reading the history.
func (d *records) Query(labels map[string]string) ([]helmrelease.Releaser, error) {
	found, err := d.Driver.Query(labels)
	if _, some := labels["status"]; some || !d.watched || (err != nil && !errors.Is(err, driver.ErrReleaseNotFound)) {
		return found, err
	}
	newest := 0
	for _, f := range found {
		if r, err := asRelease(f); err == nil {
			newest = max(newest, r.Version)
		}
	}
	if newest != d.newest {
		return nil, &OvertakenError{Release: labels["name"], Revision: d.newest, Newest: newest}
	}
	return found, err
}

// Create implements driver.Creator.
func (d *records) Create(key string, rls helmrelease.Releaser) error {
	r, err := asRelease(rls)
	if err != nil {
		return err
	}
	if d.watched && r.Version != d.newest+1 {
		return &OvertakenError{Release: r.Name, Namespace: r.Namespace, Revision: d.newest, Newest: r.Version - 1}
	}
	r.Labels = maps.Clone(r.Labels) // Helm shares them with another record
	if r.Labels == nil {
		r.Labels = map[string]string{}
	}
	r.Labels[runLabel] = d.mark(r)
	size, err := recordSize(r)
	if err != nil {
		return err
	}
	if size > maxRecord {
		return &TooLargeError{Release: r.Name, Size: size, Limit: maxRecord}
	}
	if d.check != nil {
		if err := d.check(r); err != nil {
			return err
		}
	}
	d.tried, d.created = r, false
	if err := d.Driver.Create(key, r); err != nil {
		return err
	}
	d.created, d.newest = true, r.Version
	return nil
}

func (d *records) mark(r *releasev1.Release) string { return fmt.Sprintf("%s.%d", d.run, r.Version) }

// owns says that this run created a record.
func (d *records) owns(r *releasev1.Release) bool {
	return d.run != "" && r.Labels[runLabel] == d.mark(r)
}

// marked says that a record was created by this program, in whatever run. Helm copies the label of a record to the next one,
// but not its revision.
func marked(r *releasev1.Release) bool {
	return strings.HasSuffix(r.Labels[runLabel], fmt.Sprintf(".%d", r.Version))
}

// made is the revision that this operation created last; 0 if it created none.
// An error says that this cannot be found out.
func (d *records) made() (int, error) {
	if d.tried == nil {
		return 0, nil
	}
	if d.created {
		return d.tried.Version, nil
	}
	// It may be there: the answer to its creation was lost.
	found, err := d.Get(fmt.Sprintf("%s%s.v%d", recordPrefix, d.tried.Name, d.tried.Version))
	if errors.Is(err, driver.ErrReleaseNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	r, err := asRelease(found)
	if err != nil || !d.owns(r) {
		return 0, err
	}
	d.newest = r.Version
	return r.Version, nil
}

// recordSize is the size of a record as Helm encodes it.
func recordSize(r *releasev1.Release) (int, error) {
	var n counter
	zw, err := gzip.NewWriterLevel(&n, gzip.BestCompression)
	if err != nil {
		return 0, err
	}
	err = json.NewEncoder(zw).Encode(r)
	if err = firstError(err, zw.Close()); err != nil {
		return 0, err
	}
	return base64.StdEncoding.EncodedLen(int(n)), nil
}

type counter int

func (n *counter) Write(p []byte) (int, error) {
	*n += counter(len(p))
	return len(p), nil
}
