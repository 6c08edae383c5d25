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
	plainType    = "application/vnd.oci.image.layer.v1.tar"

	tag = "1.0.0" // of every image
)

// images are what is packed: layers of 1000 MB together, of which the first and another one are
// in two images each. Enough of them are large to keep 16 transfers busy.
var images = []struct {
	name   string
	layers []int // sizes in MB, see layer
	arm64  []int // where set, an index, of which only linux/amd64 travels
}{
	{name: "web", layers: []int{250, 100, 10}},
	{name: "worker", layers: []int{250, 90, 8}},
	{name: "database", layers: []int{80, 70, 1}},
	{name: "tool", layers: []int{60, 40, 2}},
	{name: "queue", layers: []int{38, 37, 35, 34, 33, 32}},
	{name: "proxy", layers: []int{50, 30, 2}, arm64: []int{25}},
}

// corpusMB is the sum of the layers of images that travel.
const corpusMB = 1000

// plainLayers are the sizes in MB of the layers of another image, which are not compressed.
var plainLayers = []int{200, 20, 15, 10, 5}

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
	roots      []located // what the tags of the images stand for
	plain      string    // the image whose layers are not compressed
	plainBytes int64     // their size
}

// pusher fills a registry.
type pusher struct {
	addr string
	// scale is how many bytes a MB of the tables above has.
	scale int64
	seen  map[string]descriptor // by size, since a layer is determined by it
	in    map[string]string     // digest to a repository that has it
	corpus
}

// push makes the images, with layers of size bytes, and sends them to the registry at addr.
func push(ctx context.Context, addr string, size int64) (*corpus, error) {
	p := &pusher{addr: addr, scale: size / corpusMB, seen: map[string]descriptor{}, in: map[string]string{}}
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
		p.references = append(p.references, addr+"/"+repo+":"+tag)
		p.roots = append(p.roots, located{repo, d.Digest, d.Size})
	}
	return &p.corpus, p.pushPlain(ctx)
}

// pushPlain makes the image whose layers are not compressed.
func (p *pusher) pushPlain(ctx context.Context) error {
	const repo = "bench/plain"
	var layers []descriptor
	var diffIDs []string
	for _, size := range plainLayers {
		n := int64(size) * p.scale
		d, err := p.blob(ctx, repo, plainType, io.LimitReader(&dull{r: rand.NewChaCha8(sha256.Sum256([]byte(fmt.Sprint("plain", n))))}, n))
		if err != nil {
			return err
		}
		layers, diffIDs = append(layers, d), append(diffIDs, d.Digest)
		p.plainBytes += n
	}
	d, err := p.imageOf(ctx, repo, "amd64", layers, diffIDs, false)
	if err != nil {
		return err
	}
	p.plain = p.addr + "/" + repo + ":" + tag
	return p.tag(ctx, repo, d)
}

// dull makes of random bytes what compresses to about half, as programs do.
type dull struct{ r *rand.ChaCha8 }

func (d *dull) Read(b []byte) (int, error) {
	n, err := d.r.Read(b)
	for i := range b[:n] {
		if i%64 < 16 {
			b[i] = 0
		} else {
			b[i] &= 0x3f
		}
	}
	return n, err
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
	return p.imageOf(ctx, repo, arch, layers, diffIDs, travels)
}

// imageOf makes the image of layers that are there.
func (p *pusher) imageOf(ctx context.Context, repo, arch string, layers []descriptor, diffIDs []string, travels bool) (descriptor, error) {
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

// layer makes a layer of size units: random bytes, the same for the same size, in a gzip stream
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
			_, err = io.CopyBuffer(z, io.LimitReader(random, int64(size)*p.scale), make([]byte, 1<<20))
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
	_, err = send(ctx, http.MethodPut, "http://"+p.addr+"/v2/"+repo+"/manifests/"+tag, d.MediaType, resp.Body, http.StatusCreated)
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
