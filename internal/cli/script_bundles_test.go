package cli_test

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/rogpeppe/go-internal/testscript"
)

// cmdPulls reads all layers of an image for linux/amd64, as they are, and compares their digests:
// pulls REF. With ! at least one of the answers must be broken off.
func cmdPulls(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: pulls REF")
	}
	ref, err := name.ParseReference(args[0])
	ts.Check(err)
	img, err := remote.Image(ref)
	ts.Check(err)
	m, err := img.Manifest()
	ts.Check(err)
	broken := false
	for _, l := range m.Layers {
		resp, err := http.Get("http://" + ref.Context().RegistryStr() + "/v2/" + ref.Context().RepositoryStr() + "/blobs/" + l.Digest.String())
		ts.Check(err)
		hash := sha256.New()
		_, err = io.Copy(hash, resp.Body)
		resp.Body.Close()
		if err != nil {
			broken = true
		} else if !strings.HasSuffix(l.Digest.String(), hex.EncodeToString(hash.Sum(nil))) {
			ts.Fatalf("layer %s of %s has another digest", l.Digest, args[0])
		}
	}
	if broken != neg {
		ts.Fatalf("an answer was broken off: %v", broken)
	}
}
