package registry

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// contentDir is where distribution keeps the content of a store, and below it blobs and repositories.
var contentDir = filepath.Join("docker", "registry", "v2")

// blobPath is where distribution keeps a blob.
func blobPath(store string, d digest.Digest) string {
	hex := d.Encoded()
	return filepath.Join(store, contentDir, "blobs", d.Algorithm().String(), hex[:2], hex, "data")
}

// repositoryPath is where distribution keeps a repository.
func repositoryPath(store, name string) string {
	return filepath.Join(store, contentDir, "repositories", filepath.FromSlash(name))
}

// serveBlob answers GET and HEAD for blobs that are there, as distribution would, but so that the
// system copies from file to connection: distribution needs 4 MiB of memory for each pull. It reports
// whether it has answered; all else is distribution's, such as saying what is not there.
func (s *Server) serveBlob(w http.ResponseWriter, r *http.Request) bool {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false
	}
	rest, ok := strings.CutPrefix(r.URL.Path, "/v2/")
	if !ok {
		return false
	}
	name, last, ok := strings.Cut(rest, "/blobs/")
	if !ok {
		return false
	}
	if _, err := reference.WithName(name); err != nil {
		return false
	}
	d, err := digest.Parse(last)
	if err != nil || d.Algorithm() != digest.SHA256 {
		return false
	}
	link, err := os.ReadFile(filepath.Join(repositoryPath(s.o.Store, name), "_layers", d.Algorithm().String(), d.Encoded(), "link"))
	if err != nil || string(link) != d.String() {
		return false
	}
	f, err := os.Open(blobPath(s.o.Store, d))
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			note(r.Context(), err)
		}
		return false
	}
	defer func() { _ = f.Close() }() // it was only read
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return false
	}
	h := w.Header()
	h.Set("Docker-Distribution-Api-Version", "registry/2.0")
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Docker-Content-Digest", d.String())
	h.Set("Etag", fmt.Sprintf("%q", d.String()))
	h.Set("Cache-Control", "max-age=31536000")
	http.ServeContent(w, r, "", time.Time{}, f)
	return true
}
