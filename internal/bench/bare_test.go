//go:build linux

package bench

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"sync"
	"syscall"
)

// bareArgument makes this program a bare loop; the file with its job follows.
const bareArgument = "--bare-loop"

// bareJob is what a bare loop does: the least that packing, verifying or seeding can do, with
// nothing around it. It runs in a process of its own, so that it is measured like the others.
type bareJob struct {
	Mode     string    `json:"mode"` // fetch, hash, upload or ask
	Registry string    `json:"registry,omitempty"`
	File     string    `json:"file"`
	Blobs    []located `json:"blobs,omitempty"`
}

// bareJobs is how many blobs move at the same time, as in pack and seed.
const bareJobs = 4

func runBare(path string) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var j bareJob
	if err := json.Unmarshal(raw, &j); err != nil {
		return err
	}
	ctx := context.Background()
	switch j.Mode {
	case "fetch":
		return j.fetch(ctx)
	case "hash":
		return j.hash()
	case "upload":
		return j.upload(ctx)
	case "ask":
		return j.ask(ctx)
	}
	return fmt.Errorf("no bare loop is called %q", j.Mode)
}

// each calls f for every blob with its place in the file.
func (j *bareJob) each(f func(b located, at int64) error) error {
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		errs []error
		at   int64
		slot = make(chan struct{}, bareJobs)
	)
	for _, b := range j.Blobs {
		start := at
		at += b.Size
		slot <- struct{}{}
		wg.Go(func() {
			defer func() { <-slot }()
			if err := f(b, start); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// fetch gets every blob, hashes it and writes it once, to one file that is made durable.
func (j *bareJob) fetch(ctx context.Context) (err error) {
	f, err := os.Create(j.File)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	var size int64
	for _, b := range j.Blobs {
		size += b.Size
	}
	// Not all file systems can allocate ahead; it only keeps the file in one piece.
	_ = syscall.Fallocate(int(f.Fd()), 0, 0, size)
	err = j.each(func(b located, at int64) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+j.Registry+"/v2/"+b.Repo+"/blobs/"+b.Digest, nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		h, buf := sha256.New(), make([]byte, 1<<20)
		for end := at + b.Size; at < end; {
			piece := buf[:min(end-at, int64(len(buf)))]
			if _, err := io.ReadFull(resp.Body, piece); err != nil {
				return err
			}
			h.Write(piece)
			if _, err := f.WriteAt(piece, at); err != nil {
				return err
			}
			at += int64(len(piece))
		}
		return b.check(h)
	})
	if err != nil {
		return err
	}
	return f.Sync()
}

func (b located) check(h hash.Hash) error {
	if got := fmt.Sprintf("sha256:%x", h.Sum(nil)); got != b.Digest {
		return fmt.Errorf("digest %s, want %s", got, b.Digest)
	}
	return nil
}

// hash reads the file and hashes it.
func (j *bareJob) hash() error {
	f, err := os.Open(j.File)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.CopyBuffer(sha256.New(), struct{ io.Reader }{f}, make([]byte, 1<<20))
	return err
}

// upload reads every blob, hashes it and sends it to the registry.
func (j *bareJob) upload(ctx context.Context) error {
	f, err := os.Open(j.File)
	if err != nil {
		return err
	}
	defer f.Close()
	return j.each(func(b located, at int64) error {
		location, err := send(ctx, http.MethodPost, "http://"+j.Registry+"/v2/bare/all/blobs/uploads/", "", nil, http.StatusAccepted)
		if err != nil {
			return err
		}
		h := sha256.New()
		body := &sizedReader{io.TeeReader(io.NewSectionReader(f, at, b.Size), h), b.Size}
		if _, err := send(ctx, http.MethodPut, withDigest(location, b.Digest), "application/octet-stream", body, http.StatusCreated); err != nil {
			return err
		}
		return b.check(h)
	})
}

// ask asks the registry for the manifests and tags that blobs names.
func (j *bareJob) ask(ctx context.Context) error {
	return j.each(func(b located, _ int64) error {
		for _, reference := range []string{b.Digest, tag} {
			target := "http://" + j.Registry + "/v2/" + b.Repo + "/manifests/" + reference
			req, err := http.NewRequestWithContext(ctx, http.MethodHead, target, nil)
			if err != nil {
				return err
			}
			req.Header.Set("Accept", indexType+", "+manifestType)
			resp, err := client.Do(req)
			if err != nil {
				return err
			}
			if err := resp.Body.Close(); err != nil {
				return err
			}
			if got := resp.Header.Get("Docker-Content-Digest"); got != b.Digest {
				return fmt.Errorf("%s: %s, digest %q", target, resp.Status, got)
			}
		}
		return nil
	})
}

type sizedReader struct {
	io.Reader
	size int64
}

func (r *sizedReader) Size() int64 { return r.size }
