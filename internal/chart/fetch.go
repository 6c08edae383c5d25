package chart

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Location says where a chart is: in exactly one of Path, OCI, and Repo with Name.
type Location struct {
	// Path of a directory or .tgz on this machine.
	Path string
	// OCI is "oci://REGISTRY/REPOSITORY[:TAG][@sha256:…]".
	OCI string
	// Repo is the address of a chart repository, http or https, Name the chart's name there.
	Repo, Name string
	// Version is a version or a range. Empty: for a repository the newest release; for OCI the tag
	// of the address, or the newest release; for a path whatever it is.
	Version string
	// Pinned demands exactly these bytes: the archive's digest, or for a directory that of the
	// archive that is made of it. Empty for none.
	Pinned string
	// Dependencies pin those that are fetched for a directory.
	Dependencies []Dependency
	// Keyring holds OpenPGP public keys, armored or binary, one of which must have signed the
	// provenance file; nil demands none.
	Keyring []byte
}

// Dependency is a chart that was fetched for another one.
type Dependency struct {
	Name string `json:"name"`
	// Version that was chosen.
	Version string `json:"version"`
	// Repository as Chart.yaml has it.
	Repository string `json:"repository,omitempty"`
	// Digest of its archive.
	Digest string `json:"digest"`
}

// Fetched is a chart and where it came from.
type Fetched struct {
	*Chart
	// Source is "oci://REGISTRY/REPOSITORY:TAG" ("…@sha256:…" where the address has a digest and no
	// tag), or "https://REPOSITORY NAME"; empty for a path. It carries neither user nor password.
	Source string
	// OCI is what a registry has, where the chart came from one, also by way of the index of a
	// chart repository.
	OCI *OCIChart
	// Provenance is the provenance file, if there is one, SignedBy the fingerprint of the key that
	// it was proven with, in upper-case hex, where a keyring was given.
	Provenance []byte
	SignedBy   string
	// Dependencies are what was fetched for a directory, in the order of Chart.yaml; what a
	// dependency in another directory needed itself comes right before it.
	Dependencies []Dependency

	// file is the name that the archive has where it came from.
	file string
}

// OCIChart is a chart as a registry has it.
type OCIChart struct {
	// Repository is "REGISTRY/REPOSITORY"; Fetch sets it.
	Repository string
	// Digest and bytes of the manifest.
	Digest   string
	Manifest []byte
	Config   []byte
	Archive  []byte
	// Provenance is nil where there is none.
	Provenance []byte
}

// OCI reads charts from registries. What is wrong with the network or the registry is its error.
type OCI interface {
	// Tags lists the tags of "REGISTRY/REPOSITORY".
	Tags(ctx context.Context, repository string) ([]string, error)
	// Pull reads the chart that a tag or digest ("sha256:…") of "REGISTRY/REPOSITORY" leads to.
	Pull(ctx context.Context, repository, identifier string) (*OCIChart, error)
}

// Fetcher brings charts from where specs, and other charts, say that they are. It reads the index
// of a chart repository once in its life. It can be used from many goroutines.
type Fetcher struct {
	// HTTP speaks with chart repositories. It brings credentials and certificates by itself.
	HTTP *http.Client
	// OCI reads from registries.
	OCI OCI
	// Now is when the keys that signed provenance files must be valid; nil for the machine's clock.
	Now func() time.Time

	mu      sync.Mutex
	indexes map[string]*lazyIndex // by address
}

// Fetch brings a chart.
//
// Nothing is written: the dependencies that a directory lacks go into the archive that is made of
// it, by the versions of its Chart.lock where it has one, else the newest that Chart.yaml admits. An
// archive travels as it is; what a .tgz lacks is a *[MissingDependenciesError].
//
// Provenance is taken along where there is one, and checked where there is a keyring.
//
// Errors are *[AmbiguousError], *[RangeError], *[VersionError], *[PinError], *[ProvenanceError],
// *[RepositoryError], *[DependencyError], *[LibraryError], those of [Load], and those of OCI.
func (f *Fetcher) Fetch(ctx context.Context, l Location) (*Fetched, error) {
	if err := l.check(); err != nil {
		return nil, err
	}
	want, err := newSelector(l.Version)
	if err != nil {
		return nil, err
	}
	proof := takeProvenance
	if l.Keyring != nil {
		proof = demandProvenance
	}
	var got *Fetched
	switch {
	case l.Path != "":
		got, err = f.fromPath(ctx, l)
	case l.OCI != "":
		got, err = f.fromOCI(ctx, l.OCI, want)
	default:
		got, err = f.fromRepository(ctx, l.Repo, l.Name, want, proof)
	}
	if err != nil {
		return nil, err
	}
	if err := f.check(got, l, want); err != nil {
		return nil, err
	}
	return got, nil
}

// check compares what came with what was asked for.
func (f *Fetcher) check(got *Fetched, l Location, want selector) error {
	if !want.matches(got.Version) {
		return want.none(got.Name, []string{got.Version})
	}
	if digest := digestOf(got.Archive); l.Pinned != "" && digest != l.Pinned {
		return &PinError{Chart: got.Name, Got: digest, Want: l.Pinned}
	}
	ch, err := got.HelmChart()
	if err != nil {
		return err
	}
	if ch.Metadata.Type == "library" {
		return &LibraryError{Chart: got.Name}
	}
	if l.Keyring == nil {
		return nil
	}
	got.SignedBy, err = f.checkProvenance(got, l.Keyring)
	return err
}

func (l Location) check() error {
	var named []string
	for _, field := range []struct{ name, value string }{{"path", l.Path}, {"oci", l.OCI}, {"repo", l.Repo}, {"chart", l.Name}} {
		if field.value != "" {
			named = append(named, field.name)
		}
	}
	switch {
	case len(named) == 1 && (l.Path != "" || l.OCI != ""), len(named) == 2 && l.Repo != "" && l.Name != "":
		return nil
	}
	return &AmbiguousError{Named: named}
}

func (f *Fetcher) fromPath(ctx context.Context, l Location) (*Fetched, error) {
	info, err := os.Stat(l.Path)
	if err != nil {
		return nil, &LoadError{Path: l.Path, Err: err}
	}
	if info.IsDir() {
		b := directories{fetcher: f, pins: l.Dependencies, packed: map[string]*Chart{}}
		c, err := b.pack(ctx, l.Path, nil)
		if err != nil {
			return nil, err
		}
		if l.Keyring != nil {
			return nil, &ProvenanceError{Chart: c.Name, Err: errors.New("a directory has none; pack and sign it, and name the .tgz")}
		}
		return &Fetched{Chart: c, Dependencies: b.fetched}, nil
	}
	c, err := Load(l.Path)
	if err != nil {
		return nil, err
	}
	got := &Fetched{Chart: c, file: filepath.Base(l.Path)}
	got.Provenance, err = readProvenance(l.Path + ".prov")
	if err != nil {
		return nil, &ProvenanceError{Chart: c.Name, Err: err}
	}
	return got, nil
}

func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}
