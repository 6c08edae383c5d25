package install

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/sealift/sealift/internal/chart"
	"github.com/sealift/sealift/internal/redact"
	"github.com/sealift/sealift/manifest"
)

// SaidMediaType is the first member of what is kept of what a site has said.
const SaidMediaType = "application/vnd.sealift.said.v1+json"

// MaxSaidBytes bounds what is kept of what a site has said.
const MaxSaidBytes = 512 << 10

// kept is what a site has said for an earlier version.
type kept struct {
	environment string
	parameters  map[string]string
	secrets     map[string]SecretKey
	// values are by "NAMESPACE/RELEASE".
	values map[string]map[string]any
}

// saidDocument is how it is written.
type saidDocument struct {
	MediaType   string                     `json:"mediaType"`
	Environment string                     `json:"environment,omitempty"`
	Parameters  map[string]string          `json:"parameters,omitempty"`
	Secrets     map[string]string          `json:"secrets,omitempty"`
	Values      map[string]json.RawMessage `json:"values,omitempty"`
}

// Over returns s with what was said before where s says nothing: for each parameter, and for each path of
// the values of a release. An environment that s chooses takes the place of the one before.
func (s Site) Over(before Site) Site {
	old := before.whole()
	for name := range s.Parameters {
		delete(old.parameters, name)
		delete(old.secrets, name)
	}
	for name := range s.Secrets {
		delete(old.parameters, name)
		delete(old.secrets, name)
	}
	if s.Environment != "" {
		old.environment = ""
	}
	s.kept = old
	return s
}

// whole is all that s says, with what was said before it. Secrets are named, not repeated. Values that do not
// merge are left out: they do not get as far as being kept.
func (s Site) whole() kept {
	k := kept{environment: s.Chosen(), parameters: map[string]string{}, secrets: map[string]SecretKey{}, values: map[string]map[string]any{}}
	maps.Copy(k.parameters, s.kept.parameters)
	maps.Copy(k.parameters, s.Parameters)
	maps.Copy(k.secrets, s.kept.secrets)
	maps.Copy(k.secrets, s.Secrets)
	for release := range s.releases() {
		if values, err := s.overlay(release); err == nil && len(values) > 0 {
			k.values[release] = values
		}
	}
	return k
}

// Texts are what the site says about parameters as texts, now and before.
func (s Site) Texts() map[string]string { return s.whole().parameters }

// minSecretText is how long a text in values is, in bytes, that is taken for a secret for its name: shorter ones stand everywhere.
const minSecretText = 6

// SecretTexts are the texts in the site's own values, now and before, that stand under names of secrets, such as adminPassword. Values
// of charts are no place for secrets; where they are there all the same, they need not be printed.
func (s Site) SecretTexts() []string {
	var all []string
	var walk func(v any, under string)
	walk = func(v any, under string) {
		switch v := v.(type) {
		case map[string]any:
			for key, inner := range v {
				walk(inner, key)
			}
		case []any:
			for _, inner := range v {
				walk(inner, under)
			}
		case string:
			// What exists already is named there, and is no secret.
			if len(v) >= minSecretText && redact.IsName(under) && !strings.Contains(strings.ToLower(under), "existing") {
				all = append(all, v)
			}
		}
	}
	for _, values := range s.whole().values {
		walk(values, "")
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// releases are those that the site has values for.
func (s Site) releases() map[string]bool {
	all := map[string]bool{}
	for release := range s.kept.values {
		all[release] = true
	}
	for release := range s.Values {
		all[release] = true
	}
	for release := range s.Set {
		all[release] = true
	}
	return all
}

// Chosen is the environment that was chosen, now or before; empty for none.
func (s Site) Chosen() string {
	if s.Environment != "" {
		return s.Environment
	}
	return s.kept.environment
}

// Keep is what the site has said, now and before, for the next upgrade, nil for nothing: a document for the
// cluster's Secrets. It holds secrets that were said as texts. Errors are *KeptError and those of the site's
// values.
func (s Site) Keep() ([]byte, error) {
	for release := range s.releases() {
		if _, err := s.overlay(release); err != nil {
			return nil, err
		}
	}
	k := s.whole()
	d := saidDocument{MediaType: SaidMediaType, Environment: k.environment, Parameters: k.parameters, Secrets: map[string]string{}, Values: map[string]json.RawMessage{}}
	for name, key := range k.secrets {
		d.Secrets[name] = key.String()
	}
	for release, values := range k.values {
		raw, err := json.Marshal(values)
		if err != nil {
			return nil, &KeptError{fmt.Errorf("values of release %s: %w", release, err)}
		}
		d.Values[release] = raw
	}
	if d.Environment == "" && len(d.Parameters)+len(d.Secrets)+len(d.Values) == 0 {
		return nil, nil
	}
	raw, err := json.Marshal(d)
	if err != nil {
		return nil, &KeptError{err}
	}
	if len(raw) > MaxSaidBytes {
		return nil, &KeptError{fmt.Errorf("%d bytes, at most %d are kept", len(raw), MaxSaidBytes)}
	}
	return raw, nil
}

// Fit leaves out of what was said before what a bundle does not know any more: parameters, and values of
// releases. It returns what that was, a line each.
func (s Site) Fit(m *manifest.Manifest) (Site, []string) {
	k := s.kept
	k.parameters, k.secrets, k.values = maps.Clone(k.parameters), maps.Clone(k.secrets), maps.Clone(k.values)
	var gone []string
	parameter := func(name string) bool {
		return slices.ContainsFunc(m.Parameters, func(p manifest.Parameter) bool { return p.Name == name })
	}
	release := func(key string) bool {
		return slices.ContainsFunc(m.Charts, func(c manifest.Chart) bool { return c.Key() == key })
	}
	dropParameter := func(name string) {
		gone = append(gone, fmt.Sprintf("parameter %q was said for an earlier version, and this one does not have it any more", name))
	}
	for _, name := range slices.Sorted(maps.Keys(k.parameters)) {
		if !parameter(name) {
			delete(k.parameters, name)
			dropParameter(name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(k.secrets)) {
		if !parameter(name) {
			delete(k.secrets, name)
			dropParameter(name)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(k.values)) {
		if !release(key) {
			delete(k.values, key)
			gone = append(gone, fmt.Sprintf("values of release %s were said for an earlier version, and this one does not have it any more", key))
		}
	}
	s.kept = k
	return s, gone
}

// ReadKept reads a document that [Site.Keep] has made. Errors are *KeptError.
func ReadKept(raw []byte) (Site, error) {
	s, err := readKept(raw)
	if err != nil {
		return Site{}, &KeptError{err}
	}
	return s, nil
}

func readKept(raw []byte) (Site, error) {
	if len(raw) > MaxSaidBytes {
		return Site{}, fmt.Errorf("%d bytes, at most %d are read", len(raw), MaxSaidBytes)
	}
	var d saidDocument
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil {
		return Site{}, hideContent(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Site{}, errors.New("something follows the document")
	}
	if d.MediaType != SaidMediaType {
		return Site{}, fmt.Errorf("media type %q, want %q", d.MediaType, SaidMediaType)
	}
	if d.Environment != "" {
		if err := manifest.CheckEnvironmentName(d.Environment); err != nil {
			return Site{}, err
		}
	}
	s := Site{kept: kept{environment: d.Environment, parameters: map[string]string{}, secrets: map[string]SecretKey{}, values: map[string]map[string]any{}}}
	for name, text := range d.Parameters {
		if err := manifest.CheckParameterName(name); err != nil {
			return Site{}, err
		}
		s.kept.parameters[name] = text
	}
	for name, text := range d.Secrets {
		if err := manifest.CheckParameterName(name); err != nil {
			return Site{}, err
		}
		key, err := ParseSecretKey(text)
		if err != nil {
			return Site{}, err
		}
		if _, twice := s.kept.parameters[name]; twice {
			return Site{}, fmt.Errorf("parameter %q twice", name)
		}
		s.kept.secrets[name] = key
	}
	for release, raw := range d.Values {
		values, err := chart.MergeValues([]chart.ValuesFile{{Name: keptName, Data: raw}})
		if err != nil {
			return Site{}, fmt.Errorf("values of release %q cannot be read", release)
		}
		s.kept.values[release] = values
	}
	return s, nil
}

// keptName stands for a values file.
const keptName = "(kept)"

// hideContent says that a document cannot be read, without what it holds.
func hideContent(err error) error {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return fmt.Errorf("not JSON (at byte %d)", syntax.Offset)
	}
	var kind *json.UnmarshalTypeError
	if errors.As(err, &kind) {
		return fmt.Errorf("%s is not what it must be (at byte %d)", kind.Field, kind.Offset)
	}
	return errors.New("not a document of what a site has said")
}
