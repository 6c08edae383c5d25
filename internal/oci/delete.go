package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"

	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/sealift/sealift/manifest"
)

// ErrNoDelete is wrapped where a registry does not delete what it was asked to, and does not for
// anybody: most refuse tags, which they delete with their manifest only, and some delete nothing.
var ErrNoDelete = errors.New("the registry does not delete that")

// noDelete are the codes with which registries say so: besides UNSUPPORTED those that take a tag for
// a digest that is none.
var noDelete = []transport.ErrorCode{
	transport.UnsupportedErrorCode, transport.DigestInvalidErrorCode, transport.ManifestInvalidErrorCode, transport.TagInvalidErrorCode,
}

// DeleteManifest deletes a tag, or a manifest by its digest (OCI distribution spec 1.1, "content
// management"). What is not there is no error. Nothing is deleted but that one: what a registry makes
// of a tag, or of a digest that has tags, is up to it, and to be looked at afterwards. Errors are
// *Error; ErrNoDelete is wrapped where the registry does not do that at all.
func (r *Repository) DeleteManifest(ctx context.Context, identifier string) error {
	err := r.host.small(ctx, func(ctx context.Context) error {
		resp, err := r.do(ctx, http.MethodDelete, r.url("manifests/%s", identifier), nil)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		err = check(resp, http.StatusAccepted, http.StatusOK, http.StatusNoContent, http.StatusNotFound)
		switch resp.StatusCode {
		case http.StatusMethodNotAllowed, http.StatusNotImplemented:
			return permanentError{errors.Join(ErrNoDelete, err)}
		case http.StatusBadRequest:
			var t *transport.Error
			if errors.As(err, &t) && (len(t.Errors) == 0 || slices.ContainsFunc(t.Errors, func(d transport.Diagnostic) bool { return slices.Contains(noDelete, d.Code) })) {
				return errors.Join(ErrNoDelete, err)
			}
		}
		return err
	})
	if err != nil {
		return r.fail("deleting", "manifest "+identifier, err)
	}
	return nil
}

// Bounds on a catalog.
const (
	maxRepositories = 100_000
	maxCatalogPages = 2000
)

var validPath = regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$`)

// ErrNoCatalog is wrapped where a registry does not list its repositories: it cannot, or not for this
// user.
var ErrNoCatalog = errors.New("the registry does not list its repositories")

// Catalog lists the repositories of a registry, sorted, each once, by GET /v2/_catalog (Docker
// Registry HTTP API V2, "listing repositories"; the OCI distribution spec reserves it). What no
// reference can hold is left out. Mirrors are not asked. Errors are *Error; ErrNoCatalog is wrapped
// where the registry does not list them.
func (c *Client) Catalog(ctx context.Context, registry string) ([]string, error) {
	fail := func(err error) error {
		return &Error{Side: c.o.Side, Registry: registry, Doing: "listing the repositories", Err: err}
	}
	var opts []name.Option
	if c.plain[registry] {
		opts = append(opts, name.Insecure)
	}
	reg, err := name.NewRegistry(registry, opts...)
	if err != nil {
		return nil, fail(err)
	}
	auth := authn.Anonymous
	if c.o.Keychain != nil {
		if auth, err = authn.Resolve(ctx, c.o.Keychain, reg); err != nil {
			return nil, fail(err)
		}
	}
	host := c.hosts.of(reg.RegistryStr())
	var rt http.RoundTripper
	err = host.small(ctx, func(ctx context.Context) (err error) {
		rt, err = transport.NewWithContext(ctx, reg, auth, c.base, []string{reg.Scope(transport.CatalogScope)})
		return ofToken(err)
	})
	if err != nil {
		return nil, fail(unlisted(err))
	}
	client := &http.Client{Transport: rt}
	var all []string
	next := fmt.Sprintf("%s://%s/v2/_catalog?n=1000", reg.Scheme(), reg.RegistryStr())
	for page := 0; next != ""; page++ {
		if page == maxCatalogPages || len(all) > maxRepositories {
			return nil, fail(fmt.Errorf("the list does not end after %d pages and %d repositories", page, len(all)))
		}
		var some []string
		target := next
		err := host.small(ctx, func(ctx context.Context) (err error) {
			some, next, err = catalogPage(ctx, client, target)
			return err
		})
		if err != nil {
			return nil, fail(unlisted(err))
		}
		all = append(all, some...)
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// unlisted marks what registries answer that keep their catalog to themselves.
func unlisted(err error) error {
	switch statusOf(err) {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented, http.StatusBadRequest:
		return errors.Join(ErrNoCatalog, err)
	}
	return err
}

func catalogPage(ctx context.Context, client *http.Client, target string) (list []string, next string, err error) {
	resp, err := doWith(ctx, client, http.MethodGet, target, http.Header{"Accept": {"application/json"}})
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	if err := check(resp, http.StatusOK); err != nil {
		return nil, "", err
	}
	raw, err := readLimited(resp.Body, maxTagsPage)
	if err != nil {
		return nil, "", err
	}
	if list, err = parseCatalog(raw); err != nil {
		return nil, "", garbledError{err}
	}
	next, err = nextPage(resp)
	return list, next, err
}

func parseCatalog(raw []byte) ([]string, error) {
	var doc struct {
		Repositories []string `json:"repositories"`
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		return nil, fmt.Errorf("parsing list of repositories: %w", err)
	}
	return slices.DeleteFunc(doc.Repositories, func(p string) bool {
		return len(p) > reference.RepositoryNameTotalLengthMax || !validPath.MatchString(p)
	}), nil
}

// maxDigests bounds how many digests a manifest names.
const maxDigests = 100_000

// Named is all that a manifest of any kind names, so that it cannot go before it: of indexes the
// manifests, of others config and layers, with the sizes that it gives them.
type Named struct {
	Manifests []manifest.Descriptor
	Blobs     []manifest.Descriptor
	// Config is the digest of the config, which is among Blobs; it may be empty.
	Config string
	// Subject is the digest of what it is about, empty for none.
	Subject string
}

// ParseNamed reads what a manifest names: image manifests and indexes of OCI (image spec 1.1), of
// Docker (schema 2), and OCI artifacts of the time before 1.1.
func ParseNamed(raw []byte) (*Named, error) {
	type descriptor struct {
		MediaType string `json:"mediaType"`
		Digest    string `json:"digest"`
		Size      int64  `json:"size"`
	}
	var doc struct {
		Config    *descriptor  `json:"config"`
		Subject   *descriptor  `json:"subject"`
		Layers    []descriptor `json:"layers"`
		Manifests []descriptor `json:"manifests"`
		Blobs     []descriptor `json:"blobs"`
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		return nil, fmt.Errorf("parsing manifest: %w", err)
	}
	if n := len(doc.Layers) + len(doc.Manifests) + len(doc.Blobs); n > maxDigests {
		return nil, fmt.Errorf("parsing manifest: it names %d digests, at most %d are allowed", n, maxDigests)
	}
	n := &Named{}
	take := func(to *[]manifest.Descriptor, list ...descriptor) error {
		for _, d := range list {
			if err := manifest.CheckDigest(d.Digest); err != nil {
				return fmt.Errorf("parsing manifest: %w", err)
			}
			if d.Size < 0 || d.Size > manifest.MaxEntryBytes {
				return fmt.Errorf("parsing manifest: %s: size %d", d.Digest, d.Size)
			}
			*to = append(*to, manifest.Descriptor{Digest: d.Digest, MediaType: d.MediaType, Size: d.Size})
		}
		return nil
	}
	if doc.Config != nil {
		n.Config = doc.Config.Digest
		doc.Layers = append(doc.Layers, *doc.Config)
	}
	err := errors.Join(take(&n.Manifests, doc.Manifests...), take(&n.Blobs, doc.Layers...), take(&n.Blobs, doc.Blobs...))
	if err != nil {
		return nil, err
	}
	if doc.Subject != nil {
		if err := manifest.CheckDigest(doc.Subject.Digest); err != nil {
			return nil, fmt.Errorf("parsing manifest: subject: %w", err)
		}
		n.Subject = doc.Subject.Digest
	}
	return n, nil
}

// taggedAbout matches the tags that stand for what is about a digest: the referrers tag, and cosign's
// with its endings.
var taggedAbout = regexp.MustCompile(`^sha256-([0-9a-f]{64})(?:\.[A-Za-z0-9._-]+)?$`)

// TagSubject is the digest that a tag is about, by the referrers tag schema (OCI distribution spec 1.1)
// or by cosign's tags (sha256-DIGEST.sig, .att, .sbom); empty for a tag of its own.
func TagSubject(tag string) string {
	if m := taggedAbout.FindStringSubmatch(tag); m != nil {
		return "sha256:" + m[1]
	}
	return ""
}
