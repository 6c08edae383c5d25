package oci

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// Refusal is why a registry does not take what is pushed, as far as its answer tells.
type Refusal int

// Refusals.
const (
	// RefusalOther is anything else, or no refusal at all.
	RefusalOther Refusal = iota
	// RefusalNoPlace says that the repository, or the project or namespace that it would be in, has to
	// be there before anything is pushed (ECR, Harbor, Quay, GitLab, Artifactory).
	RefusalNoPlace
	// RefusalRights says that the user may not push there; of what does not exist many registries
	// say the same.
	RefusalRights
	// RefusalImmutable says that a tag, or anything at all, may not be written a second time (ECR,
	// Harbor, Nexus, Docker Hub).
	RefusalImmutable
	// RefusalReadOnly says that nothing is written there: a mirror, a proxy, or a registry under
	// maintenance.
	RefusalReadOnly
)

// Words with which registries say what their codes do not. They are compared in lower case.
var (
	immutableWords = []string{"immutable", "cannot be overwritten", "cannot be overwrite", "does not allow updating", "redeploy", "overwrite"}
	placeWords     = []string{"project", "namespace", "does not exist", "not found", "no such repository"}
)

// RefusalOf tells why a registry refused what was pushed. It knows the codes of the OCI distribution
// spec, and how Harbor, ECR, Quay, GitLab, Artifactory, Nexus and Docker Hub use them.
func RefusalOf(err error) Refusal {
	var t *transport.Error
	if !errors.As(err, &t) {
		return RefusalOther
	}
	words := ""
	for _, d := range t.Errors {
		words += strings.ToLower(fmt.Sprintf("%s %v ", d.Message, d.Detail))
	}
	says := func(list []string) bool {
		return slices.ContainsFunc(list, func(w string) bool { return strings.Contains(words, w) })
	}
	has := func(code transport.ErrorCode) bool {
		return slices.ContainsFunc(t.Errors, func(d transport.Diagnostic) bool { return d.Code == code })
	}
	switch {
	case t.StatusCode == http.StatusMethodNotAllowed:
		return RefusalReadOnly
	case t.StatusCode == http.StatusPreconditionFailed, t.StatusCode >= 400 && t.StatusCode < 500 && says(immutableWords):
		return RefusalImmutable
	case has(transport.NameUnknownErrorCode), t.StatusCode == http.StatusNotFound && says(placeWords),
		IsDenied(err) && says([]string{"project", "namespace"}) && says([]string{"not found", "not exist"}):
		return RefusalNoPlace
	case IsDenied(err):
		return RefusalRights
	}
	return RefusalOther
}

// CheckPush finds out whether blobs can be pushed to the repository, before any is: it begins an
// upload, and gives it up. Errors are *Error.
func (r *Repository) CheckPush(ctx context.Context) error {
	what := "an upload to " + r.Path
	err := r.host.small(ctx, func(ctx context.Context) error {
		resp, err := r.do(ctx, http.MethodPost, r.url("blobs/uploads/"), nil)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if err := check(resp, http.StatusAccepted, http.StatusCreated); err != nil {
			return err
		}
		place, err := resp.Request.URL.Parse(resp.Header.Get("Location"))
		if err != nil {
			return nil // an upload that cannot be given up ends by itself
		}
		// Registries without a way to give it up clean up by themselves.
		if gone, err := r.do(ctx, http.MethodDelete, place.String(), nil); err == nil {
			_ = gone.Body.Close()
		}
		return nil
	})
	if err != nil {
		return &Error{Side: r.client.o.Side, Registry: r.at, For: r.mirrored, Doing: "beginning " + what, Err: err}
	}
	return nil
}
