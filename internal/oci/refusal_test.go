package oci_test

import (
	"errors"
	"io"
	"net/http"
	"testing"

	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/internal/oci/ocitest"
)

// TestRefusals replays what registries answer where they do not take what is pushed.
func TestRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		body   string
		want   oci.Refusal
	}{
		"ECR without the repository": {404, `{"errors":[{"code":"NAME_UNKNOWN","message":"The repository with name 'shop/app' does not exist in the registry with id '123456789012'"}]}`, oci.RefusalNoPlace},
		"Harbor without the project": {404, `{"errors":[{"code":"NOT_FOUND","message":"project shop not found"}]}`, oci.RefusalNoPlace},
		"Harbor, not logged in":      {401, `{"errors":[{"code":"UNAUTHORIZED","message":"project shop not found: project shop not found"}]}`, oci.RefusalNoPlace},
		"Harbor, no right":           {401, `{"errors":[{"code":"UNAUTHORIZED","message":"unauthorized to access repository: shop/app, action: push"}]}`, oci.RefusalRights},
		"GitLab":                     {403, `{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}`, oci.RefusalRights},
		"Quay":                       {401, `{"errors":[{"code":"UNAUTHORIZED","detail":{},"message":"access to the requested resource is not authorized"}]}`, oci.RefusalRights},
		"ECR, immutable":             {400, `{"errors":[{"code":"TAG_INVALID","message":"The image tag '1' already exists in the 'shop' repository and cannot be overwritten because the repository is immutable."}]}`, oci.RefusalImmutable},
		"Harbor, immutable":          {412, `{"errors":[{"code":"PRECONDITION","message":"Failed to process request due to 'shop/app:1' configured as immutable."}]}`, oci.RefusalImmutable},
		"Nexus without redeployment": {400, `{"errors":[{"code":"BLOB_UPLOAD_INVALID","message":"blob upload invalid","detail":"Repository does not allow updating assets: docker"}]}`, oci.RefusalImmutable},
		"a proxy, or read-only":      {405, `{"errors":[{"code":"UNSUPPORTED","message":"The operation is unsupported."}]}`, oci.RefusalReadOnly},
		"no words at all":            {403, "", oci.RefusalRights},
		"a page of a web server":     {404, "<html>404</html>", oci.RefusalOther},
	} {
		t.Run(name, func(t *testing.T) {
			r := ocitest.New(t, ocitest.WithoutAPI)
			repo := r.Open(t, "shop/app")
			if err := repo.CheckPush(t.Context()); err != nil {
				t.Fatal(err)
			}
			r.Intercept(func(w http.ResponseWriter, req *http.Request) bool {
				if req.Method != http.MethodPost {
					return false
				}
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
				return true
			})
			err := repo.CheckPush(t.Context())
			var failed *oci.Error
			if !errors.As(err, &failed) {
				t.Fatalf("%v, want *oci.Error", err)
			}
			if got := oci.RefusalOf(err); got != c.want {
				t.Errorf("%v: %v, want %v", err, got, c.want)
			}
		})
	}
	if oci.RefusalOf(nil) != oci.RefusalOther || oci.RefusalOf(io.EOF) != oci.RefusalOther {
		t.Error("what is no answer was taken for one")
	}
}

// TestCheckPushLeavesNothing: an upload that is begun to see whether it may be is given up.
func TestCheckPushLeavesNothing(t *testing.T) {
	r := ocitest.New(t, ocitest.WithoutAPI)
	if err := r.Open(t, "shop/app").CheckPush(t.Context()); err != nil {
		t.Fatal(err)
	}
	var begun, given int
	for _, line := range r.Requests() {
		switch line[:4] {
		case "POST":
			begun++
		case "DELE":
			given++
		}
	}
	if begun != 1 || given != 1 {
		t.Errorf("%d uploads begun, %d given up", begun, given)
	}
}
