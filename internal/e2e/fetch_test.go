//go:build e2e

package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"
)

// fetchVariable holds a URL where the test binary was started to fetch it, in a network namespace; or, where putVariable holds a media
// type, to put there what is on its standard input. A blob is put to ".../blobs/uploads/?digest=DIGEST".
const (
	fetchVariable = "SEALIFT_E2E_FETCH"
	putVariable   = "SEALIFT_E2E_PUT"
)

func TestMain(m *testing.M) {
	if from := os.Getenv(fetchVariable); from != "" {
		if err := printURL(from); err != nil {
			log.Fatal(err)
		}
		return
	}
	if from := os.Getenv(askVariable); from != "" {
		ask(from)
		return
	}
	m.Run()
}

func printURL(from string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return err
	}
	req.Header.Add("Accept", "application/vnd.oci.image.index.v1+json")
	req.Header.Add("Accept", "application/vnd.oci.image.manifest.v1+json")
	if mediaType := os.Getenv(putVariable); mediaType != "" {
		if req.Method, req.Body = http.MethodPut, io.NopCloser(os.Stdin); strings.HasSuffix(req.URL.Path, "/blobs/uploads/") {
			if req.URL, err = uploadURL(ctx, req.URL); err != nil {
				return err
			}
		}
		req.Header.Set("Content-Type", mediaType)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusCreated {
		return fmt.Errorf("%s: %s", from, resp.Status)
	}
	_, err = io.Copy(os.Stdout, resp.Body)
	return err
}

// uploadURL begins an upload, and returns where the blob goes.
func uploadURL(ctx context.Context, to *url.URL) (*url.URL, error) {
	begin := *to
	begin.RawQuery = ""
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, begin.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	at, err := resp.Location()
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", to, resp.Status, err)
	}
	query := at.Query()
	query.Set("digest", to.Query().Get("digest"))
	at.RawQuery = query.Encode()
	return at, nil
}

// fetchCommand makes a command that fetches a URL from within this side's network.
func (s side) fetchCommand(ctx context.Context, url string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	cmd := s.command(ctx, self)
	cmd.Env = []string{fetchVariable + "=" + url}
	return cmd
}

func (s side) fetch(t *testing.T, url string) string {
	t.Helper()
	return output(t, s.fetchCommand(t.Context(), url))
}

// registryAnswers reports whether a registry answers on this side, and if not, why.
func (s side) registryAnswers(ctx context.Context, registry string) (bool, string) {
	out, err := s.fetchCommand(ctx, "http://"+registry+"/v2/").CombinedOutput()
	return err == nil, string(out)
}

// imageDigest follows a reference in a registry of this side to the image for this machine. For an
// index, that is the only child that fits.
func (s side) imageDigest(t *testing.T, registry, repository, reference string) string {
	t.Helper()
	raw := s.fetch(t, "http://"+registry+"/v2/"+repository+"/manifests/"+reference)
	if digest := imageInIndex(t, []byte(raw)); digest != "" {
		return digest
	}
	return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(raw)))
}

// imageInIndex is the digest of the image for this machine, or "" where raw is no index.
func imageInIndex(t *testing.T, raw []byte) string {
	t.Helper()
	var index struct {
		Manifests []struct {
			Digest   string
			Platform struct{ Architecture string }
		}
	}
	if err := json.Unmarshal(raw, &index); err != nil {
		t.Fatalf("reading an image manifest: %v", err)
	}
	if index.Manifests == nil {
		return ""
	}
	for _, child := range index.Manifests {
		if child.Platform.Architecture == runtime.GOARCH {
			return child.Digest
		}
	}
	t.Fatalf("no image for %s in %s", runtime.GOARCH, raw)
	return ""
}
