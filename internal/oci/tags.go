package oci

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"

	"github.com/distribution/reference"
)

// Bounds on a list of tags. Some registries ignore how many are asked for and give all at once.
const (
	maxTags     = 100_000
	maxTagPages = 2000
	maxTagsPage = 16 << 20
)

var validTag = regexp.MustCompile("^(?:" + reference.TagRegexp.String() + ")$")

// Tags lists the tags of the repository, sorted, each once (OCI distribution spec 1.1, "listing
// tags"). What no reference can hold is left out. Errors are *Error.
func (r *Repository) Tags(ctx context.Context) ([]string, error) {
	var all []string
	next := r.url("tags/list") + "?n=1000"
	for page := 0; next != ""; page++ {
		if page == maxTagPages {
			return nil, r.fail("listing", "the tags", fmt.Errorf("the list does not end after %d pages", page))
		}
		var tags []string
		target := next
		err := r.host.small(ctx, func(ctx context.Context) (err error) {
			tags, next, err = r.tagsPage(ctx, target)
			return err
		})
		if err != nil {
			return nil, r.fail("listing", "the tags", err)
		}
		if all = append(all, tags...); len(all) > maxTags {
			return nil, r.fail("listing", "the tags", fmt.Errorf("there are more than %d", maxTags))
		}
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

func (r *Repository) tagsPage(ctx context.Context, target string) (tags []string, next string, err error) {
	resp, err := r.do(ctx, http.MethodGet, target, http.Header{"Accept": {"application/json"}})
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
	var doc struct {
		Tags []string `json:"tags"`
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		return nil, "", garbledError{fmt.Errorf("parsing list of tags: %w", err)}
	}
	next, err = nextPage(resp)
	return slices.DeleteFunc(doc.Tags, func(t string) bool { return !validTag.MatchString(t) }), next, err
}
