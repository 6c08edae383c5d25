package oci

import (
	"context"
	"net/http"
)

// CheckWritable begins an upload in the repository and gives it up at once, so that nothing is left: whoever may begin one may push
// (OCI distribution spec 1.1, "pushing a blob"). Errors are *Error.
func (r *Repository) CheckWritable(ctx context.Context) error {
	u := &upload{repo: r}
	if err := u.begin(ctx); err != nil {
		return r.fail("beginning an upload to", "blobs", err)
	}
	ctx, cancel := context.WithTimeout(ctx, abandonTime)
	defer cancel()
	// Some registries cannot forget an upload when they are asked to; they do so in their own time.
	if resp, err := r.do(ctx, http.MethodDelete, u.place.String(), nil); err == nil {
		resp.Body.Close()
	}
	return nil
}
