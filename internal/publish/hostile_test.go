package publish

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sealift/sealift/internal/oci/ocitest"
	"github.com/sealift/sealift/manifest"
	"github.com/sealift/sealift/verify"
)

// TestTooManyLayers: parts that name more layers than a bundle can have, or one part several times,
// are refused before all of them have been read.
func TestTooManyLayers(t *testing.T) {
	r := ocitest.New(t, ocitest.WithoutAPI)
	part := func(layers, number int) []byte {
		return must(json.Marshal(&document{
			SchemaVersion: schema, MediaType: mediaTypeManifest, ArtifactType: partType,
			Layers: make([]descriptor, layers), Annotations: map[string]string{"number": strings.Repeat("x", number)},
		}))
	}
	for name, c := range map[string]struct {
		parts [][]byte
		asked int64
	}{
		"one part many times": {[][]byte{part(1, 0), part(1, 0)}, 0},
		"many layers":         {[][]byte{part(mostLayers/2, 1), part(mostLayers/2, 2), part(mostLayers/2, 3), part(1, 4), part(1, 5)}, 3},
	} {
		top := &document{SchemaVersion: schema, MediaType: mediaTypeIndex, ArtifactType: ArtifactType}
		answers := map[string][]byte{}
		for _, raw := range c.parts {
			d := manifest.Descriptor{Digest: manifest.Digest(raw), MediaType: mediaTypeManifest, Size: int64(len(raw))}
			top.Manifests = append(top.Manifests, layer(d, ""))
			answers[d.Digest] = raw
		}
		raw := must(json.Marshal(top))
		ref := reference(r, "")
		ref.Digest = manifest.Digest(raw)
		var asked atomic.Int64
		r.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
			digest := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
			content, mediaType := raw, mediaTypeIndex
			if digest != ref.Digest {
				if content, mediaType = answers[digest], mediaTypeManifest; content == nil {
					return false
				}
				asked.Add(1)
			}
			return serving(digest, mediaType, content)(w, r)
		})
		var wrong *verify.ContentError
		if _, err := Open(context.Background(), client(), ref); !errors.As(err, &wrong) || asked.Load() != c.asked {
			t.Errorf("%s: %v after %d parts, want %d", name, err, asked.Load(), c.asked)
		}
	}
}

// TestSpoiledEntry: an entry that was spoiled on its way is fetched again, a few times.
func TestSpoiledEntry(t *testing.T) {
	r := ocitest.New(t, ocitest.WithoutAPI)
	big := random(2, 2<<20)
	p, ref := pack(t, big).write(t), reference(r, "1")
	push(t, p, ref, PushOptions{})
	for spoiled, ok := range map[int64]bool{1: true, 2: true, 3: false} {
		var n atomic.Int64
		spoil := changed(manifest.Digest(big), big)
		r.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, manifest.Digest(big)) || n.Add(1) > spoiled {
				return false
			}
			return spoil(w, r)
		})
		pulled, err := tryPull(t, ref, PullOptions{Output: t.TempDir()})
		var wrong *verify.ContentError
		switch {
		case !ok && !errors.As(err, &wrong):
			t.Errorf("spoiled %d times: %v", spoiled, err)
		case ok && err != nil:
			t.Errorf("spoiled %d times: %v", spoiled, err)
		case ok && !bytes.Equal(joined(t, pulled.Path), joined(t, p.path)):
			t.Errorf("spoiled %d times: another file came", spoiled)
		}
	}
}
