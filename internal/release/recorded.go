package release

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/sealift/sealift/internal/chart"
)

// Recorded is what the cluster has recorded of a revision.
type Recorded struct {
	Revision int
	// Status is Helm's; Chart and Version are those of the chart.
	Status, Chart, Version string
	// Objects is the digest ("sha256:HEX") of Docs and Hooks, without what Secrets hold. Revisions with the same
	// objects have the same one: a revision that went back to another has its.
	Objects string
	// Docs are the objects, Hooks those of hooks and tests. Both may hold Secrets.
	Docs, Hooks []byte
}

// Recorded reads the record of a revision; 0 is the newest that is deployed. It is nil where there is none.
func (c *Cluster) Recorded(ctx context.Context, name, namespace string, revision int) (*Recorded, error) {
	s, err := c.open(ctx, namespace)
	if err != nil {
		return nil, err
	}
	h, err := s.history(name)
	if err != nil {
		return nil, err
	}
	if revision == 0 {
		back := h.back()
		if back == nil {
			return nil, nil
		}
		revision = back.Revision
	}
	r := h.at(revision)
	if r == nil {
		return nil, nil
	}
	state := stateOf(r)
	rec := &Recorded{
		Revision: r.Version, Status: state.Status, Chart: state.Chart, Version: state.Version, Docs: []byte(r.Manifest),
	}
	var hooks bytes.Buffer
	for _, hook := range r.Hooks {
		fmt.Fprintf(&hooks, "---\n# Source: %s\n%s\n", hook.Path, hook.Manifest)
	}
	rec.Hooks = hooks.Bytes()
	sum := sha256.New()
	for _, docs := range [][]byte{rec.Docs, rec.Hooks} {
		shown, err := chart.HideSecrets(docs)
		if err != nil {
			return nil, fmt.Errorf("reading revision %d of release %q: %w", r.Version, name, err)
		}
		// With the length, so that nothing of the one passes for the other.
		_, _ = fmt.Fprintf(sum, "%d\n%s", len(shown), shown) // never fails
	}
	rec.Objects = "sha256:" + hex.EncodeToString(sum.Sum(nil))
	return rec, nil
}
