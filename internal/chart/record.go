package chart

import (
	"encoding/base64"
	"io"

	"github.com/klauspost/compress/gzip"
)

// MaxRecord is how large the record of a release may be that Helm keeps in a Secret, in bytes
// (Kubernetes, "Secret": 1 MiB).
const MaxRecord = 1 << 20

// RecordSize is about how many bytes the record of a release takes that is made of the chart and
// renders to docs: Helm keeps both, compressed, in base64.
func (c *Chart) RecordSize(docs []byte) (int, error) {
	var n counter
	zw := gzip.NewWriter(&n)
	ch, err := c.HelmChart()
	if err != nil {
		return 0, err
	}
	for _, f := range ch.Raw {
		// Within the record's JSON, files are base64 themselves.
		if _, err := io.WriteString(zw, base64.StdEncoding.EncodeToString(f.Data)); err != nil {
			return 0, err
		}
	}
	if _, err := zw.Write(docs); err != nil {
		return 0, err
	}
	if err := zw.Close(); err != nil {
		return 0, err
	}
	return base64.StdEncoding.EncodedLen(int(n)), nil
}

// counter counts what is written to it.
type counter int

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}
