package conformance

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// Media types of the image specification.
const (
	typeImage  = "application/vnd.oci.image.manifest.v1+json"
	typeIndex  = "application/vnd.oci.image.index.v1+json"
	typeConfig = "application/vnd.oci.image.config.v1+json"
	typeLayer  = "application/vnd.oci.image.layer.v1.tar+gzip"
	typeEmpty  = "application/vnd.oci.empty.v1+json"
)

func digestOf(raw []byte) string {
	sum := sha256.Sum256(raw)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// target is a registry with something in it.
type target struct {
	base string // http://HOST:PORT
	name string // of the repository with the content
	*content
}

// content is what is in the repository.
type content struct {
	tags          []string // in their order
	listed        []string // those with others that a list of them has
	manifest      []byte   // what all tags stand for
	config, layer []byte
	referrers     []descriptor // of manifest
}

type descriptor struct {
	MediaType    string            `json:"mediaType"`
	Digest       string            `json:"digest"`
	Size         int64             `json:"size"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
}

func describe(mediaType string, raw []byte) descriptor {
	return descriptor{MediaType: mediaType, Digest: digestOf(raw), Size: int64(len(raw))}
}

func encoded(v any) []byte {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return raw
}

// reply is an answer that was read to its end.
type reply struct {
	status int
	header http.Header
	body   []byte
	url    *url.URL
}

// request is one request; path may be a whole URL.
type request struct {
	method, path string
	header       map[string]string
	body         []byte
	// stream sends the body without its length.
	stream bool
}

func (t *target) do(ctx context.Context, r request) (*reply, error) {
	address := r.path
	if strings.HasPrefix(address, "/") {
		address = t.base + address
	}
	var body io.Reader = http.NoBody
	if r.body != nil {
		body = bytes.NewReader(r.body)
		if r.stream {
			body = struct{ io.Reader }{body}
		}
	}
	req, err := http.NewRequestWithContext(ctx, r.method, address, body)
	if err != nil {
		return nil, err
	}
	for k, v := range r.header {
		req.Header.Set(k, v)
	}
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", r.method, address, err)
	}
	return &reply{resp.StatusCode, resp.Header, raw, req.URL}, nil
}

// transport goes to the registry and nowhere else.
var transport = &http.Transport{Proxy: nil}

// ask makes a request without a body; headers are pairs.
func (t *target) ask(ctx context.Context, method, path string, headers ...string) (*reply, error) {
	h := map[string]string{}
	for i := 0; i < len(headers); i += 2 {
		h[headers[i]] = headers[i+1]
	}
	return t.do(ctx, request{method: method, path: path, header: h})
}

// path is below the repository.
func (t *target) path(format string, args ...any) string {
	return "/v2/" + t.name + "/" + fmt.Sprintf(format, args...)
}

func (r *reply) is(statuses ...int) error {
	for _, s := range statuses {
		if r.status == s {
			return nil
		}
	}
	return fmt.Errorf("%s: status %d, want %v: %.200s", r.url, r.status, statuses, r.body)
}

func (r *reply) has(name, want string) error {
	if got := r.header.Get(name); got != want {
		return fmt.Errorf("%s: header %s is %q, want %q", r.url, name, got, want)
	}
	return nil
}

func (r *reply) holds(want []byte) error {
	if !bytes.Equal(r.body, want) {
		return fmt.Errorf("%s: %d bytes with digest %s, want %d with %s", r.url, len(r.body), digestOf(r.body), len(want), digestOf(want))
	}
	return nil
}

// codes are those of the specification.
var codes = []string{
	"BLOB_UNKNOWN", "BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN", "DIGEST_INVALID", "MANIFEST_BLOB_UNKNOWN", "MANIFEST_INVALID",
	"MANIFEST_UNKNOWN", "NAME_INVALID", "NAME_UNKNOWN", "SIZE_INVALID", "UNAUTHORIZED", "DENIED", "UNSUPPORTED", "TOOMANYREQUESTS",
}

// refuses checks that the body is an error as the specification has it, with one of these codes; of
// all codes where none is given.
func (r *reply) refuses(wanted ...string) error {
	if len(wanted) == 0 {
		wanted = codes
	}
	var doc struct {
		Errors []struct {
			Code string `json:"code"`
		} `json:"errors"`
	}
	if err := json.Unmarshal(r.body, &doc); err != nil || len(doc.Errors) == 0 {
		return fmt.Errorf("%s: the body is no error of the specification: %.200s", r.url, r.body)
	}
	for _, w := range wanted {
		if doc.Errors[0].Code == w {
			return nil
		}
	}
	return fmt.Errorf("%s: code %s, want %v", r.url, doc.Errors[0].Code, wanted)
}

// location is where an answer leads.
func (r *reply) location() (*url.URL, error) {
	text := r.header.Get("Location")
	if text == "" {
		return nil, fmt.Errorf("%s: no Location", r.url)
	}
	return r.url.Parse(text)
}

// with adds a query to a location, which keeps its own.
func with(u *url.URL, key, value string) string {
	q := u.Query()
	q.Set(key, value)
	c := *u
	c.RawQuery = q.Encode()
	return c.String()
}

// pushBlob stores content in the repository.
func (t *target) pushBlob(ctx context.Context, raw []byte) error {
	begun, err := t.ask(ctx, "POST", t.path("blobs/uploads/"))
	if err != nil {
		return err
	}
	at, err := begun.location()
	if err := errors.Join(begun.is(202), err); err != nil {
		return err
	}
	done, err := t.do(ctx, request{method: "PUT", path: with(at, "digest", digestOf(raw)), header: octets, body: raw})
	if err != nil {
		return err
	}
	return done.is(201)
}

var octets = map[string]string{"Content-Type": "application/octet-stream"}

func (t *target) pushManifest(ctx context.Context, reference, mediaType string, raw []byte) (*reply, error) {
	r, err := t.do(ctx, request{method: "PUT", path: t.path("manifests/%s", reference), header: map[string]string{"Content-Type": mediaType}, body: raw})
	if err != nil {
		return nil, err
	}
	return r, r.is(201)
}
