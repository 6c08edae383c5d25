package chart

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"

	helmregistry "helm.sh/helm/v4/pkg/registry"

	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/internal/oci/ocitest"
	"github.com/sealift/sealift/manifest"
)

// registryOCI reads charts the way package bundle does.
type registryOCI struct{ client *oci.Client }

func (r registryOCI) open(ctx context.Context, repository string) (*oci.Repository, error) {
	host, path, _ := strings.Cut(repository, "/")
	return r.client.Repository(ctx, host, path, false)
}

func (r registryOCI) Tags(ctx context.Context, repository string) ([]string, error) {
	repo, err := r.open(ctx, repository)
	if err != nil {
		return nil, err
	}
	return repo.Tags(ctx)
}

func (r registryOCI) Pull(ctx context.Context, repository, identifier string) (*OCIChart, error) {
	repo, err := r.open(ctx, repository)
	if err != nil {
		return nil, err
	}
	c, err := repo.Manifest(ctx, identifier)
	if err != nil {
		return nil, err
	}
	var m struct {
		Config manifest.Descriptor
		Layers []manifest.Descriptor
	}
	if err := json.Unmarshal(c.Raw, &m); err != nil {
		return nil, err
	}
	oc := &OCIChart{Digest: c.Digest, Manifest: c.Raw}
	if oc.Config, err = repo.ReadBlob(ctx, m.Config, 1<<20); err != nil {
		return nil, err
	}
	for _, l := range m.Layers {
		data, err := repo.ReadBlob(ctx, l, MaxArchive)
		if err != nil {
			return nil, err
		}
		switch l.MediaType {
		case mediaTypeProvenance:
			oc.Provenance = data
		default:
			oc.Archive = data
		}
	}
	return oc, nil
}

// push does what helm push does.
func push(t testing.TB, addr, path string, archive, provenance []byte) {
	t.Helper()
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	client, err := helmregistry.NewClient(helmregistry.ClientOptPlainHTTP(), helmregistry.ClientOptWriter(io.Discard),
		helmregistry.ClientOptCredentialsFile(filepath.Join(t.TempDir(), "config.json")))
	if err != nil {
		t.Fatal(err)
	}
	c, err := Parse(archive)
	if err != nil {
		t.Fatal(err)
	}
	var options []helmregistry.PushOption
	if provenance != nil {
		options = append(options, helmregistry.PushOptProvData(provenance))
	}
	if _, err := client.Push(archive, addr+"/"+path+"/"+c.Name+":"+c.Version, options...); err != nil {
		t.Fatal(err)
	}
}

func TestFetchFromRegistry(t *testing.T) {
	for _, kind := range ocitest.Kinds {
		t.Run(kind, func(t *testing.T) {
			r := ocitest.New(t, kind)
			archives := map[string][]byte{}
			for _, v := range []string{"1.0.0", "1.2.0", "1.10.0", "2.0.0-rc.1", "1.2.0+vendor.2"} {
				archives[v] = archiveOf(t, "shop", v, nil)
				push(t, r.Addr, "team", archives[v], nil)
			}
			repo := r.Open(t, "team/shop")
			content, err := repo.Manifest(t.Context(), "1.10.0")
			if err != nil {
				t.Fatal(err)
			}
			for _, tag := range []string{"latest", "1", "9.9"} { // tags that move
				if err := repo.PutManifest(t.Context(), tag, content); err != nil {
					t.Fatal(err)
				}
			}
			f := &Fetcher{OCI: registryOCI{ocitest.Client()}}
			base := "oci://" + r.Addr + "/team/shop"
			for _, tt := range []struct{ address, ask, want, source string }{
				{base, "", "1.10.0", base + ":1.10.0"},
				{base, "1.0.0", "1.0.0", base + ":1.0.0"},
				{base, "1.2.0+vendor.2", "1.2.0+vendor.2", base + ":1.2.0_vendor.2"},
				{base, "~1.2", "1.2.0+vendor.2", base + ":1.2.0_vendor.2"},
				{base, ">=2-0", "2.0.0-rc.1", base + ":2.0.0-rc.1"},
				{base + ":latest", "", "1.10.0", base + ":latest"},
				{base + ":latest", "^1.2", "1.10.0", base + ":latest"},
				{base + "@" + content.Digest, "", "1.10.0", base + "@" + content.Digest},
				{base + ":1.10.0@" + content.Digest, "1.10.0", "1.10.0", base + ":1.10.0"},
			} {
				got, err := f.Fetch(t.Context(), Location{OCI: tt.address, Version: tt.ask})
				if err != nil {
					t.Errorf("%q %q: %v", tt.address, tt.ask, err)
					continue
				}
				if got.Version != tt.want || got.Source != tt.source || !bytes.Equal(got.Archive, archives[tt.want]) ||
					got.OCI == nil || digestOf(got.OCI.Manifest) != got.OCI.Digest || !bytes.Equal(got.OCI.Archive, got.Archive) || got.Provenance != nil {
					t.Errorf("%q %q: got %s from %q", tt.address, tt.ask, got.Version, got.Source)
				}
			}

			var ve *VersionError
			if _, err := f.Fetch(t.Context(), Location{OCI: base, Version: "^3"}); !errors.As(err, &ve) || ve.Want != "^3" || len(ve.Have) != 5 || ve.Have[0] != "2.0.0-rc.1" {
				t.Errorf("got %v", err)
			}
			if _, err := f.Fetch(t.Context(), Location{OCI: base + ":latest", Version: "1.0.0"}); !errors.As(err, &ve) || ve.Have[0] != "1.10.0" {
				t.Errorf("got %v", err)
			}
			if _, err := f.Fetch(t.Context(), Location{OCI: base, Version: "1.0.1"}); !oci.IsNotFound(err) || !strings.Contains(err.Error(), base) {
				t.Errorf("got %v", err)
			}
			var pe *PinError
			if _, err := f.Fetch(t.Context(), Location{OCI: base, Version: "1.0.0", Pinned: digestOf(archives["1.2.0"])}); !errors.As(err, &pe) {
				t.Errorf("got %v", err)
			}
			if _, err := f.Fetch(t.Context(), Location{OCI: base, Version: "1.0.0", Pinned: digestOf(archives["1.0.0"])}); err != nil {
				t.Error(err)
			}
		})
	}
}

// Some chart repositories have become an index of what is in a registry.
func TestIndexOfRegistry(t *testing.T) {
	reg := ocitest.New(t, ocitest.WithoutAPI)
	archive := archiveOf(t, "shop", "1.2.0+vendor.2", nil)
	push(t, reg.Addr, "team", archive, nil)
	r := newTestRepository(t)
	r.put("shop", "1.2.0+vendor.2", "", "oci://"+reg.Addr+"/team/shop:1.2.0_vendor.2")
	f := r.fetcher()
	f.OCI = registryOCI{ocitest.Client()}
	got, err := f.Fetch(t.Context(), Location{Repo: r.URL + "/charts", Name: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	if got.OCI == nil || !bytes.Equal(got.Archive, archive) || got.Source != r.URL+"/charts shop" {
		t.Errorf("got %+v", got)
	}
}

// lyingOCI is a registry that gives what it likes.
type lyingOCI struct{ chart *OCIChart }

func (lyingOCI) Tags(context.Context, string) ([]string, error)            { return []string{"1.0.0"}, nil }
func (l lyingOCI) Pull(context.Context, string, string) (*OCIChart, error) { return l.chart, nil }
func described(mediaType string, data []byte) string {
	return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, mediaType, digestOf(data), len(data))
}

func ociChartOf(config, archive, provenance []byte, configType string, layers ...string) *OCIChart {
	raw := []byte(fmt.Sprintf(`{"schemaVersion":2,"config":%s,"layers":[%s]}`, described(configType, config), strings.Join(layers, ",")))
	return &OCIChart{Digest: digestOf(raw), Manifest: raw, Config: config, Archive: archive, Provenance: provenance}
}

func TestRegistryGivesNoChart(t *testing.T) {
	archive := archiveOf(t, "shop", "1.0.0", nil)
	config := []byte(`{"name":"shop","version":"1.0.0","apiVersion":"v2"}`)
	prov := []byte("proof")
	layer, proof := described(mediaTypeArchive, archive), described(mediaTypeProvenance, prov)
	good := func() *OCIChart { return ociChartOf(config, archive, prov, mediaTypeConfig, proof, layer) }
	change := func(f func(*OCIChart)) *OCIChart { c := good(); f(c); return c }
	for _, c := range []*OCIChart{
		good(),
		ociChartOf(config, archive, nil, mediaTypeConfig, described(mediaTypeOldArchive, archive)),
		ociChartOf([]byte("{}"), archive, nil, mediaTypeConfig, layer, described("application/x", prov)),
	} {
		got, err := (&Fetcher{OCI: lyingOCI{c}}).Fetch(t.Context(), Location{OCI: "oci://example.com/shop"})
		if err != nil || got.OCI != c || !bytes.Equal(got.Provenance, c.Provenance) {
			t.Errorf("got %v", err)
		}
	}
	tests := []struct {
		name  string
		chart *OCIChart
		want  string
	}{
		{"nothing", nil, "gave nothing"},
		{"an image", ociChartOf(config, archive, nil, "application/vnd.oci.image.config.v1+json", layer), "it is no chart"},
		{"two archives", ociChartOf(config, archive, nil, mediaTypeConfig, layer, layer), "2 layers with an archive"},
		{"no archive", ociChartOf(config, archive, nil, mediaTypeConfig), "0 layers with an archive"},
		{"two proofs", ociChartOf(config, archive, prov, mediaTypeConfig, layer, proof, proof), "2 with provenance"},
		{"a huge proof", ociChartOf(config, archive, make([]byte, MaxProvenance+1), mediaTypeConfig, layer, described(mediaTypeProvenance, make([]byte, MaxProvenance+1))), "more than 1048576 bytes"},
		{"an unnamed proof", ociChartOf(config, archive, prov, mediaTypeConfig, layer), "that the manifest does not name"},
		{"another digest", change(func(c *OCIChart) { c.Digest = digestOf(nil) }), "the manifest has digest"},
		{"another manifest", change(func(c *OCIChart) { c.Manifest = append(c.Manifest, ' ') }), "the manifest has digest"},
		{"another config", change(func(c *OCIChart) { c.Config = []byte("{}") }), "the config has digest"},
		{"another archive", change(func(c *OCIChart) { c.Archive = archiveOf(t, "shop", "1.0.1", nil) }), "the archive has digest"},
		{"another proof", change(func(c *OCIChart) { c.Provenance = []byte("prove") }), "the provenance file has digest"},
		{"a lost proof", change(func(c *OCIChart) { c.Provenance = nil }), "the provenance file has digest"},
		{"a manifest that is none", change(func(c *OCIChart) { c.Manifest = []byte("<html>"); c.Digest = digestOf(c.Manifest) }), "reading the manifest"},
		{"an archive that is none", ociChartOf(config, prov, nil, mediaTypeConfig, described(mediaTypeArchive, prov)), "reading chart archive"},
		{"a config of another chart", ociChartOf([]byte(`{"name":"shop","version":"1.0.1"}`), archive, nil, mediaTypeConfig, layer), `that of chart "shop" 1.0.1`},
		{"a config that is none", ociChartOf([]byte(`{`), archive, nil, mediaTypeConfig, layer), "reading the config"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := (&Fetcher{OCI: lyingOCI{tt.chart}}).Fetch(t.Context(), Location{OCI: "oci://example.com/shop"})
			var le *LoadError
			if !errors.As(err, &le) || le.Path != "oci://example.com/shop" || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v", err)
			}
		})
	}
	var le *LoadError
	if _, err := (&Fetcher{OCI: lyingOCI{good()}}).Fetch(t.Context(), Location{OCI: "oci://example.com/shop@" + digestOf(nil)}); !errors.As(err, &le) || !strings.Contains(err.Error(), digestOf(nil)) {
		t.Errorf("got %v", err)
	}
}

func TestOCIAddresses(t *testing.T) {
	digest := digestOf(nil)
	for address, want := range map[string]ociAddress{
		"oci://example.com/a/shop":                {"example.com/a/shop", "", ""},
		"oci://localhost:5000/shop:1.0.0":         {"localhost:5000/shop", "1.0.0", ""},
		"oci://[::1]:5000/shop:1.0.0_b@" + digest: {"[::1]:5000/shop", "1.0.0_b", digest},
		"oci://example.com/a__b/c.d-e@" + digest:  {"example.com/a__b/c.d-e", "", digest},
	} {
		if got, err := parseOCI(address); err != nil || got != want {
			t.Errorf("%q: got %+v %v", address, got, err)
		}
	}
	for _, address := range []string{
		"example.com/shop", "https://eve:hunter2@example.com/shop", "oci://", "oci://shop", "oci:///shop", "oci://example.com/", "oci://example.com/Shop",
		"oci://example.com/shop:", "oci://example.com/shop:a/b", "oci://example.com/shop@sha256:12", "oci://example.com/shop:+", "oci://eve:hunter2@example.com/shop",
		"oci://eve:hunter2@example.com/shop@" + digest, "oci://example.com/../shop", "oci://example.com/shop?x=y",
	} {
		_, err := (&Fetcher{OCI: lyingOCI{}}).Fetch(t.Context(), Location{OCI: address})
		var le *LoadError
		if !errors.As(err, &le) || strings.Contains(err.Error(), "hunter") {
			t.Errorf("%q: got %v", address, err)
		}
	}
}
