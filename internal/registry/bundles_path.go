package registry

import "strings"

// Kinds of paths.
const (
	pathBase = iota
	pathCatalog
	pathTags
	pathManifest
	pathBlob
	pathUpload
	pathReferrers
)

// requestPath is a path of the distribution API, taken apart. What its parts are is not checked.
type requestPath struct {
	kind int
	// name is that of the repository, reference a tag or digest.
	name, reference string
}

// parsePath takes the decoded path of a request apart (OCI distribution spec 1.1, "endpoints").
// Names may hold the words that the API uses, as in /v2/a/blobs/manifests/1.
func parsePath(path string) (requestPath, bool) {
	rest, ok := strings.CutPrefix(path, "/v2")
	if !ok {
		return requestPath{}, false
	}
	switch rest {
	case "", "/":
		return requestPath{kind: pathBase}, true
	case "/_catalog":
		return requestPath{kind: pathCatalog}, true
	}
	if rest, ok = strings.CutPrefix(rest, "/"); !ok {
		return requestPath{}, false
	}
	if name, ok := strings.CutSuffix(rest, "/tags/list"); ok && name != "" {
		return requestPath{kind: pathTags, name: name}, true
	}
	// An upload's own part may be anything, even nothing.
	if name, id, ok := cutLast(rest, "/blobs/uploads/"); ok && !strings.Contains(id, "/") && name != "" {
		return requestPath{kind: pathUpload, name: name, reference: id}, true
	}
	if name, ok := strings.CutSuffix(rest, "/blobs/uploads"); ok && name != "" {
		return requestPath{kind: pathUpload, name: name}, true
	}
	front, reference, ok := cutLast(rest, "/")
	if !ok || reference == "" {
		return requestPath{}, false
	}
	name, word, ok := cutLast(front, "/")
	if !ok || name == "" {
		return requestPath{}, false
	}
	p := requestPath{name: name, reference: reference}
	switch word {
	case "manifests":
		p.kind = pathManifest
	case "blobs":
		p.kind = pathBlob
	case "referrers":
		p.kind = pathReferrers
	default:
		return requestPath{}, false
	}
	return p, true
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}
