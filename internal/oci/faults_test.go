package oci_test

import (
	"bytes"
	"fmt"
	"io"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/internal/oci/faultproxy"
	"github.com/sealift/sealift/internal/oci/ocitest"
)

// TestAllFaults: whatever goes wrong now and then, all that is pushed arrives, and all that is pulled
// is what was pushed.
func TestAllFaults(t *testing.T) {
	blobs := [][]byte{noise(5*mib + 1), noise(2 * mib), noise(mib + 1)}
	for i := range 12 {
		blobs = append(blobs, fmt.Append(noise(20000*i), i))
	}
	o := oci.Options{Budget: oci.Budget{
		Wait: time.Millisecond, LongestWait: 20 * time.Millisecond, Stall: 400 * time.Millisecond, Answer: 1500 * time.Millisecond,
	}}
	for _, kind := range []faultproxy.Kind{
		faultproxy.TooManyRequests, faultproxy.Unavailable, faultproxy.InternalError, faultproxy.Drop, faultproxy.Reset,
		faultproxy.CutBody, faultproxy.CutRequest, faultproxy.CorruptBody, faultproxy.CorruptRequest, faultproxy.ShortBody,
		faultproxy.StallBody, faultproxy.StallRequest,
	} {
		rules := map[string]faultproxy.Rule{"every fifth": {Kind: kind, Every: 5}, "first tries": {Kind: kind, FirstTries: 1}}
		if kind == faultproxy.CorruptRequest {
			// It leaves nothing of its upload, so that no path comes twice.
			delete(rules, "first tries")
		}
		for name, rule := range rules {
			t.Run(string(kind)+", "+name, func(t *testing.T) {
				t.Parallel()
				proxy := faultproxy.Start(t, distribution(t, t.TempDir()), rule)
				repo, err := client(o).Repository(t.Context(), proxy.Addr, "a/b", true)
				if err != nil {
					t.Fatal(err)
				}
				var all errgroup.Group
				all.SetLimit(4)
				for _, b := range blobs {
					all.Go(func() error { return put(t.Context(), t, repo, b) })
				}
				if err := all.Wait(); err != nil {
					t.Fatal(err)
				}
				var manifests []*oci.Content
				for i := range 8 {
					manifests = append(manifests, ocitest.Content(ocitest.MediaTypeManifest, fmt.Appendf(nil,
						`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"x/y","digest":%q,"size":%d},"layers":[],"annotations":{"n":"%d"}}`,
						ocitest.MediaTypeManifest, describeBlob(blobs[3]).Digest, len(blobs[3]), i)))
				}
				for i, m := range manifests {
					all.Go(func() error { return repo.PutManifest(t.Context(), fmt.Sprint("tag", i), m) })
				}
				if err := all.Wait(); err != nil {
					t.Fatal(err)
				}
				for i, m := range manifests {
					all.Go(func() error {
						got, err := repo.Manifest(t.Context(), fmt.Sprint("tag", i))
						if err == nil && !bytes.Equal(got.Raw, m.Raw) {
							err = fmt.Errorf("tag %d is %s", i, got.Raw)
						}
						return err
					})
				}
				for _, b := range blobs {
					all.Go(func() error {
						// What has been spoiled is found by whoever proves it, and read again.
						for range 3 {
							body := repo.Blob(t.Context(), describeBlob(b), 0)
							got, err := io.ReadAll(body)
							body.Close()
							if err != nil {
								return err
							}
							if bytes.Equal(got, b) {
								return nil
							}
						}
						return fmt.Errorf("%d bytes were not read back", len(b))
					})
				}
				if err := all.Wait(); err != nil {
					t.Fatal(err)
				}
				if proxy.Stats().Faults == 0 {
					t.Error("nothing went wrong")
				}
			})
		}
	}
}
