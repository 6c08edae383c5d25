package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// ErrNotCanonical is wrapped by Parse for bytes that decode, but are not what Encode writes:
// duplicate or differently cased keys, white space, another order, trailing bytes.
var ErrNotCanonical = errors.New("manifest is not in its canonical form")

// ErrUnknownFormat is wrapped by Parse for a document that is no manifest of a known format.
var ErrUnknownFormat = errors.New("unknown bundle format")

// prefix is how every canonical manifest begins. It is compared before the JSON decoder sees
// a byte.
const prefix = `{"mediaType":"` + MediaType + `","format":`

// Encode returns the canonical bytes of m: the members in the order of the type, no white
// space, no HTML escapes, no trailing newline; lists are never null.
func Encode(m *Manifest) ([]byte, error) {
	raw, err := marshal(normal(m))
	if err != nil {
		return nil, fmt.Errorf("encoding manifest: %w", err)
	}
	if len(raw) > MaxManifestBytes {
		return nil, fmt.Errorf("encoding manifest: %d bytes, at most %d are allowed", len(raw), MaxManifestBytes)
	}
	return raw, nil
}

// Parse decodes raw and checks that it is canonical and valid. The caller has proven who
// signed raw: Parse is the first that looks into it.
func Parse(raw []byte) (*Manifest, error) {
	if len(raw) > MaxManifestBytes {
		return nil, fmt.Errorf("parsing manifest: %d bytes, at most %d are allowed", len(raw), MaxManifestBytes)
	}
	if !bytes.HasPrefix(raw, []byte(prefix)) {
		return nil, fmt.Errorf("parsing manifest: does not begin with %q: %w", prefix, ErrUnknownFormat)
	}
	var head struct {
		Format int `json:"format"`
	}
	// Only the number after the prefix is wanted, so that a newer format is named as such
	// rather than as a wrong field.
	dec := json.NewDecoder(io.MultiReader(bytes.NewReader([]byte(`{"format":`)), bytes.NewReader(raw[len(prefix):])))
	if err := dec.Decode(&head); err == nil && head.Format != Format {
		return nil, fmt.Errorf("parsing manifest: format %d, this version reads format %d: %w", head.Format, Format, ErrUnknownFormat)
	}
	if err := checkCounts(raw); err != nil {
		return nil, fmt.Errorf("parsing manifest: %w", err)
	}
	m := &Manifest{}
	dec = json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(m); err != nil {
		return nil, fmt.Errorf("parsing manifest: %w", err)
	}
	again, err := marshal(normal(m))
	if err != nil {
		return nil, fmt.Errorf("parsing manifest: %w", err)
	}
	if !bytes.Equal(again, raw) {
		return nil, fmt.Errorf("parsing manifest: differs from its canonical form at byte %d: %w", firstDifference(again, raw), ErrNotCanonical)
	}
	if err := m.Validate(); err != nil {
		return nil, fmt.Errorf("parsing manifest: %w", err)
	}
	return m, nil
}

const (
	// maxListed bounds what is listed at the top, and the lists of Requires.
	maxListed = MaxImages + MaxIgnored + MaxCharts + MaxFiles + MaxParameters + 2*MaxEntries + 3
	// minObject and minValue are how many bytes of a manifest an object and a value take at least,
	// on average: a reason is {"kind":"spec"}, and lists are of platforms.
	minObject, minValue = 15, 5
)

// checkCounts refuses what is no manifest before it is decoded: in memory, an image takes a
// hundred times as much as the "{}," that could stand for it.
func checkCounts(raw []byte) error {
	var depth, listed, objects, values int
	quoted := false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case c == '"':
			quoted = !quoted
		case quoted && c == '\\':
			i++
		case quoted:
		case c == '{' || c == '[':
			if depth++; c == '{' {
				objects++
			}
			if depth == 3 {
				listed++
			}
		case c == '}' || c == ']':
			depth--
		case c == ',':
			values++
		}
	}
	if listed > maxListed || objects > len(raw)/minObject || values > len(raw)/minValue {
		return fmt.Errorf("%d lists and objects, %d objects, %d values in %d bytes: %w", listed, objects, values, len(raw), ErrInvalid)
	}
	return nil
}

func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// normal returns m with empty lists for nil ones, so that there is one encoding of "none".
func normal(m *Manifest) *Manifest {
	n := *m
	n.Platforms = orEmpty(n.Platforms)
	n.Images, n.Artifacts = normalImages(n.Images), normalImages(n.Artifacts)
	n.Ignored = slices.Clone(n.Ignored)
	for i := range n.Ignored {
		n.Ignored[i].Reasons = orEmpty(n.Ignored[i].Reasons)
	}
	n.Charts = append([]Chart{}, n.Charts...)
	for i := range n.Charts {
		n.Charts[i].Values = orEmpty(n.Charts[i].Values)
		n.Charts[i].Environments = normalEnvironments(n.Charts[i].Environments)
	}
	n.Parameters = slices.Clone(n.Parameters)
	for i := range n.Parameters {
		n.Parameters[i].Values = orEmpty(n.Parameters[i].Values)
	}
	n.Blobs = orEmpty(n.Blobs)
	n.Entries = orEmpty(n.Entries)
	return &n
}

func normalImages(images []Image) []Image {
	n := append([]Image{}, images...)
	for i := range n {
		n[i].Platforms = orEmpty(n[i].Platforms)
		n[i].Reasons = orEmpty(n[i].Reasons)
	}
	return n
}

func orEmpty[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

func firstDifference(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}
