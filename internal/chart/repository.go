package chart

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"
)

// MaxIndex bounds the index of a chart repository, in bytes. The largest public ones have 20 MiB.
const MaxIndex = 64 << 20

// repositoryIndex is what is used of an index.yaml
// (https://helm.sh/docs/topics/chart_repository/#the-index-file). Read with types of our own: Helm's
// refuse an index of which any entry has a field that they do not know.
type repositoryIndex struct {
	APIVersion string                   `json:"apiVersion" yaml:"apiVersion"`
	Entries    map[string][]*indexEntry `json:"entries" yaml:"entries"`
}

type indexEntry struct {
	Name    string   `json:"name" yaml:"name"`
	Version string   `json:"version" yaml:"version"`
	URLs    []string `json:"urls" yaml:"urls"`
	Digest  string   `json:"digest" yaml:"digest"`
}

// parseIndex reads an index.yaml, which may be JSON.
func parseIndex(data []byte) (*repositoryIndex, error) {
	index := &repositoryIndex{}
	err := protect(func() error {
		if json.Valid(data) {
			return json.Unmarshal(data, index)
		}
		return yaml.Unmarshal(data, index)
	})
	if err != nil {
		return nil, fmt.Errorf("what came is no index.yaml: %w", err)
	}
	if index.APIVersion == "" {
		return nil, errors.New("what came is no index.yaml: it has no apiVersion")
	}
	return index, nil
}

// find chooses the entry of a chart.
func (index *repositoryIndex) find(name string, want selector) (*indexEntry, error) {
	var entries []*indexEntry
	var versions []string
	for _, e := range index.Entries[name] {
		if e != nil && len(e.URLs) > 0 {
			entries = append(entries, e)
			versions = append(versions, e.Version)
		}
	}
	i := want.choose(versions)
	if i < 0 {
		return nil, want.none(name, versions)
	}
	if n := entries[i].Name; n != name {
		return nil, fmt.Errorf("the index has a chart %q under the name %q", n, name)
	}
	return entries[i], nil
}

// lazyIndex is an index that is read by the first who needs it, while others wait. Who fails to
// leaves it to the next.
type lazyIndex struct {
	mu    sync.Mutex
	index *repositoryIndex
}

func (f *Fetcher) index(ctx context.Context, repository *url.URL) (*repositoryIndex, error) {
	f.mu.Lock()
	if f.indexes == nil {
		f.indexes = map[string]*lazyIndex{}
	}
	lazy := f.indexes[repository.String()]
	if lazy == nil {
		lazy = &lazyIndex{}
		f.indexes[repository.String()] = lazy
	}
	f.mu.Unlock()

	lazy.mu.Lock()
	defer lazy.mu.Unlock()
	if lazy.index != nil {
		return lazy.index, nil
	}
	const doing = "fetching the index"
	address := repository.JoinPath("index.yaml")
	data, contentType, err := f.get(ctx, question{address: address, doing: doing, limit: MaxIndex})
	if err != nil {
		return nil, err
	}
	index, err := parseIndex(data)
	if err != nil {
		if contentType != "" {
			err = fmt.Errorf("%w (content type %q)", err, contentType)
		}
		return nil, &RepositoryError{Address: public(address), Doing: doing, Err: err}
	}
	lazy.index = index
	return index, nil
}

// fromRepository brings a chart from a chart repository.
func (f *Fetcher) fromRepository(ctx context.Context, address, name string, want selector, proof provenanceMode) (*Fetched, error) {
	repository, err := parseRepository(address)
	if err != nil {
		return nil, err
	}
	index, err := f.index(ctx, repository)
	if err != nil {
		return nil, err
	}
	doing := fmt.Sprintf("choosing chart %q", name)
	entry, err := index.find(name, want)
	if err != nil {
		return nil, &RepositoryError{Address: public(repository), Doing: doing, Err: err}
	}
	var failed []error
	for _, raw := range entry.URLs {
		got, err := f.fromEntry(ctx, repository, entry, raw, proof)
		if err == nil {
			got.Source = public(repository) + " " + name
			return got, nil
		}
		if ctx.Err() != nil {
			return nil, err
		}
		failed = append(failed, err)
	}
	return nil, errors.Join(failed...)
}

// fromEntry fetches the archive of an entry from one of its addresses and compares it with what the
// index says of it.
func (f *Fetcher) fromEntry(ctx context.Context, repository *url.URL, entry *indexEntry, raw string, proof provenanceMode) (*Fetched, error) {
	doing := fmt.Sprintf("fetching chart %q %s", entry.Name, entry.Version)
	address, err := resolveArchive(repository, raw)
	if err != nil {
		return nil, &RepositoryError{Address: public(repository), Doing: doing, Err: err}
	}
	var got *Fetched
	if address.Scheme == "oci" {
		// The tag is in the address; the version is compared below.
		got, err = f.fromOCI(ctx, raw, selector{})
	} else {
		got, err = f.fromArchiveAddress(ctx, address, doing, proof)
	}
	if err != nil {
		return nil, err
	}
	refuse := func(err error) (*Fetched, error) {
		return nil, &RepositoryError{Address: public(address), Doing: doing, Err: err}
	}
	if digest := digestOf(got.Archive); entry.Digest != "" && digest != "sha256:"+strings.ToLower(strings.TrimPrefix(entry.Digest, "sha256:")) {
		return refuse(fmt.Errorf("the archive is not the one of the index: got %s, want %s", digest, entry.Digest))
	}
	if got.Name != entry.Name || !sameVersion(got.Version, entry.Version) {
		return refuse(fmt.Errorf("the archive is not the one of the index: got chart %q %s, want %q %s", got.Name, got.Version, entry.Name, entry.Version))
	}
	return got, nil
}

// sameVersion tolerates a "v", which some tools that make an index add or drop.
func sameVersion(a, b string) bool {
	return strings.TrimPrefix(a, "v") == strings.TrimPrefix(b, "v")
}

func (f *Fetcher) fromArchiveAddress(ctx context.Context, address *url.URL, doing string, proof provenanceMode) (*Fetched, error) {
	archive, _, err := f.get(ctx, question{address: address, doing: doing, limit: MaxArchive, asItIs: true})
	if err != nil {
		return nil, err
	}
	c, err := Parse(archive)
	if err != nil {
		return nil, &RepositoryError{Address: public(address), Doing: doing, Err: err}
	}
	got := &Fetched{Chart: c, file: path.Base(address.Path)}
	if proof != noProvenance {
		got.Provenance, err = f.provenanceAt(ctx, address, c.Name, proof)
	}
	return got, err
}

// provenanceAt fetches the provenance file of an archive, which lies beside it.
func (f *Fetcher) provenanceAt(ctx context.Context, archive *url.URL, name string, proof provenanceMode) ([]byte, error) {
	address := *archive
	address.Path += ".prov"
	if address.RawPath != "" {
		address.RawPath += ".prov"
	}
	data, _, err := f.get(ctx, question{address: &address, doing: fmt.Sprintf("fetching the provenance of chart %q", name), limit: MaxProvenance})
	if proof == demandProvenance {
		if err != nil {
			return nil, &ProvenanceError{Chart: name, Err: err}
		}
		return data, nil
	}
	var refused *RepositoryError
	if errors.As(err, &refused) && refused.Status >= 400 && refused.Status < 500 {
		return nil, nil // storage that may not be listed says 403 for what is not there
	}
	if err != nil {
		return nil, err
	}
	if !isClearSigned(data) {
		return nil, nil // a page that says so, with status 200
	}
	return data, nil
}

func parseRepository(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	switch {
	case err != nil:
		// The error of the parser repeats the address, and what it may have of a password.
		err = errors.New("it is no address")
		return nil, &RepositoryError{Doing: "reading the address", Err: err}
	case u.Scheme == "oci":
		err = errors.New("charts of registries are named with oci, not repo")
	case u.Scheme != "http" && u.Scheme != "https":
		err = fmt.Errorf("got scheme %q, want https or http", u.Scheme)
	case u.Host == "":
		err = errors.New("it has no host")
	default:
		return u, nil
	}
	return nil, &RepositoryError{Address: public(u), Doing: "reading the address", Err: err}
}

// resolveArchive does what Helm does: relative addresses are below the repository, and inherit what its
// address asks with.
func resolveArchive(repository *url.URL, raw string) (*url.URL, error) {
	ref, err := url.Parse(raw)
	if err != nil {
		return nil, errors.New("the index has an address that is none")
	}
	address := ref
	if !ref.IsAbs() {
		base := repository.JoinPath("/")
		address = base.ResolveReference(ref)
		if address.Host == base.Host && address.RawQuery == "" {
			address.RawQuery = base.RawQuery
		}
	}
	switch address.Scheme {
	case "http", "https", "oci":
	default:
		return nil, fmt.Errorf("the index has an address with scheme %q, want https, http or oci", address.Scheme)
	}
	if address.Host == "" {
		return nil, errors.New("the index has an address without a host")
	}
	return address, nil
}

// question is what get asks for.
type question struct {
	address *url.URL
	doing   string // for errors
	limit   int64  // in bytes
	// asItIs forbids compression on the way. Some servers call a .tgz a compressed .tar, and the client
	// would keep the .tar.
	asItIs bool
}

// get reads an answer up to its limit; a longer one is an error. All errors are *RepositoryError.
func (f *Fetcher) get(ctx context.Context, q question) (data []byte, contentType string, err error) {
	fail := func(status int, err error) ([]byte, string, error) {
		// The client's own error repeats the address, with the user and what is asked.
		var of *url.Error
		if errors.As(err, &of) {
			err = of.Err
		}
		return nil, "", &RepositoryError{Address: public(q.address), Doing: q.doing, Status: status, Err: err}
	}
	if f.HTTP == nil {
		return fail(0, errors.New("there is no client for HTTP"))
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, q.address.String(), http.NoBody)
	if err != nil {
		return fail(0, err)
	}
	if q.asItIs {
		req.Header.Set("Accept-Encoding", "identity")
	}
	// The client tries again until an answer begins; what breaks off after that is asked for anew.
	for try := 1; ; try++ {
		resp, err := f.HTTP.Do(req)
		if err != nil {
			return fail(0, err)
		}
		data, err = readAnswer(resp, q.limit)
		var status *statusError
		switch {
		case err == nil:
			return data, resp.Header.Get("Content-Type"), nil
		case errors.As(err, &status):
			return fail(status.code, err)
		case try == bodyTries || errors.Is(err, errTooLarge) || ctx.Err() != nil:
			return fail(0, err)
		}
	}
}

// bodyTries is how often an answer is asked for that breaks off.
const bodyTries = 3

var errTooLarge = errors.New("it is too large")

// statusError is an answer other than 200.
type statusError struct{ code int }

func (e *statusError) Error() string {
	return fmt.Sprintf("got status %d %s", e.code, http.StatusText(e.code))
}

// readAnswer reads and closes the body of an answer, of at most limit bytes.
func readAnswer(resp *http.Response, limit int64) (data []byte, err error) {
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, &statusError{resp.StatusCode}
	}
	tooLarge := fmt.Errorf("%w: it has more than %d bytes", errTooLarge, limit)
	if resp.ContentLength > limit {
		return nil, tooLarge
	}
	data, err = io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, fmt.Errorf("after %d bytes: %w", len(data), err)
	}
	if int64(len(data)) > limit {
		return nil, tooLarge
	}
	return data, nil
}

// public is an address without what may be secret of it.
func public(u *url.URL) string {
	c := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}
	return c.String()
}
