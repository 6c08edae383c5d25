package release

import (
	"compress/gzip"
	"encoding/base64"
	"encoding/json"

	helmrelease "helm.sh/helm/v4/pkg/release"
	releasev1 "helm.sh/helm/v4/pkg/release/v1"
	"helm.sh/helm/v4/pkg/storage/driver"
)

// maxRecord is what Kubernetes takes as the data of a Secret.
const maxRecord = 1 << 20

// records is Helm's storage with a check of its limit, of which the cluster
// says no more than "Too long".
type records struct{ driver.Driver }

// Create implements driver.Creator.
func (d *records) Create(key string, rls helmrelease.Releaser) error {
	if r, ok := rls.(*releasev1.Release); ok {
		size, err := recordSize(r)
		if err != nil {
			return err
		}
		if size > maxRecord {
			return &TooLargeError{Release: r.Name, Size: size, Limit: maxRecord}
		}
	}
	return d.Driver.Create(key, rls)
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
