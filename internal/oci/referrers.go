package oci

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/sealift/sealift/manifest"
)

const (
	// maxReferrerPages bounds how many pages a list of referrers has.
	maxReferrerPages = 64
	// maxListed bounds how many referrers are read of one list, whatever becomes of them.
	maxListed = 4 * manifest.MaxReferrers
)

// ErrNotListed is wrapped where a registry has taken a referrer and does not list it.
var ErrNotListed = errors.New("the registry took it and does not list it")

// Listed is a referrer as a registry lists it: nothing of it is proven but that the list says so.
type Listed struct {
	manifest.Descriptor
	ArtifactType string
	Annotations  map[string]string
}

// listedJSON is a Listed as an index has it (OCI image spec 1.1, "image index").
type listedJSON struct {
	MediaType    string            `json:"mediaType"`
	Digest       string            `json:"digest"`
	Size         int64             `json:"size"`
	Annotations  map[string]string `json:"annotations,omitempty"`
	ArtifactType string            `json:"artifactType,omitempty"`
}

// ReferrersTag is the tag under which registries without a Referrers API have the list of what
// refers to a digest (OCI distribution spec 1.1, "referrers tag schema").
func ReferrersTag(digest string) string { return strings.Replace(digest, ":", "-", 1) }

// Referrers asks what refers to a digest: by the Referrers API (OCI distribution spec 1.1) or,
// where the registry has none, by the tag that stands in for it. The list is in the order of the
// digests, each once. Errors are *Error; ErrUnsupported is wrapped where that tag stands for
// something else.
func (r *Repository) Referrers(ctx context.Context, digest string) (list []Listed, viaAPI bool, err error) {
	if !r.noReferrersAPI.Load() {
		if list, viaAPI, err = r.referrersByAPI(ctx, digest); err != nil || viaAPI {
			return sorted(list), viaAPI, err
		}
	}
	c, err := r.referrersByTag(ctx, digest)
	if err != nil || c == nil {
		return nil, false, err
	}
	if list, err = parseReferrers(c.Raw); err != nil {
		return nil, false, r.fail("reading", "the referrers of "+digest, err)
	}
	return sorted(list), false, nil
}

func sorted(list []Listed) []Listed {
	slices.SortStableFunc(list, func(a, b Listed) int { return cmp.Compare(a.Digest, b.Digest) })
	return slices.CompactFunc(list, func(a, b Listed) bool { return a.Digest == b.Digest })
}

// referrersByTag reads the index under the referrers tag, nil where there is none.
func (r *Repository) referrersByTag(ctx context.Context, digest string) (*Content, error) {
	at, err := r.ManifestDigest(ctx, ReferrersTag(digest))
	if err != nil || at == "" {
		return nil, err
	}
	c, err := r.Manifest(ctx, ReferrersTag(digest))
	if IsNotFound(err) { // it was taken away in this moment
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if !IsIndex(c.MediaType) {
		return nil, r.fail("reading", "the referrers of "+digest, fmt.Errorf("their tag stands for a %q: %w", c.MediaType, ErrUnsupported))
	}
	return c, nil
}

// errNoAPI says that a registry answered as one does that has no Referrers API.
var errNoAPI = errors.New("no referrers API")

// referrersByAPI reads all pages of the list; ok says that the registry has the API.
func (r *Repository) referrersByAPI(ctx context.Context, digest string) (all []Listed, ok bool, err error) {
	next := r.url("referrers/%s", digest)
	for page := 0; next != ""; page++ {
		if page == maxReferrerPages || len(all) > maxListed {
			return nil, true, r.fail("reading", "the referrers of "+digest, fmt.Errorf("the list does not end after %d pages and %d referrers", page, len(all)))
		}
		var list []Listed
		target := next
		err := r.host.small(ctx, func(ctx context.Context) (err error) {
			list, next, err = r.referrersPage(ctx, target, page == 0)
			return err
		})
		if errors.Is(err, errNoAPI) {
			return nil, false, nil
		}
		if err != nil {
			return nil, true, r.fail("reading", "the referrers of "+digest, err)
		}
		all = append(all, list...)
	}
	return all, true, nil
}

// noAPI are the answers of registries that know nothing of referrers.
var noAPI = []int{http.StatusNotFound, http.StatusBadRequest, http.StatusMethodNotAllowed, http.StatusNotImplemented}

func (r *Repository) referrersPage(ctx context.Context, target string, first bool) (list []Listed, next string, err error) {
	resp, err := r.do(ctx, http.MethodGet, target, http.Header{"Accept": {string(types.OCIImageIndex)}})
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	err = check(resp, http.StatusOK)
	if first && slices.Contains(noAPI, resp.StatusCode) {
		// A repository or an image that is not there yet says nothing about the registry.
		if !contentUnknown(err) {
			r.noReferrersAPI.Store(true)
		}
		return nil, "", errNoAPI
	}
	if err != nil {
		return nil, "", err
	}
	raw, err := readLimited(resp.Body, manifest.MaxOCIManifestBytes)
	if err != nil {
		return nil, "", err
	}
	isIndex, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	if first && !looksLikeIndex(raw) && isIndex != string(types.OCIImageIndex) {
		r.noReferrersAPI.Store(true)
		return nil, "", errNoAPI
	}
	if list, err = parseReferrers(raw); err != nil {
		return nil, "", garbledError{err}
	}
	next, err = nextPage(resp)
	return list, next, err
}

func contentUnknown(err error) bool {
	var t *transport.Error
	return errors.As(err, &t) && slices.ContainsFunc(t.Errors, func(d transport.Diagnostic) bool {
		return d.Code == transport.NameUnknownErrorCode || d.Code == transport.ManifestUnknownErrorCode
	})
}

// looksLikeIndex tells a list of referrers from the pages that proxies and web sites answer with.
func looksLikeIndex(raw []byte) bool {
	var doc struct {
		SchemaVersion int               `json:"schemaVersion"`
		Manifests     []json.RawMessage `json:"manifests"`
	}
	return json.Unmarshal(raw, &doc) == nil && (doc.SchemaVersion == 2 || doc.Manifests != nil)
}

// nextPage follows the header Link (RFC 8288) within the registry, empty where there is none.
func nextPage(resp *http.Response) (string, error) {
	for _, link := range resp.Header.Values("Link") {
		for _, part := range strings.Split(link, ",") {
			target, params, ok := strings.Cut(strings.TrimSpace(part), ">")
			if !ok || !strings.HasPrefix(target, "<") || !isNext(params) {
				continue
			}
			u, err := resp.Request.URL.Parse(target[1:])
			if err != nil {
				return "", permanentError{fmt.Errorf("next page: %w", err)}
			}
			if u.Scheme != resp.Request.URL.Scheme || u.Host != resp.Request.URL.Host {
				return "", permanentError{fmt.Errorf("the next page is at another place, %s", u.Host)}
			}
			return u.String(), nil
		}
	}
	return "", nil
}

func isNext(params string) bool {
	for _, p := range strings.Split(params, ";") {
		k, v, _ := strings.Cut(strings.TrimSpace(p), "=")
		if strings.EqualFold(k, "rel") && strings.Trim(v, `"`) == "next" {
			return true
		}
	}
	return false
}

// parseReferrers reads a list of referrers, of whatever kinds.
func parseReferrers(raw []byte) ([]Listed, error) { return parseList(raw, "list of referrers") }

// parseList reads an index of manifests of whatever kinds; what it is, is for errors.
func parseList(raw []byte, what string) ([]Listed, error) {
	var doc struct {
		Manifests []listedJSON `json:"manifests"`
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		return nil, fmt.Errorf("parsing %s: %w", what, err)
	}
	if len(doc.Manifests) > maxListed {
		return nil, fmt.Errorf("parsing %s: it names %d manifests, at most %d are allowed", what, len(doc.Manifests), maxListed)
	}
	list := make([]Listed, 0, len(doc.Manifests))
	for i, m := range doc.Manifests {
		if err := manifest.CheckDigest(m.Digest); err != nil {
			return nil, fmt.Errorf("parsing %s: item %d: %w", what, i, err)
		}
		if m.Size < 0 || m.Size > manifest.MaxOCIManifestBytes {
			return nil, fmt.Errorf("parsing %s: %s: size %d", what, m.Digest, m.Size)
		}
		list = append(list, Listed{manifest.Descriptor{Digest: m.Digest, MediaType: m.MediaType, Size: m.Size}, m.ArtifactType, m.Annotations})
	}
	return list, nil
}

// Artifact is an image manifest that may be about something else.
type Artifact struct {
	Image
	// Subject is the digest of what it is about, empty for none.
	Subject string
	// Type is its artifactType or else the media type of its config.
	Type        string
	Annotations map[string]string
}

// ArtifactType is what an artifact says that it is (OCI image spec 1.1, "artifacts"): its
// artifactType or else the media type of its config; empty where raw says neither.
func ArtifactType(raw []byte) string {
	var doc struct {
		ArtifactType string `json:"artifactType"`
		Config       struct {
			MediaType string `json:"mediaType"`
		} `json:"config"`
	}
	if json.Unmarshal(raw, &doc) != nil {
		return ""
	}
	return cmp.Or(doc.ArtifactType, doc.Config.MediaType)
}

// ParseArtifact reads an image manifest with what makes a referrer of it.
func ParseArtifact(raw []byte) (*Artifact, error) {
	img, err := ParseImage(raw)
	if err != nil {
		return nil, err
	}
	var doc struct {
		ArtifactType string            `json:"artifactType"`
		Annotations  map[string]string `json:"annotations"`
		Subject      *struct {
			Digest string `json:"digest"`
		} `json:"subject"`
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		return nil, fmt.Errorf("parsing image manifest: %w", err)
	}
	a := &Artifact{Image: *img, Type: cmp.Or(doc.ArtifactType, img.Config.MediaType), Annotations: doc.Annotations}
	if doc.Subject != nil {
		a.Subject = doc.Subject.Digest
		if err := manifest.CheckDigest(a.Subject); err != nil {
			return nil, fmt.Errorf("parsing image manifest: subject: %w", err)
		}
	}
	return a, nil
}

// PutReferrer stores an image manifest that has a subject and sees to it that it is listed: by the
// registry or, where that has no Referrers API, in the index under the referrers tag, of which
// nothing is ever dropped. Errors are *Error; ErrNotListed is wrapped where others kept writing
// that tag, or the registry lists nothing that is new.
func (r *Repository) PutReferrer(ctx context.Context, c *Content) error {
	a, err := ParseArtifact(c.Raw)
	if err == nil && a.Subject == "" {
		err = errors.New("it has no subject")
	}
	if err != nil {
		return r.fail("storing", "referrer "+c.Digest, err)
	}
	subject, err := r.putManifest(ctx, c.Digest, c)
	if err != nil {
		return err
	}
	// A registry that has the API says so with the header OCI-Subject.
	if subject == a.Subject {
		return nil
	}
	b := r.host.backoff()
	defer b.done()
	for {
		listed, err := r.list(ctx, a, c)
		if err != nil || listed {
			return err
		}
		// Others write the same tag, or the registry takes its time.
		if err := b.wait(ctx, ErrNotListed); err != nil {
			return r.fail("listing", "referrer "+c.Digest, err)
		}
	}
}

// list puts c into the list of its subject's referrers, unless it is there, and looks whether that
// held.
func (r *Repository) list(ctx context.Context, a *Artifact, c *Content) (bool, error) {
	isIt := func(l Listed) bool { return l.Digest == c.Digest }
	// Not every registry with the API sends the header.
	list, viaAPI, err := r.referrersByAPI(ctx, a.Subject)
	if err != nil || viaAPI {
		return slices.ContainsFunc(list, isIt), err
	}
	theirs, err := r.referrersByTag(ctx, a.Subject)
	if err != nil {
		return false, err
	}
	merged, err := addReferrer(theirs, a, c)
	if err != nil {
		return false, r.fail("listing", "referrer "+c.Digest, err)
	}
	if merged == nil {
		return true, nil
	}
	if err := r.PutManifest(ctx, ReferrersTag(a.Subject), merged); err != nil {
		return false, err
	}
	if theirs, err = r.referrersByTag(ctx, a.Subject); err != nil || theirs == nil {
		return false, err
	}
	if list, err = parseReferrers(theirs.Raw); err != nil {
		return false, r.fail("reading", "the referrers of "+a.Subject, err)
	}
	return slices.ContainsFunc(list, isIt), nil
}

// addReferrer returns the index theirs, which may be nil, with c at its end; nil where it is in
// there. What it does not know it keeps.
func addReferrer(theirs *Content, a *Artifact, c *Content) (*Content, error) {
	doc := map[string]json.RawMessage{"schemaVersion": json.RawMessage("2"), "mediaType": json.RawMessage(`"` + string(types.OCIImageIndex) + `"`)}
	var all []json.RawMessage
	mediaType := string(types.OCIImageIndex)
	if theirs != nil {
		list, err := parseReferrers(theirs.Raw)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(list, func(l Listed) bool { return l.Digest == c.Digest }) {
			return nil, nil
		}
		doc = nil
		if err := json.Unmarshal(theirs.Raw, &doc); err != nil {
			return nil, fmt.Errorf("parsing list of referrers: %w", err)
		}
		if doc["manifests"] != nil {
			if err := json.Unmarshal(doc["manifests"], &all); err != nil {
				return nil, fmt.Errorf("parsing list of referrers: %w", err)
			}
		}
		mediaType = theirs.MediaType
	}
	mine, err := json.Marshal(listedJSON{c.MediaType, c.Digest, c.Size, a.Annotations, a.Type})
	if err != nil {
		return nil, fmt.Errorf("encoding referrer: %w", err)
	}
	return encode(doc, "manifests", append(all, mine), mediaType)
}

// encode sets a list in a document and returns the whole as content.
func encode(doc map[string]json.RawMessage, member string, list []json.RawMessage, mediaType string) (*Content, error) {
	raw, err := json.Marshal(list)
	if err != nil {
		return nil, fmt.Errorf("encoding %s: %w", member, err)
	}
	doc[member] = raw
	if raw, err = json.Marshal(doc); err != nil {
		return nil, fmt.Errorf("encoding %s: %w", member, err)
	}
	if len(raw) > manifest.MaxOCIManifestBytes {
		return nil, fmt.Errorf("with it, the manifest %w", &TooLargeError{manifest.MaxOCIManifestBytes})
	}
	return &Content{Descriptor: manifest.Descriptor{Digest: manifest.Digest(raw), MediaType: mediaType, Size: int64(len(raw))}, Raw: raw}, nil
}

// Signatures is an image manifest under one of cosign's tags, with its config: a signature,
// attestation or SBOM in each layer.
type Signatures struct {
	*Content
	// Config is the bytes of its config. It may be nil where only layers are to be compared.
	Config []byte
}

// MissingSignatures counts the layers of ours that theirs has not: layers are the same if digest
// and annotations are, for all signatures over one image are over the same bytes. The other way
// round it is covered: whether theirs has nothing that ours has not.
func MissingSignatures(ours, theirs *Content) (missing int, covered bool, err error) {
	_, us, err := layers(ours.Raw)
	if err != nil {
		return 0, false, err
	}
	_, them, err := layers(theirs.Raw)
	if err != nil {
		return 0, false, err
	}
	return len(without(us, them)), len(without(them, us)) == 0, nil
}

// MergeSignatures returns what holds all that ours and theirs hold: one of the two, to the byte,
// where that does; else theirs with what is missing of ours at the end, and the new config, which
// has to be stored as well.
func MergeSignatures(ours, theirs *Signatures) (*Signatures, error) {
	missing, covered, err := MissingSignatures(ours.Content, theirs.Content)
	switch {
	case err != nil:
		return nil, err
	case missing == 0:
		return theirs, nil
	case covered:
		return ours, nil
	}
	_, us, err := layers(ours.Raw)
	if err != nil {
		return nil, err
	}
	doc, them, err := layers(theirs.Raw)
	if err != nil {
		return nil, err
	}
	var all []json.RawMessage
	for _, l := range them {
		all = append(all, l.raw)
	}
	added := without(us, them)
	for _, i := range added {
		all = append(all, us[i].raw)
	}
	config, err := mergeConfigs(ours.Config, theirs.Config, len(us), len(them), added)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(config, theirs.Config) {
		var d map[string]json.RawMessage
		if err := json.Unmarshal(doc["config"], &d); err != nil {
			return nil, fmt.Errorf("parsing image manifest: config: %w", err)
		}
		d["digest"], d["size"] = json.RawMessage(`"`+manifest.Digest(config)+`"`), json.RawMessage(fmt.Sprint(len(config)))
		delete(d, "data") // the old config, embedded
		if doc["config"], err = json.Marshal(d); err != nil {
			return nil, fmt.Errorf("encoding image manifest: %w", err)
		}
	}
	c, err := encode(doc, "layers", all, theirs.MediaType)
	if err != nil {
		return nil, err
	}
	return &Signatures{c, config}, nil
}

// signatureLayer is a layer with the members of its descriptor as they are.
type signatureLayer struct {
	raw         json.RawMessage
	Digest      string            `json:"digest"`
	Annotations map[string]string `json:"annotations"`
}

func layers(raw []byte) (map[string]json.RawMessage, []signatureLayer, error) {
	if _, err := ParseImage(raw); err != nil {
		return nil, nil, err
	}
	var doc map[string]json.RawMessage
	if err := json.Unmarshal(raw, &doc); err != nil {
		return nil, nil, fmt.Errorf("parsing image manifest: %w", err)
	}
	var items []json.RawMessage
	if doc["layers"] != nil {
		if err := json.Unmarshal(doc["layers"], &items); err != nil {
			return nil, nil, fmt.Errorf("parsing image manifest: layers: %w", err)
		}
	}
	list := make([]signatureLayer, len(items))
	for i, item := range items {
		if err := json.Unmarshal(item, &list[i]); err != nil {
			return nil, nil, fmt.Errorf("parsing image manifest: layers: %w", err)
		}
		list[i].raw = item
	}
	return doc, list, nil
}

// without are the places of those layers in a that b has not.
func without(a, b []signatureLayer) []int {
	var places []int
	for i, l := range a {
		same := func(o signatureLayer) bool { return o.Digest == l.Digest && maps.Equal(o.Annotations, l.Annotations) }
		if !slices.ContainsFunc(b, same) {
			places = append(places, i)
		}
	}
	return places
}

// mergeConfigs adds to the config theirs the diff IDs and the history of some layers of ours. What
// has no diff ID for each layer is no config of an image, and stays as it is.
func mergeConfigs(ours, theirs []byte, us, them int, added []int) ([]byte, error) {
	ourDoc, ourIDs, ourHistory := configLists(ours)
	doc, ids, history := configLists(theirs)
	if ourDoc == nil || doc == nil || len(ourIDs) != us || len(ids) != them {
		return theirs, nil
	}
	for _, i := range added {
		ids = append(ids, ourIDs[i])
		if len(ourHistory) == us && len(history) > 0 {
			history = append(history, ourHistory[i])
		}
	}
	var rootfs map[string]json.RawMessage
	if err := json.Unmarshal(doc["rootfs"], &rootfs); err != nil {
		return nil, fmt.Errorf("parsing image config: %w", err)
	}
	for _, set := range []struct {
		in   map[string]json.RawMessage
		key  string
		what any
	}{{rootfs, "diff_ids", ids}, {doc, "rootfs", rootfs}, {doc, "history", history}} {
		if set.key == "history" && len(history) == 0 {
			continue
		}
		raw, err := json.Marshal(set.what)
		if err != nil {
			return nil, fmt.Errorf("encoding image config: %w", err)
		}
		set.in[set.key] = raw
	}
	raw, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("encoding image config: %w", err)
	}
	return raw, nil
}

// configLists takes an image config apart; it returns nil for anything else.
func configLists(raw []byte) (doc map[string]json.RawMessage, ids, history []json.RawMessage) {
	var lists struct {
		RootFS struct {
			DiffIDs []json.RawMessage `json:"diff_ids"`
		} `json:"rootfs"`
		History []json.RawMessage `json:"history"`
	}
	if json.Unmarshal(raw, &doc) != nil || json.Unmarshal(raw, &lists) != nil {
		return nil, nil, nil
	}
	return doc, lists.RootFS.DiffIDs, lists.History
}
