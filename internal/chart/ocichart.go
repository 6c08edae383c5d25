package chart

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// Media types of charts in registries (https://helm.sh/docs/topics/registries/), and the one that
// Helm used before its format had settled.
const (
	mediaTypeConfig     = "application/vnd.cncf.helm.config.v1+json"
	mediaTypeArchive    = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
	mediaTypeOldArchive = "application/tar+gzip"
	mediaTypeProvenance = "application/vnd.cncf.helm.chart.provenance.v1.prov"
)

var (
	ociRepository = regexp.MustCompile(`^[A-Za-z0-9.\-]+(:[0-9]+)?(/[a-z0-9]+([._\-]+[a-z0-9]+)*)+$|^\[[0-9a-fA-F:]+\](:[0-9]+)?(/[a-z0-9]+([._\-]+[a-z0-9]+)*)+$`)
	ociTag        = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}$`)
	ociDigest     = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
)

// ociAddress is "oci://REGISTRY/REPOSITORY[:TAG][@sha256:…]".
type ociAddress struct{ repository, tag, digest string }

func parseOCI(address string) (ociAddress, error) {
	fail := func(shown, reason string) (ociAddress, error) {
		return ociAddress{}, &LoadError{Path: shown, Err: errors.New(reason)}
	}
	rest, ok := strings.CutPrefix(address, "oci://")
	if !ok {
		if strings.Contains(address, "@") {
			address = "…"
		}
		return fail(address, "the address does not begin with oci://")
	}
	var a ociAddress
	a.repository, a.digest, _ = strings.Cut(rest, "@")
	if a.digest != "" && !ociDigest.MatchString(a.digest) {
		// What is before the @ may be a user and a password.
		return fail("oci://…", "what follows the @ is not sha256: and 64 lower-case hexadecimal digits")
	}
	if slash, colon := strings.LastIndex(a.repository, "/"), strings.LastIndex(a.repository, ":"); colon > slash {
		a.repository, a.tag = a.repository[:colon], a.repository[colon+1:]
		if !ociTag.MatchString(a.tag) {
			return fail(address, fmt.Sprintf("%q is no tag", a.tag))
		}
	}
	if !ociRepository.MatchString(a.repository) {
		return fail(address, "want oci://REGISTRY/REPOSITORY[:TAG][@sha256:…]")
	}
	return a, nil
}

// fromOCI brings a chart from a registry.
func (f *Fetcher) fromOCI(ctx context.Context, address string, want selector) (*Fetched, error) {
	a, err := parseOCI(address)
	if err != nil {
		return nil, err
	}
	if f.OCI == nil {
		return nil, &LoadError{Path: address, Err: errors.New("there is no client for registries")}
	}
	identifier := a.digest
	if identifier == "" {
		if a.tag == "" {
			if a.tag, err = f.chooseTag(ctx, a.repository, want); err != nil {
				return nil, err
			}
		}
		identifier = a.tag
	}
	oc, err := f.OCI.Pull(ctx, a.repository, identifier)
	if err != nil {
		return nil, fmt.Errorf("fetching chart %q: %w", address, err)
	}
	c, err := oc.parse(a.digest)
	var incomplete *MissingDependenciesError
	switch {
	case errors.As(err, &incomplete):
		return nil, err
	case err != nil:
		return nil, &LoadError{Path: address, Err: err}
	}
	oc.Repository = a.repository
	got := &Fetched{Chart: c, OCI: oc, Provenance: oc.Provenance, Source: "oci://" + a.repository + ":" + a.tag}
	if a.tag == "" {
		got.Source = "oci://" + a.repository + "@" + a.digest
	}
	return got, nil
}

// chooseTag finds the tag of the version that is wanted. Tags cannot have a "+", so Helm writes "_".
func (f *Fetcher) chooseTag(ctx context.Context, repository string, want selector) (string, error) {
	if want.exact != nil {
		return strings.ReplaceAll(want.text, "+", "_"), nil
	}
	tags, err := f.OCI.Tags(ctx, repository)
	if err != nil {
		return "", fmt.Errorf("listing the tags of chart %q: %w", "oci://"+repository, err)
	}
	// Only complete versions: "1.2" is a tag that moves, "sha256-…" is no version at all.
	var kept, versions []string
	for _, tag := range tags {
		if version := strings.ReplaceAll(tag, "_", "+"); exactVersion(version) != nil {
			kept = append(kept, tag)
			versions = append(versions, version)
		}
	}
	i := want.choose(versions)
	if i < 0 {
		return "", want.none("oci://"+repository, versions)
	}
	return kept[i], nil
}

// parse proves that what a registry gave is a chart, and the one of the digest, if that is known.
func (oc *OCIChart) parse(digest string) (*Chart, error) {
	if oc == nil {
		return nil, errors.New("the registry gave nothing")
	}
	got := digestOf(oc.Manifest)
	if got != oc.Digest || digest != "" && got != digest {
		want := oc.Digest
		if digest != "" {
			want = digest
		}
		return nil, fmt.Errorf("the manifest has digest %s, want %s", got, want)
	}
	type descriptor struct {
		MediaType string `json:"mediaType"`
		Digest    string `json:"digest"`
		Size      int64  `json:"size"`
	}
	var m struct {
		Config descriptor   `json:"config"`
		Layers []descriptor `json:"layers"`
	}
	if err := json.Unmarshal(oc.Manifest, &m); err != nil {
		return nil, fmt.Errorf("reading the manifest: %w", err)
	}
	if m.Config.MediaType != mediaTypeConfig {
		return nil, fmt.Errorf("it is no chart: its config has media type %q, want %q", m.Config.MediaType, mediaTypeConfig)
	}
	prove := func(what string, d descriptor, data []byte) error {
		if got := digestOf(data); got != d.Digest || int64(len(data)) != d.Size {
			return fmt.Errorf("the %s has digest %s and %d bytes, want %s and %d", what, got, len(data), d.Digest, d.Size)
		}
		return nil
	}
	var archives, proofs []descriptor
	for _, l := range m.Layers {
		switch l.MediaType {
		case mediaTypeArchive, mediaTypeOldArchive:
			archives = append(archives, l)
		case mediaTypeProvenance:
			proofs = append(proofs, l)
		}
	}
	if len(archives) != 1 || len(proofs) > 1 {
		return nil, fmt.Errorf("the manifest has %d layers with an archive and %d with provenance, want one, and at most one", len(archives), len(proofs))
	}
	err := errors.Join(prove("config", m.Config, oc.Config), prove("archive", archives[0], oc.Archive))
	if len(proofs) == 1 {
		err = errors.Join(err, prove("provenance file", proofs[0], oc.Provenance))
	} else if oc.Provenance != nil {
		err = errors.Join(err, errors.New("there is a provenance file that the manifest does not name"))
	}
	if len(oc.Provenance) > MaxProvenance {
		err = errors.Join(err, fmt.Errorf("the provenance file has more than %d bytes", MaxProvenance))
	}
	if err != nil {
		return nil, err
	}
	c, err := Parse(oc.Archive)
	if err != nil {
		return nil, err
	}
	return c, oc.checkConfig(c)
}

// checkConfig compares the config with the archive: registries show the one, Helm installs the other. Tools
// that are not Helm leave it empty.
func (oc *OCIChart) checkConfig(c *Chart) error {
	var config struct {
		Name    string `json:"name"`
		Version string `json:"version"`
	}
	if err := json.Unmarshal(oc.Config, &config); err != nil {
		return fmt.Errorf("reading the config: %w", err)
	}
	if config.Name != "" && config.Name != c.Name || config.Version != "" && config.Version != c.Version {
		return fmt.Errorf("the config is that of chart %q %s, the archive that of %q %s", config.Name, config.Version, c.Name, c.Version)
	}
	return nil
}
