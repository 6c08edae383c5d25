//go:build linux

package bench

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
)

const (
	mb = 1_000_000

	indexType    = "application/vnd.oci.image.index.v1+json"
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	configType   = "application/vnd.oci.image.config.v1+json"
	layerType    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// images are what is packed: 1000 MB of layers, of which the first is in two images.
var images = []struct {
	name   string
	layers []int // sizes in MB, see layer
	arm64  []int // where set, an index, of which only linux/amd64 travels
}{
	{name: "web", layers: []int{300, 100, 10}},
	{name: "worker", layers: []int{300, 200, 5}},
	{name: "database", layers: []int{150, 80, 1}},
	{name: "tool", layers: []int{60, 40, 2}},
	{name: "proxy", layers: []int{30, 20, 2}, arm64: []int{25}},
}

// descriptor names a blob or manifest.
type descriptor struct {
	MediaType string            `json:"mediaType"`
	Digest    string            `json:"digest"`
	Size      int64             `json:"size"`
	Platform  map[string]string `json:"platform,omitempty"`
}

// located is a blob in a repository.
type located struct {
	Repo   string `json:"repo"`
	Digest string `json:"digest"`
	Size   int64  `json:"size"`
}

// corpus is what the source registry holds and travels.
type corpus struct {
	references []string  // of the images
	blobs      []located // each once: layers and configs
	bytes      int64
}

// pusher fills a registry.
type pusher struct {
	addr string
	seen map[string]descriptor // by size, since a layer is determined by it
	in   map[string]string     // digest to a repository that has it
	corpus
}

// push makes the images and sends them to the registry at addr.
func push(ctx context.Context, addr string) (*corpus, error) {
	p := &pusher{addr: addr, seen: map[string]descriptor{}, in: map[string]string{}}
	for _, img := range images {
		repo := "bench/" + img.name
		d, err := p.image(ctx, repo, "amd64", img.layers, true)
		if err != nil {
			return nil, err
		}
		if img.arm64 != nil {
			other, err := p.image(ctx, repo, "arm64", img.arm64, false)
			if err != nil {
				return nil, err
			}
			d, err = p.manifest(ctx, repo, indexType, map[string]any{
				"schemaVersion": 2, "mediaType": indexType, "manifests": []descriptor{d, other},
			})
			if err != nil {
				return nil, err
			}
		}
		if err := p.tag(ctx, repo, d); err != nil {
			return nil, err
		}
		p.references = append(p.references, addr+"/"+repo+":1.0.0")
	}
	return &p.corpus, nil
}

func (p *pusher) image(ctx context.Context, repo, arch string, sizes []int, travels bool) (descriptor, error) {
	var layers []descriptor
	var diffIDs []string
	for _, size := range sizes {
		d, err := p.layer(ctx, repo, size, travels)
		if err != nil {
			return descriptor{}, err
		}
		layers = append(layers, d)
		// What the layer unpacks to: nobody here unpacks.
		diffIDs = append(diffIDs, fmt.Sprintf("sha256:%064x", size))
	}
	raw, err := json.Marshal(map[string]any{
		"architecture": arch, "os": "linux", "config": map[string]any{},
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs},
	})
	if err != nil {
		return descriptor{}, err
	}
	config, err := p.blob(ctx, repo, configType, bytes.NewReader(raw))
	if err != nil {
		return descriptor{}, err
	}
	if travels {
		p.add(repo, config)
	}
	d, err := p.manifest(ctx, repo, manifestType, map[string]any{
		"schemaVersion": 2, "mediaType": manifestType, "config": config, "layers": layers,
	})
	d.Platform = map[string]string{"os": "linux", "architecture": arch}
	return d, err
}

func (p *pusher) add(repo string, d descriptor) {
	p.blobs = append(p.blobs, located{repo, d.Digest, d.Size})
	p.bytes += d.Size
}

// layer makes a layer of size MB: random bytes, the same for the same size, in a gzip stream
// that stores them. Tools that look at layers must find them compressed already.
func (p *pusher) layer(ctx context.Context, repo string, size int, travels bool) (descriptor, error) {
	key := fmt.Sprint(size)
	if d, ok := p.seen[key]; ok {
		_, err := p.start(ctx, repo, d.Digest, p.in[d.Digest])
		return d, err
	}
	r, w := io.Pipe()
	go func() {
		z, err := gzip.NewWriterLevel(w, gzip.NoCompression)
		if err == nil {
			random := rand.NewChaCha8(sha256.Sum256([]byte(key)))
			_, err = io.CopyBuffer(z, io.LimitReader(random, int64(size)*mb), make([]byte, 1<<20))
		}
		if err == nil {
			err = z.Close()
		}
		w.CloseWithError(err)
	}()
	d, err := p.blob(ctx, repo, layerType, r)
	if err != nil {
		return d, err
	}
	p.seen[key], p.in[d.Digest] = d, repo
	if travels {
		p.add(repo, d)
	}
	return d, nil
}

// start begins an upload, or mounts a blob from another repository.
func (p *pusher) start(ctx context.Context, repo, digest, from string) (location string, err error) {
	target := "http://" + p.addr + "/v2/" + repo + "/blobs/uploads/"
	want := http.StatusAccepted
	if from != "" {
		target += "?" + url.Values{"mount": {digest}, "from": {from}}.Encode()
		want = http.StatusCreated
	}
	return send(ctx, http.MethodPost, target, "", nil, want)
}

func (p *pusher) blob(ctx context.Context, repo, mediaType string, content io.Reader) (descriptor, error) {
	location, err := p.start(ctx, repo, "", "")
	if err != nil {
		return descriptor{}, err
	}
	h := sha256.New()
	n := &counter{}
	location, err = send(ctx, http.MethodPatch, location, "application/octet-stream", io.TeeReader(content, io.MultiWriter(h, n)), http.StatusAccepted)
	if err != nil {
		return descriptor{}, err
	}
	d := descriptor{MediaType: mediaType, Digest: fmt.Sprintf("sha256:%x", h.Sum(nil)), Size: n.n}
	_, err = send(ctx, http.MethodPut, withDigest(location, d.Digest), "", nil, http.StatusCreated)
	return d, err
}

type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

func (p *pusher) manifest(ctx context.Context, repo, mediaType string, v any) (descriptor, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return descriptor{}, err
	}
	d := descriptor{MediaType: mediaType, Digest: fmt.Sprintf("sha256:%x", sha256.Sum256(raw)), Size: int64(len(raw))}
	_, err = send(ctx, http.MethodPut, "http://"+p.addr+"/v2/"+repo+"/manifests/"+d.Digest, mediaType, bytes.NewReader(raw), http.StatusCreated)
	return d, err
}

// tag gives a manifest that is there its tag.
func (p *pusher) tag(ctx context.Context, repo string, d descriptor) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.addr+"/v2/"+repo+"/manifests/"+d.Digest, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", d.MediaType)
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = send(ctx, http.MethodPut, "http://"+p.addr+"/v2/"+repo+"/manifests/1.0.0", d.MediaType, resp.Body, http.StatusCreated)
	return err
}

// client is the one of the bare loops and of the pusher. Big buffers are what anybody would do.
var client = &http.Client{Transport: &http.Transport{
	MaxIdleConnsPerHost: 8, ReadBufferSize: 64 << 10, WriteBufferSize: 64 << 10,
}}

// send sends a request and returns the Location of the answer, which must have the status want.
func send(ctx context.Context, method, target, contentType string, body io.Reader, want int) (string, error) {
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return "", err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if sized, ok := body.(interface{ Size() int64 }); ok {
		req.ContentLength = sized.Size()
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != want {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return "", fmt.Errorf("%s %s: %s: %s", method, target, resp.Status, text)
	}
	if l := resp.Header.Get("Location"); l != "" {
		u, err := resp.Request.URL.Parse(l)
		if err != nil {
			return "", err
		}
		return u.String(), nil
	}
	return "", nil
}

func withDigest(location, digest string) string {
	sep := "?"
	if strings.Contains(location, "?") {
		sep = "&"
	}
	return location + sep + url.Values{"digest": {digest}}.Encode()
}
