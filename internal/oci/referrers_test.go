package oci_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/internal/oci/ocitest"
	"github.com/sealift/sealift/manifest"
)

func digests(list []oci.Listed) []string {
	var all []string
	for _, l := range list {
		all = append(all, l.Digest)
	}
	return all
}

// TestReferrers: what is put is listed, by us and by another client, whatever the registry can.
func TestReferrers(t *testing.T) {
	ctx := context.Background()
	for _, kind := range ocitest.Kinds {
		t.Run(kind, func(t *testing.T) {
			r := ocitest.New(t, kind)
			repo := r.Open(t, "shop/app")
			if list, _, err := repo.Referrers(ctx, d1); err != nil || len(list) != 0 {
				t.Fatalf("of a repository that is not there: %v, %v", list, err)
			}
			subject := ocitest.Image(t, repo, "1", "amd64", "app")
			if list, viaAPI, err := repo.Referrers(ctx, subject); err != nil || len(list) != 0 || viaAPI != (kind == ocitest.WithAPI) {
				t.Fatalf("%v %t, %v", list, viaAPI, err)
			}
			want := []string{
				ocitest.Attach(t, repo, subject, "application/a", ocitest.SBOM("a")),
				ocitest.Attach(t, repo, subject, "application/b", ocitest.SBOM("b")),
			}
			slices.Sort(want)
			list, viaAPI, err := repo.Referrers(ctx, subject)
			if err != nil || viaAPI != (kind == ocitest.WithAPI) || !slices.Equal(digests(list), want) {
				t.Fatalf("%v %t %v, want %v", digests(list), viaAPI, err, want)
			}
			ref, err := name.NewDigest(r.Addr + "/shop/app@" + subject)
			if err != nil {
				t.Fatal(err)
			}
			idx, err := remote.Referrers(ref)
			if err != nil {
				t.Fatal(err)
			}
			m, err := idx.IndexManifest()
			if err != nil || len(m.Manifests) != 2 {
				t.Fatalf("%+v, %v", m, err)
			}
			if kind == ocitest.WithoutAPI && m.Manifests[0].ArtifactType != "application/a" {
				t.Errorf("%+v", m.Manifests[0])
			}
			// Once more changes nothing.
			c, err := repo.Manifest(ctx, want[0])
			if err != nil {
				t.Fatal(err)
			}
			r.Requests()
			if err := repo.PutReferrer(ctx, c); err != nil {
				t.Fatal(err)
			}
			if n := ocitest.Writes(r.Requests()); n != 1 {
				t.Errorf("%d writing requests, want 1", n)
			}
		})
	}
}

// TestFallbackTagKeepsWhatItHas: what others have put into the list stays, with what we do not know.
func TestFallbackTagKeepsWhatItHas(t *testing.T) {
	ctx := context.Background()
	r := ocitest.New(t, ocitest.WithoutAPI)
	repo := r.Open(t, "a")
	subject := ocitest.Image(t, repo, "1", "amd64", "app")
	theirs := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":7,"new":{"kept":true}}],"annotations":{"a":"b"}}`,
		ocitest.MediaTypeIndex, ocitest.MediaTypeManifest, d3)
	ocitest.PutManifest(t, repo, oci.ReferrersTag(subject), ocitest.MediaTypeIndex, theirs)
	mine := ocitest.Attach(t, repo, subject, "application/a", ocitest.SBOM("a"))
	c, err := repo.Manifest(ctx, oci.ReferrersTag(subject))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"new":{"kept":true}`, `"annotations":{"a":"b"}`, d3, mine} {
		if !strings.Contains(string(c.Raw), want) {
			t.Errorf("%s is not in %s", want, c.Raw)
		}
	}
	// A tag that is something else altogether is not touched.
	other := ocitest.Image(t, repo, "2", "amd64", "other")
	ocitest.Image(t, repo, oci.ReferrersTag(other), "amd64", "third")
	if _, _, err := repo.Referrers(ctx, other); !errors.Is(err, oci.ErrUnsupported) {
		t.Errorf("%v", err)
	}
	if err := repo.PutReferrer(ctx, ocitest.Content(ocitest.MediaTypeManifest, ocitest.Artifact(t, repo, other, "application/a"))); !errors.Is(err, oci.ErrUnsupported) {
		t.Errorf("%v", err)
	}
}

// TestConcurrentWriters: whoever overwrites the list between our writing and our looking does not
// make us lose what we wrote.
func TestConcurrentWriters(t *testing.T) {
	r := ocitest.New(t, ocitest.WithoutAPI)
	repo := r.Open(t, "a")
	subject := ocitest.Image(t, repo, "1", "amd64", "app")
	first := ocitest.Attach(t, repo, subject, "application/a", ocitest.SBOM("first"))
	before, err := repo.Manifest(context.Background(), oci.ReferrersTag(subject))
	if err != nil {
		t.Fatal(err)
	}
	other := r.Open(t, "a")
	var once sync.Once
	puts := 0
	r.Intercept(func(_ http.ResponseWriter, req *http.Request) bool {
		if req.Method != http.MethodPut || !strings.HasSuffix(req.URL.Path, oci.ReferrersTag(subject)) {
			if puts == 1 && req.Method == http.MethodHead && strings.HasSuffix(req.URL.Path, oci.ReferrersTag(subject)) {
				once.Do(func() { ocitest.PutManifest(t, other, oci.ReferrersTag(subject), before.MediaType, before.Raw) })
			}
			return false
		}
		puts++
		return false
	})
	second := ocitest.Attach(t, repo, subject, "application/a", ocitest.SBOM("second"))
	r.Intercept(nil)
	list, _, err := repo.Referrers(context.Background(), subject)
	if err != nil || !slices.Contains(digests(list), first) || !slices.Contains(digests(list), second) {
		t.Fatalf("%v, %v", digests(list), err)
	}
}

// answering is a repository whose referrers are whatever answer says.
func answering(t *testing.T, answer func(w http.ResponseWriter, r *http.Request)) *oci.Repository {
	t.Helper()
	r := ocitest.New(t, ocitest.WithoutAPI)
	repo := r.Open(t, "a")
	r.Intercept(func(w http.ResponseWriter, req *http.Request) bool {
		if !strings.Contains(req.URL.Path, "/referrers/") {
			return false
		}
		answer(w, req)
		return true
	})
	return repo
}

func page(digests ...string) string {
	var items []string
	for _, d := range digests {
		items = append(items, fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":1}`, ocitest.MediaTypeManifest, d))
	}
	return `{"schemaVersion":2,"manifests":[` + strings.Join(items, ",") + `]}`
}

func TestPagesOfReferrers(t *testing.T) {
	repo := answering(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", ocitest.MediaTypeIndex)
		switch r.URL.Query().Get("p") {
		case "":
			w.Header().Set("Link", `<https://elsewhere.example/>; rel="prev", </v2/a/referrers/`+d1+`?p=2>; rel="next"`)
			fmt.Fprint(w, page(d3, d2))
		case "2":
			fmt.Fprint(w, page(d2, d1))
		}
	})
	list, viaAPI, err := repo.Referrers(context.Background(), d1)
	if err != nil || !viaAPI || !slices.Equal(digests(list), []string{d1, d2, d3}) {
		t.Fatalf("%v %t %v", digests(list), viaAPI, err)
	}
}

// TestHostileReferrers: answers that are none of a list of referrers, or too much of one.
func TestHostileReferrers(t *testing.T) {
	many := strings.TrimSuffix(strings.Repeat(d1+" ", 5000), " ")
	for name, c := range map[string]struct {
		answer func(w http.ResponseWriter, r *http.Request)
		// api says that the answer counts as one of the API, so that the tag is not asked.
		api, fails bool
	}{
		"not found":        {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) }, false, false},
		"bad request":      {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(400) }, false, false},
		"no such method":   {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(405) }, false, false},
		"not implemented":  {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(501) }, false, false},
		"a web page":       {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }, false, false},
		"another document": {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"errors":[]}`) }, false, false},
		"denied":           {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) }, true, true},
		"too large":        {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, page(d1), strings.Repeat(" ", 5<<20)) }, true, true},
		"too many":         {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, page(strings.Fields(many)...)) }, true, true},
		"bad digest":       {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, page("sha256:../../x")) }, true, true},
		"negative size": {func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, strings.Replace(page(d1), `"size":1`, `"size":-1`, 1))
		}, true, true},
		"no end": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", `<`+r.URL.Path+`>; rel=next`)
			fmt.Fprint(w, page())
		}, true, true},
		"elsewhere": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Link", `<http://127.0.0.1:1/v2/>; rel="next"`)
			fmt.Fprint(w, page())
		}, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			repo := answering(t, c.answer)
			list, viaAPI, err := repo.Referrers(context.Background(), d1)
			if len(list) > 0 || (err != nil) != c.fails || err == nil && viaAPI != c.api {
				t.Fatalf("%d %t, %v", len(list), viaAPI, err)
			}
			var typed *oci.Error
			if err != nil && !errors.As(err, &typed) {
				t.Errorf("%v is no *Error", err)
			}
		})
	}
}

// signatures is what cosign stores under a tag, with its config.
func signatures(t *testing.T, repo *oci.Repository, layers ...ocitest.Layer) *oci.Signatures {
	t.Helper()
	c := ocitest.Content(ocitest.MediaTypeManifest, ocitest.Signatures(t, repo, layers...))
	img, err := oci.ParseImage(c.Raw)
	if err != nil {
		t.Fatal(err)
	}
	config, err := repo.ReadBlob(context.Background(), img.Config, oci.MaxConfigBytes)
	if err != nil {
		t.Fatal(err)
	}
	return &oci.Signatures{Content: c, Config: config}
}

func TestMergeSignatures(t *testing.T) {
	repo := ocitest.New(t, ocitest.WithoutAPI).Open(t, "a")
	// All signatures of one image are over the same payload.
	layer := func(signature string) ocitest.Layer {
		return ocitest.Layer{MediaType: ocitest.MediaTypeSimpleSigning, Content: []byte("payload"), Annotations: map[string]string{"dev.cosignproject.cosign/signature": signature}}
	}
	a, b, both := signatures(t, repo, layer("a")), signatures(t, repo, layer("b")), signatures(t, repo, layer("a"), layer("b"))
	for name, c := range map[string]struct{ ours, theirs, want *oci.Signatures }{
		"the same":            {a, a, a},
		"theirs has all":      {a, both, both},
		"ours has all":        {both, b, both},
		"of each one":         {b, a, both},
		"each with something": {a, b, nil},
	} {
		got, err := oci.MergeSignatures(c.ours, c.theirs)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if c.want != nil && c.want != both && got != c.want {
			t.Errorf("%s: not one of the two", name)
		}
		img, err := oci.ParseImage(got.Raw)
		if err != nil || manifest.Digest(got.Config) != img.Config.Digest || int64(len(got.Config)) != img.Config.Size {
			t.Errorf("%s: config %v, %v", name, img, err)
		}
		var config struct {
			History []any
			RootFS  struct {
				DiffIDs []string `json:"diff_ids"`
			}
		}
		if err := json.Unmarshal(got.Config, &config); err != nil || len(config.RootFS.DiffIDs) != len(img.Layers) || len(config.History) != len(img.Layers) {
			t.Errorf("%s: config %s, %v", name, got.Config, err)
		}
		// What was merged once is merged.
		again, err := oci.MergeSignatures(c.ours, got)
		if err != nil || !bytes.Equal(again.Raw, got.Raw) {
			t.Errorf("%s: merged again it is another one: %v", name, err)
		}
	}
	got, err := oci.MergeSignatures(b, a)
	if err != nil || !bytes.Equal(got.Raw, mustMerge(t, b, a).Raw) {
		t.Errorf("not deterministic: %v", err)
	}
	if strings.Index(string(got.Raw), `signature":"a"`) > strings.Index(string(got.Raw), `signature":"b"`) {
		t.Errorf("theirs does not come first: %s", got.Raw)
	}
	// An artifact whose config is none of an image keeps it.
	bare := func(text string) *oci.Signatures {
		return &oci.Signatures{Content: ocitest.Content(ocitest.MediaTypeManifest, ocitest.Artifact(t, repo, "", "application/x", ocitest.SBOM(text))), Config: []byte("{}")}
	}
	if got, err = oci.MergeSignatures(bare("1"), bare("2")); err != nil || string(got.Config) != "{}" {
		t.Errorf("%v", err)
	}
	index := &oci.Signatures{Content: &oci.Content{Raw: index}}
	if _, err := oci.MergeSignatures(a, index); err == nil {
		t.Error("an index was merged")
	}
}

func mustMerge(t *testing.T, ours, theirs *oci.Signatures) *oci.Signatures {
	t.Helper()
	s, err := oci.MergeSignatures(ours, theirs)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// FuzzMergeSignatures: no manifest or config makes it panic, and what comes out can be read, holds
// all of ours, and is not merged any further.
func FuzzMergeSignatures(f *testing.F) {
	layer := `{"mediaType":"a/b","digest":"` + d1 + `","size":1,"annotations":{"k":"v"}}`
	m := `{"schemaVersion":2,"config":{"mediaType":"a/b","digest":"` + d2 + `","size":2},"layers":[` + layer + `]}`
	config := `{"rootfs":{"type":"layers","diff_ids":["` + d1 + `"]},"history":[{}]}`
	f.Add(m, strings.Replace(m, `"v"`, `"w"`, 1), config, config)
	f.Add(m, m, "", "{}")
	f.Add(m, strings.Replace(m, `"layers"`, `"Layers"`, 1), "null", `{"rootfs":null}`)
	f.Fuzz(func(t *testing.T, ours, theirs, ourConfig, theirConfig string) {
		us := &oci.Signatures{Content: ocitest.Content(ocitest.MediaTypeManifest, []byte(ours)), Config: []byte(ourConfig)}
		them := &oci.Signatures{Content: ocitest.Content(ocitest.MediaTypeManifest, []byte(theirs)), Config: []byte(theirConfig)}
		got, err := oci.MergeSignatures(us, them)
		if err != nil {
			return
		}
		missing, _, err := oci.MissingSignatures(us.Content, got.Content)
		if err != nil || missing != 0 {
			t.Fatalf("%d are missing in %s, %v", missing, got.Raw, err)
		}
		if again, err := oci.MergeSignatures(us, got); err != nil || again != got {
			t.Fatalf("merged again: %v", err)
		}
	})
}

// FuzzParseArtifact: no manifest makes it panic, and a subject is a digest.
func FuzzParseArtifact(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"artifactType":"a/b","config":{"mediaType":"a/b","digest":"` + d2 + `","size":2},"layers":[],"subject":{"digest":"` + d1 + `"}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		a, err := oci.ParseArtifact(raw)
		if err == nil && a.Subject != "" && manifest.CheckDigest(a.Subject) != nil {
			t.Fatalf("subject %q", a.Subject)
		}
	})
}

// roundTripper answers requests without a network.
type roundTripper func(*http.Request) *http.Response

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) {
	resp := f(r)
	resp.Request = r
	return resp, nil
}

// FuzzReferrers: no answer makes it panic or go on for ever, and what is listed has a digest.
func FuzzReferrers(f *testing.F) {
	f.Add([]byte(page(d1, d2)), `</v2/a/referrers/x?p=2>; rel="next"`)
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"digest":"`+d1+`","size":1e3,"annotations":{"a":"b"}}]}`), `<;>,<%zz>; rel=next`)
	f.Add([]byte(`<html>`), "")
	f.Fuzz(func(t *testing.T, body []byte, link string) {
		client := oci.NewClient(oci.Options{Side: "registry", Transport: roundTripper(func(r *http.Request) *http.Response {
			resp := &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: http.NoBody}
			switch {
			case strings.Contains(r.URL.Path, "/referrers/"):
				resp.Body = io.NopCloser(bytes.NewReader(body))
				resp.Header.Set("Link", link)
			case strings.Contains(r.URL.Path, "/manifests/"):
				resp.StatusCode = http.StatusNotFound
			}
			return resp
		})})
		repo, err := client.Repository(context.Background(), "127.0.0.1:1", "a", false)
		if err != nil {
			t.Fatal(err)
		}
		list, _, err := repo.Referrers(context.Background(), d1)
		for _, l := range list {
			if err != nil || manifest.CheckDigest(l.Digest) != nil || l.Size < 0 {
				t.Fatalf("listed %+v, %v", l, err)
			}
		}
	})
}
