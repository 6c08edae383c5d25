package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// Categories of the specification, and one for what cannot be written to.
const (
	categoryPull       = "Pull"
	categoryPush       = "Push"
	categoryDiscovery  = "Content discovery"
	categoryManagement = "Content management"
	categoryReadOnly   = "Read-only"
)

// check is one requirement.
type check struct {
	category, text string
	run            func(context.Context, *target) error
}

// nothing is the digest of what is nowhere.
var nothing = digestOf([]byte("this is in no registry"))

var checks = slices.Concat(pullChecks, discoveryChecks, pushChecks, managementChecks, readOnlyChecks)

// get makes a request and expects a status.
func get(ctx context.Context, t *target, method, path string, status int, headers ...string) (*reply, error) {
	r, err := t.ask(ctx, method, path, headers...)
	if err != nil {
		return nil, err
	}
	return r, r.is(status)
}

var pullChecks = []check{
	{categoryPull, "GET /v2/ is 200", func(ctx context.Context, t *target) error {
		_, err := get(ctx, t, "GET", "/v2/", 200)
		return err
	}},
	{categoryPull, "HEAD of a blob that is nowhere is 404", func(ctx context.Context, t *target) error {
		_, err := get(ctx, t, "HEAD", t.path("blobs/%s", nothing), 404)
		return err
	}},
	{categoryPull, "HEAD of a blob is 200, with its digest and size", func(ctx context.Context, t *target) error {
		r, err := get(ctx, t, "HEAD", t.path("blobs/%s", digestOf(t.layer)), 200)
		if err != nil {
			return err
		}
		return errors.Join(r.has("Docker-Content-Digest", digestOf(t.layer)), r.has("Content-Length", fmt.Sprint(len(t.layer))), r.holds(nil))
	}},
	{categoryPull, "GET of a blob that is nowhere is 404, with an error of the specification", func(ctx context.Context, t *target) error {
		r, err := get(ctx, t, "GET", t.path("blobs/%s", nothing), 404)
		if err != nil {
			return err
		}
		return r.refuses("BLOB_UNKNOWN")
	}},
	{categoryPull, "GET of a blob is 200, with its bytes and digest", func(ctx context.Context, t *target) error {
		for _, raw := range [][]byte{t.layer, t.config} {
			r, err := get(ctx, t, "GET", t.path("blobs/%s", digestOf(raw)), 200)
			if err != nil {
				return err
			}
			if err := errors.Join(r.has("Docker-Content-Digest", digestOf(raw)), r.holds(raw)); err != nil {
				return err
			}
		}
		return nil
	}},
	{categoryPull, "GET of a part of a blob (RFC 9110) is 206, with the part", func(ctx context.Context, t *target) error {
		n := len(t.layer)
		for header, want := range map[string][]byte{
			"bytes=0-0": t.layer[:1], "bytes=10-": t.layer[10:], "bytes=-5": t.layer[n-5:], fmt.Sprintf("bytes=%d-%d", n/2, n/2+99): t.layer[n/2 : n/2+100],
		} {
			r, err := get(ctx, t, "GET", t.path("blobs/%s", digestOf(t.layer)), 206, "Range", header)
			if err != nil {
				return err
			}
			if err := r.holds(want); err != nil {
				return err
			}
		}
		return nil
	}},
	{categoryPull, "GET of a part that a blob does not have is 416", func(ctx context.Context, t *target) error {
		r, err := get(ctx, t, "GET", t.path("blobs/%s", digestOf(t.layer)), 416, "Range", fmt.Sprintf("bytes=%d-", len(t.layer)))
		if err != nil {
			return err
		}
		return r.has("Content-Range", fmt.Sprintf("bytes */%d", len(t.layer)))
	}},
	{categoryPull, "HEAD and GET of a manifest that is nowhere are 404, with an error of the specification", func(ctx context.Context, t *target) error {
		for _, reference := range []string{nothing, "no-such-tag", ".INVALID_MANIFEST_NAME"} {
			if _, err := get(ctx, t, "HEAD", t.path("manifests/%s", reference), 404); err != nil {
				return err
			}
			r, err := get(ctx, t, "GET", t.path("manifests/%s", reference), 404)
			if err != nil {
				return err
			}
			// What is no tag is also no path of the specification, so that the answer is free.
			if err := r.refuses("MANIFEST_UNKNOWN"); err != nil && !strings.HasPrefix(reference, ".") {
				return err
			}
		}
		return nil
	}},
	{categoryPull, "HEAD of a manifest by digest and by tag is 200, with its digest, size and media type", func(ctx context.Context, t *target) error {
		return manifests(ctx, t, "HEAD", nil)
	}},
	{categoryPull, "GET of a manifest by digest and by tag is 200, with its bytes, digest and media type", func(ctx context.Context, t *target) error {
		return manifests(ctx, t, "GET", t.manifest)
	}},
	{categoryPull, "content of a repository that is not there is 404", func(ctx context.Context, t *target) error {
		for _, path := range []string{"manifests/" + t.tags[0], "manifests/" + digestOf(t.manifest), "blobs/" + digestOf(t.layer)} {
			if _, err := get(ctx, t, "GET", "/v2/no/such/repository/"+path, 404); err != nil {
				return err
			}
		}
		return nil
	}},
	{categoryPull, "a malformed reference is 400 or 404, with an error of the specification where it is 400", func(ctx context.Context, t *target) error {
		r, err := t.do(ctx, request{method: "PUT", path: t.path("manifests/sha256:totallywrong"), header: map[string]string{"Content-Type": typeImage}, body: []byte("{}")})
		if err != nil {
			return err
		}
		if err := r.is(400, 404); err != nil || r.status == 404 {
			return err
		}
		return r.refuses()
	}},
}

func manifests(ctx context.Context, t *target, method string, body []byte) error {
	for _, reference := range append([]string{digestOf(t.manifest)}, t.tags...) {
		r, err := get(ctx, t, method, t.path("manifests/%s", reference), 200, "Accept", typeImage)
		if err != nil {
			return err
		}
		err = errors.Join(r.has("Docker-Content-Digest", digestOf(t.manifest)), r.has("Content-Length", fmt.Sprint(len(t.manifest))), r.has("Content-Type", typeImage), r.holds(body))
		if err != nil {
			return err
		}
	}
	return nil
}

// begin begins an upload.
func begin(ctx context.Context, t *target) (*url.URL, error) {
	r, err := get(ctx, t, "POST", t.path("blobs/uploads/"), 202)
	if err != nil {
		return nil, err
	}
	return r.location()
}

// stored checks that an answer says that a blob is stored, and that it is.
func stored(ctx context.Context, t *target, r *reply, raw []byte) error {
	at, err := r.location()
	if err := errors.Join(r.is(201), err); err != nil {
		return err
	}
	for _, path := range []string{at.String(), t.path("blobs/%s", digestOf(raw))} {
		got, err := get(ctx, t, "GET", path, 200)
		if err != nil {
			return err
		}
		if err := got.holds(raw); err != nil {
			return err
		}
	}
	return nil
}

// chunk sends a part of an upload and returns where the next one goes.
func chunk(ctx context.Context, t *target, at *url.URL, raw []byte, from, to int) (*url.URL, error) {
	r, err := t.do(ctx, request{method: "PATCH", path: at.String(), body: raw[from:to], header: map[string]string{
		"Content-Type": "application/octet-stream", "Content-Range": fmt.Sprintf("%d-%d", from, to-1),
	}})
	if err != nil {
		return nil, err
	}
	if err := errors.Join(r.is(202), r.has("Range", fmt.Sprintf("0-%d", to-1))); err != nil {
		return nil, err
	}
	return r.location()
}

var pushChecks = []check{
	{categoryPush, "POST, then PUT: a blob in one piece", func(ctx context.Context, t *target) error {
		raw := []byte("in one piece")
		at, err := begin(ctx, t)
		if err != nil {
			return err
		}
		r, err := t.do(ctx, request{method: "PUT", path: with(at, "digest", digestOf(raw)), header: octets, body: raw})
		if err != nil {
			return err
		}
		return stored(ctx, t, r, raw)
	}},
	{categoryPush, "POST with the digest: a blob in one request, or 202 and a location to go on", func(ctx context.Context, t *target) error {
		raw := []byte("in one request")
		r, err := t.do(ctx, request{method: "POST", path: t.path("blobs/uploads/?digest=%s", digestOf(raw)), header: octets, body: raw})
		if err != nil {
			return err
		}
		if r.status != 202 {
			return stored(ctx, t, r, raw)
		}
		at, err := r.location()
		if err != nil {
			return err
		}
		if r, err = t.do(ctx, request{method: "PUT", path: with(at, "digest", digestOf(raw)), header: octets, body: raw}); err != nil {
			return err
		}
		return stored(ctx, t, r, raw)
	}},
	{categoryPush, "PATCH of a stream, then PUT", func(ctx context.Context, t *target) error {
		raw := []byte("streamed")
		at, err := begin(ctx, t)
		if err != nil {
			return err
		}
		r, err := t.do(ctx, request{method: "PATCH", path: at.String(), header: octets, body: raw, stream: true})
		if err != nil {
			return err
		}
		next, err := r.location()
		if err := errors.Join(r.is(202), err); err != nil {
			return err
		}
		if r, err = t.do(ctx, request{method: "PUT", path: with(next, "digest", digestOf(raw))}); err != nil {
			return err
		}
		return stored(ctx, t, r, raw)
	}},
	{categoryPush, "PATCH in chunks, then PUT with the last one", func(ctx context.Context, t *target) error {
		raw := []byte("one two three")
		at, err := begin(ctx, t)
		if err != nil {
			return err
		}
		for _, part := range [][2]int{{0, 4}, {4, 8}} {
			if at, err = chunk(ctx, t, at, raw, part[0], part[1]); err != nil {
				return err
			}
		}
		r, err := t.do(ctx, request{method: "PUT", path: with(at, "digest", digestOf(raw)), body: raw[8:], header: map[string]string{
			"Content-Type": "application/octet-stream", "Content-Range": fmt.Sprintf("8-%d", len(raw)-1),
		}})
		if err != nil {
			return err
		}
		return stored(ctx, t, r, raw)
	}},
	{categoryPush, "a chunk out of order is 416; GET tells where the upload is, and it goes on", func(ctx context.Context, t *target) error {
		raw := []byte("first second")
		at, err := begin(ctx, t)
		if err != nil {
			return err
		}
		next, err := chunk(ctx, t, at, raw, 0, 6)
		if err != nil {
			return err
		}
		r, err := t.do(ctx, request{method: "PATCH", path: next.String(), body: raw[8:], header: map[string]string{
			"Content-Type": "application/octet-stream", "Content-Range": fmt.Sprintf("8-%d", len(raw)-1),
		}})
		if err != nil {
			return err
		}
		if err := r.is(416); err != nil {
			return err
		}
		if r, err = get(ctx, t, "GET", next.String(), 204); err != nil {
			return err
		}
		if next, err = r.location(); err != nil {
			return err
		}
		if err := r.has("Range", "0-5"); err != nil {
			return err
		}
		if next, err = chunk(ctx, t, next, raw, 6, len(raw)); err != nil {
			return err
		}
		if r, err = t.do(ctx, request{method: "PUT", path: with(next, "digest", digestOf(raw))}); err != nil {
			return err
		}
		return stored(ctx, t, r, raw)
	}},
	{categoryPush, "a blob with another digest is refused", func(ctx context.Context, t *target) error {
		at, err := begin(ctx, t)
		if err != nil {
			return err
		}
		r, err := t.do(ctx, request{method: "PUT", path: with(at, "digest", nothing), header: octets, body: []byte("something else")})
		if err != nil {
			return err
		}
		if err := errors.Join(r.is(400), r.refuses("DIGEST_INVALID")); err != nil {
			return err
		}
		_, err = get(ctx, t, "HEAD", t.path("blobs/%s", nothing), 404)
		return err
	}},
	{categoryPush, "an upload that is not there is 404", func(ctx context.Context, t *target) error {
		r, err := get(ctx, t, "GET", t.path("blobs/uploads/00000000-0000-0000-0000-000000000000"), 404)
		if err != nil {
			return err
		}
		return r.refuses("BLOB_UPLOAD_UNKNOWN")
	}},
	{categoryPush, "a blob is mounted from another repository, or 202 and a location to upload it to", func(ctx context.Context, t *target) error {
		for _, query := range []string{"mount=" + digestOf(t.layer) + "&from=" + t.name, "mount=" + nothing + "&from=" + t.name} {
			other := *t
			other.name = t.name + "-mounted"
			r, err := t.ask(ctx, "POST", other.path("blobs/uploads/?%s", query))
			if err != nil {
				return err
			}
			if _, err := r.location(); errors.Join(r.is(201, 202), err) != nil {
				return errors.Join(r.is(201, 202), err)
			}
			if r.status == 201 {
				if err := stored(ctx, &other, r, t.layer); err != nil {
					return err
				}
			}
		}
		return nil
	}},
	{categoryPush, "PUT of a manifest under a tag and under its digest is 201, with a location that has it", func(ctx context.Context, t *target) error {
		for _, reference := range []string{"pushed", digestOf(t.manifest)} {
			r, err := t.pushManifest(ctx, reference, typeImage, t.manifest)
			if err != nil {
				return err
			}
			at, err := r.location()
			if err != nil {
				return err
			}
			for _, path := range []string{at.String(), t.path("manifests/%s", reference)} {
				got, err := get(ctx, t, "GET", path, 200, "Accept", typeImage)
				if err != nil {
					return err
				}
				if err := got.holds(t.manifest); err != nil {
					return err
				}
			}
		}
		return nil
	}},
	{categoryPush, "a manifest under the digest of another is refused", func(ctx context.Context, t *target) error {
		r, err := t.do(ctx, request{method: "PUT", path: t.path("manifests/%s", nothing), header: map[string]string{"Content-Type": typeImage}, body: t.manifest})
		if err != nil {
			return err
		}
		return errors.Join(r.is(400), r.refuses("DIGEST_INVALID"))
	}},
	{categoryPush, "a manifest with blobs that are not there is taken, or refused with MANIFEST_BLOB_UNKNOWN", func(ctx context.Context, t *target) error {
		raw := encoded(map[string]any{"schemaVersion": 2, "mediaType": typeImage, "config": describe(typeConfig, t.config), "layers": []descriptor{describe(typeLayer, []byte("not there"))}})
		r, err := t.do(ctx, request{method: "PUT", path: t.path("manifests/incomplete"), header: map[string]string{"Content-Type": typeImage}, body: raw})
		if err != nil || r.status == 201 {
			return err
		}
		return errors.Join(r.is(400, 404), r.refuses("MANIFEST_BLOB_UNKNOWN"))
	}},
	{categoryPush, "a manifest about one that is not there is taken", func(ctx context.Context, t *target) error {
		raw := encoded(map[string]any{
			"schemaVersion": 2, "mediaType": typeImage, "artifactType": "application/vnd.example.early", "config": describe(typeEmpty, []byte("{}")), "layers": []descriptor{describe(typeEmpty, []byte("{}"))},
			"subject": descriptor{MediaType: typeImage, Digest: nothing, Size: 10},
		})
		if err := t.pushBlob(ctx, []byte("{}")); err != nil {
			return err
		}
		_, err := t.pushManifest(ctx, digestOf(raw), typeImage, raw)
		return err
	}},
	{categoryPush, "PUT of a manifest with a subject says so with OCI-Subject", func(ctx context.Context, t *target) error {
		raw := encoded(map[string]any{
			"schemaVersion": 2, "mediaType": typeImage, "artifactType": "application/vnd.example.other", "config": describe(typeEmpty, []byte("{}")), "layers": []descriptor{describe(typeEmpty, []byte("{}"))},
			"subject": describe(typeImage, t.manifest),
		})
		r, err := t.pushManifest(ctx, digestOf(raw), typeImage, raw)
		if err != nil {
			return err
		}
		return r.has("OCI-Subject", digestOf(t.manifest))
	}},
}

// tagList reads one page.
func tagList(ctx context.Context, t *target, query string) (tags []string, link string, err error) {
	r, err := get(ctx, t, "GET", t.path("tags/list%s", query), 200)
	if err != nil {
		return nil, "", err
	}
	var doc struct {
		Name string   `json:"name"`
		Tags []string `json:"tags"`
	}
	if err := json.Unmarshal(r.body, &doc); err != nil || doc.Name != t.name {
		return nil, "", fmt.Errorf("%s: %.200s, %w", r.url, r.body, err)
	}
	return doc.Tags, r.header.Get("Link"), nil
}

func listIs(got, want []string) error {
	if !slices.Equal(got, want) {
		return fmt.Errorf("tags %q, want %q", got, want)
	}
	return nil
}

// referrers reads a list of them.
func referrers(ctx context.Context, t *target, query string) ([]descriptor, *reply, error) {
	r, err := get(ctx, t, "GET", t.path("referrers/%s", query), 200)
	if err != nil {
		return nil, nil, err
	}
	list, err := index(r)
	return list, r, err
}

func index(r *reply) ([]descriptor, error) {
	var doc struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		Manifests     []descriptor `json:"manifests"`
	}
	err := json.Unmarshal(r.body, &doc)
	if err == nil && (doc.SchemaVersion != 2 || doc.MediaType != typeIndex || doc.Manifests == nil) {
		err = fmt.Errorf("%s: no index: %.200s", r.url, r.body)
	}
	return doc.Manifests, errors.Join(err, r.has("Content-Type", typeIndex))
}

func same(got, want []descriptor) error {
	byDigest := func(a, b descriptor) int { return strings.Compare(a.Digest, b.Digest) }
	got, want = append([]descriptor{}, got...), append([]descriptor{}, want...)
	slices.SortFunc(got, byDigest)
	slices.SortFunc(want, byDigest)
	if string(encoded(got)) != string(encoded(want)) {
		return fmt.Errorf("referrers %s, want %s", encoded(got), encoded(want))
	}
	return nil
}

var discoveryChecks = []check{
	{categoryDiscovery, "the list of tags has all of them, in their order", func(ctx context.Context, t *target) error {
		tags, _, err := tagList(ctx, t, "")
		return errors.Join(err, listIs(tags, t.listed))
	}},
	{categoryDiscovery, "with n it has as many, or fewer and a Link", func(ctx context.Context, t *target) error {
		tags, link, err := tagList(ctx, t, "?n=2")
		if err == nil && len(tags) < 2 && link == "" {
			err = fmt.Errorf("%d tags", len(tags))
		}
		return errors.Join(err, listIs(tags, t.listed[:len(tags)]))
	}},
	{categoryDiscovery, "with last it begins after that one", func(ctx context.Context, t *target) error {
		tags, _, err := tagList(ctx, t, "?n=2&last="+t.listed[1])
		if err := errors.Join(err, listIs(tags, t.listed[2:4])); err != nil {
			return err
		}
		tags, _, err = tagList(ctx, t, "?last="+t.listed[2])
		return errors.Join(err, listIs(tags, t.listed[3:]))
	}},
	{categoryDiscovery, "with n=0 it is empty and has no Link", func(ctx context.Context, t *target) error {
		tags, link, err := tagList(ctx, t, "?n=0")
		if link != "" {
			err = fmt.Errorf("Link %q", link)
		}
		return errors.Join(err, listIs(tags, []string{}))
	}},
	{categoryDiscovery, "Link leads through all pages (RFC 5988)", func(ctx context.Context, t *target) error {
		var all []string
		next := t.path("tags/list?n=1")
		for range len(t.listed) + 1 {
			r, err := get(ctx, t, "GET", next, 200)
			if err != nil {
				return err
			}
			var doc struct{ Tags []string }
			if err := json.Unmarshal(r.body, &doc); err != nil {
				return err
			}
			all = append(all, doc.Tags...)
			link := r.header.Get("Link")
			if link == "" {
				break
			}
			target, params, ok := strings.Cut(strings.TrimPrefix(link, "<"), ">")
			if !ok || !strings.Contains(params, `rel="next"`) {
				return fmt.Errorf("Link %q", link)
			}
			u, err := r.url.Parse(target)
			if err != nil {
				return err
			}
			next = u.String()
		}
		return listIs(all, t.listed)
	}},
	{categoryDiscovery, "the tags of a repository that is not there are 404", func(ctx context.Context, t *target) error {
		r, err := get(ctx, t, "GET", "/v2/no/such/repository/tags/list", 404)
		if err != nil {
			return err
		}
		return r.refuses("NAME_UNKNOWN")
	}},
	{categoryDiscovery, "referrers of what is nowhere are 200 and an empty index", func(ctx context.Context, t *target) error {
		list, _, err := referrers(ctx, t, digestOf([]byte("nothing is about this")))
		return errors.Join(err, same(list, nil))
	}},
	{categoryDiscovery, "referrers are 200 and an index of them, with artifact types and annotations", func(ctx context.Context, t *target) error {
		list, _, err := referrers(ctx, t, digestOf(t.manifest))
		return errors.Join(err, same(list, t.referrers))
	}},
	{categoryDiscovery, "referrers of one artifact type, with OCI-Filters-Applied", func(ctx context.Context, t *target) error {
		list, r, err := referrers(ctx, t, digestOf(t.manifest)+"?artifactType="+url.QueryEscape(t.referrers[0].ArtifactType))
		if err != nil {
			return err
		}
		return errors.Join(same(list, t.referrers[:1]), r.has("OCI-Filters-Applied", "artifactType"))
	}},
	{categoryDiscovery, "referrers of what is no digest are 400", func(ctx context.Context, t *target) error {
		_, err := get(ctx, t, "GET", t.path("referrers/sha256:totallywrong"), 400)
		return err
	}},
	{categoryDiscovery, "the referrers tag (sha256-HEX) is an index of them", func(ctx context.Context, t *target) error {
		r, err := get(ctx, t, "GET", t.path("manifests/%s", strings.Replace(digestOf(t.manifest), ":", "-", 1)), 200, "Accept", typeIndex)
		if err != nil {
			return err
		}
		list, err := index(r)
		return errors.Join(err, same(list, t.referrers))
	}},
}

// doomed is the manifest of an image that is pushed to be deleted.
func doomed(t *target) []byte {
	return encoded(map[string]any{"schemaVersion": 2, "mediaType": typeImage, "config": describe(typeConfig, t.config), "layers": []descriptor{}, "annotations": map[string]string{"doomed": "yes"}})
}

// managed is a repository of its own, so that what is deleted is missed by nobody.
func managed(ctx context.Context, t *target) (*target, error) {
	m := *t
	m.name = t.name + "-managed"
	if err := m.pushBlob(ctx, t.config); err != nil {
		return nil, err
	}
	for _, tag := range []string{"kept", "deleted"} {
		if _, err := m.pushManifest(ctx, tag, typeImage, doomed(t)); err != nil {
			return nil, err
		}
	}
	return &m, nil
}

var managementChecks = []check{
	{categoryManagement, "DELETE of a tag is 202, and the tag is gone; or 400 or 405", func(ctx context.Context, t *target) error {
		m, err := managed(ctx, t)
		if err != nil {
			return err
		}
		r, err := m.ask(ctx, "DELETE", m.path("manifests/deleted"))
		if err != nil {
			return err
		}
		if r.status != 202 {
			return errors.Join(r.is(400, 405), r.refuses("UNSUPPORTED"))
		}
		if _, err := get(ctx, m, "GET", m.path("manifests/deleted"), 404); err != nil {
			return err
		}
		if _, err := get(ctx, m, "GET", m.path("manifests/kept"), 200, "Accept", typeImage); err != nil {
			return err
		}
		tags, _, err := tagList(ctx, m, "")
		return errors.Join(err, listIs(tags, []string{"kept"}))
	}},
	{categoryManagement, "DELETE of a manifest is 202, and it is gone with its tags", func(ctx context.Context, t *target) error {
		m, err := managed(ctx, t)
		if err != nil {
			return err
		}
		digest := digestOf(doomed(t))
		if _, err := get(ctx, m, "DELETE", m.path("manifests/%s", digest), 202); err != nil {
			return err
		}
		for _, reference := range []string{digest, "kept", "deleted"} {
			if _, err := get(ctx, m, "GET", m.path("manifests/%s", reference), 404); err != nil {
				return err
			}
		}
		return nil
	}},
	{categoryManagement, "DELETE of a blob is 202, and it is gone; of one that is nowhere 404", func(ctx context.Context, t *target) error {
		m, err := managed(ctx, t)
		if err != nil {
			return err
		}
		raw := []byte("to be deleted")
		if err := m.pushBlob(ctx, raw); err != nil {
			return err
		}
		if _, err := get(ctx, m, "DELETE", m.path("blobs/%s", digestOf(raw)), 202); err != nil {
			return err
		}
		if _, err := get(ctx, m, "GET", m.path("blobs/%s", digestOf(raw)), 404); err != nil {
			return err
		}
		_, err = get(ctx, m, "DELETE", m.path("blobs/%s", nothing), 404)
		return err
	}},
	{categoryManagement, "DELETE in a repository that is not there is 404", func(ctx context.Context, t *target) error {
		_, err := get(ctx, t, "DELETE", "/v2/no/such/repository/manifests/"+digestOf(t.manifest), 404)
		return err
	}},
}

var readOnlyChecks = []check{
	{categoryReadOnly, "POST, PUT, PATCH and DELETE are 405, with an error of the specification and Allow", func(ctx context.Context, t *target) error {
		for _, r := range [][2]string{
			{"POST", "blobs/uploads/"},
			{"POST", "blobs/uploads/?mount=" + digestOf(t.layer) + "&from=" + t.name},
			{"PATCH", "blobs/uploads/1"},
			{"PUT", "blobs/uploads/1?digest=" + nothing},
			{"PUT", "manifests/new"},
			{"PUT", "manifests/" + digestOf(t.manifest)},
			{"DELETE", "manifests/" + t.tags[0]},
			{"DELETE", "manifests/" + digestOf(t.manifest)},
			{"DELETE", "blobs/" + digestOf(t.layer)},
		} {
			got, err := t.ask(ctx, r[0], t.path("%s", r[1]))
			if err != nil {
				return err
			}
			if err := errors.Join(got.is(405), got.refuses("UNSUPPORTED"), got.has("Allow", "GET, HEAD")); err != nil {
				return err
			}
		}
		return nil
	}},
	{categoryReadOnly, "and leave everything as it is", func(ctx context.Context, t *target) error {
		return errors.Join(manifests(ctx, t, "GET", t.manifest), func() error {
			tags, _, err := tagList(ctx, t, "")
			return errors.Join(err, listIs(tags, t.listed))
		}())
	}},
}
