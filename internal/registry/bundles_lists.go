package registry

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/manifest"
)

// maxPage bounds how many names or tags are in one answer; the header Link leads to the next.
const maxPage = 10_000

// page is the part of a sorted list that a request asks for with n and last.
func page(a *answer, all []string, compare func(a, b string) int) (list []string, ok bool) {
	q := a.r.URL.Query()
	n := maxPage
	if text := q.Get("n"); text != "" {
		asked, err := strconv.Atoi(text)
		if err != nil || asked < 0 {
			a.fail(http.StatusBadRequest, codePageInvalid, "n is %s, and must be a number of results", quoted(text))
			return nil, false
		}
		n = min(n, asked)
	}
	from := 0
	if last := q.Get("last"); last != "" {
		var found bool
		if from, found = slices.BinarySearchFunc(all, last, compare); found {
			from++
		}
	}
	list = all[from:min(len(all), from+n)]
	if n > 0 && from+n < len(all) {
		a.next(map[string]string{"n": strconv.Itoa(n), "last": list[n-1]})
	}
	return list, true
}

// next leads to the next page (RFC 8288): the same request with other values.
func (a *answer) next(values map[string]string) {
	q := a.r.URL.Query()
	for k, v := range values {
		q.Set(k, v)
	}
	u := url.URL{Path: a.r.URL.Path, RawQuery: q.Encode()}
	a.Header().Set("Link", fmt.Sprintf(`<%s>; rel="next"`, u.String()))
}

func (s *Bundles) serveCatalog(a *answer) {
	all := make([]string, 0, len(s.names.all))
	for _, r := range s.names.all {
		all = append(all, r.name())
	}
	list, ok := page(a, slices.Compact(all), cmp.Compare)
	if ok {
		a.sendJSON(map[string][]string{"repositories": list})
	}
}

func (s *Bundles) serveTags(a *answer, name string, found []*repository) {
	list, ok := page(a, tagsOf(found), compareTags)
	if !ok {
		return
	}
	a.sendJSON(struct {
		Name string   `json:"name"`
		Tags []string `json:"tags"`
	}{name, append([]string{}, list...)})
}

const mediaTypeIndex = "application/vnd.oci.image.index.v1+json"

// listed is a referrer in a list of them.
type listed struct {
	MediaType    string            `json:"mediaType"`
	Digest       string            `json:"digest"`
	Size         int64             `json:"size"`
	Annotations  map[string]string `json:"annotations,omitempty"`
	ArtifactType string            `json:"artifactType,omitempty"`
}

// maxReferrers bounds a page of referrers, in bytes. Clients read as much as of a manifest.
const maxReferrers = manifest.MaxOCIManifestBytes / 2

// listReferrers describes what is about subject from the digest after last on, as far as one page goes;
// more is the last digest of the page where there are others. An empty artifactType takes all.
func (s *Bundles) listReferrers(ctx context.Context, subject, artifactType, last string) (raw []byte, more string, err error) {
	raw = []byte(`{"schemaVersion":2,"mediaType":"` + mediaTypeIndex + `","manifests":[`)
	begun := false
	previous := ""
	for _, r := range s.names.referrers[subject] {
		if r.Digest <= last {
			continue
		}
		content, err := s.content(ctx, r.Digest)
		if err != nil {
			return nil, "", err
		}
		var doc struct {
			Annotations map[string]string `json:"annotations"`
		}
		if err := json.Unmarshal(content, &doc); err != nil {
			return nil, "", fmt.Errorf("parsing referrer %s: %w", r.Digest, err)
		}
		l := listed{r.MediaType, r.Digest, r.Size, doc.Annotations, oci.ArtifactType(content)}
		if artifactType != "" && l.ArtifactType != artifactType {
			continue
		}
		item, err := json.Marshal(l)
		if err != nil {
			return nil, "", fmt.Errorf("encoding referrer %s: %w", r.Digest, err)
		}
		if begun {
			if len(raw)+len(item) > maxReferrers {
				more = previous
				break
			}
			raw = append(raw, ',')
		}
		raw = append(raw, item...)
		begun, previous = true, r.Digest
	}
	return append(raw, "]}"...), more, nil
}

func (s *Bundles) serveReferrers(ctx context.Context, a *answer, subject string) {
	if !a.checkDigest(subject) {
		return
	}
	q := a.r.URL.Query()
	raw, more, err := s.listReferrers(ctx, subject, q.Get("artifactType"), q.Get("last"))
	if err != nil {
		a.unreadable("the list of what is about "+subject, err)
		return
	}
	if q.Get("artifactType") != "" {
		a.Header().Set(headerFilters, "artifactType")
	}
	if more != "" {
		a.next(map[string]string{"last": more})
	}
	a.send(mediaTypeIndex, raw)
}

// referrersIndex makes what clients that know no Referrers API look for under the tag sha256-HEX (OCI
// distribution spec 1.1, "referrers tag schema"): the first page of the list, which is all of it but for
// thousands of referrers.
func (s *Bundles) referrersIndex(subject string) func(context.Context) (*oci.Content, error) {
	return func(ctx context.Context) (*oci.Content, error) {
		raw, _, err := s.listReferrers(ctx, subject, "", "")
		if err != nil {
			return nil, err
		}
		d := manifest.Descriptor{Digest: manifest.Digest(raw), MediaType: mediaTypeIndex, Size: int64(len(raw))}
		return &oci.Content{Descriptor: d, Raw: raw}, nil
	}
}
