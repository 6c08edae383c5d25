package cli_test

import (
	"context"
	"crypto"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/internal/oci/ocitest"
	"github.com/sealift/sealift/internal/sigstore"
	"github.com/sealift/sealift/internal/sigstore/sigtest"
)

// scriptTB lets the packages that make material for tests be used in a script.
type scriptTB struct {
	testing.TB
	ts *testscript.TestScript
}

func (t scriptTB) Helper()                        {}
func (t scriptTB) Fatal(a ...any)                 { t.ts.Fatalf("%s", fmt.Sprint(a...)) }
func (t scriptTB) Fatalf(format string, a ...any) { t.ts.Fatalf(format, a...) }

// imageKeys are the private keys that scripts have made, by the path of the public one.
var imageKeys sync.Map

func imageKey(ts *testscript.TestScript, name string) crypto.Signer {
	key, ok := imageKeys.Load(ts.MkAbs(name + ".pub"))
	if !ok {
		ts.Fatalf("no key %q", name)
	}
	return key.(crypto.Signer)
}

// cmdImageKey makes a key to sign images with and writes NAME.pub: imagekey NAME.
func cmdImageKey(ts *testscript.TestScript, _ bool, args []string) {
	key, public := sigtest.NewKey(scriptTB{ts: ts})
	path := ts.MkAbs(args[0] + ".pub")
	imageKeys.Store(path, key)
	ts.Check(os.WriteFile(path, public.PEM, 0o600))
}

// resolved opens the repository of a reference and returns its digest.
func resolved(ts *testscript.TestScript, text string) (*oci.Repository, string) {
	ref, err := name.ParseReference(text)
	ts.Check(err)
	d, err := remote.Head(ref)
	ts.Check(err)
	repo, err := ocitest.Client().Repository(context.Background(), ref.Context().RegistryStr(), ref.Context().RepositoryStr(), true)
	ts.Check(err)
	return repo, d.Digest.String()
}

// cmdSignImage signs what a reference leads to: signimage KEY tag|referrer REF.
func cmdSignImage(ts *testscript.TestScript, _ bool, args []string) {
	t, v, key := scriptTB{ts: ts}, &sigtest.Virtual{}, imageKey(ts, args[0])
	repo, digest := resolved(ts, args[2])
	if args[1] == "tag" {
		s := v.SimpleSignatureWithKey(t, key, digest, sigtest.Options{})
		ocitest.Tag(t, repo, digest, ".sig", ocitest.Layer{MediaType: ocitest.MediaTypeSimpleSigning, Content: s.Payload, Annotations: s.Annotations})
		return
	}
	ocitest.Attach(t, repo, digest, ocitest.MediaTypeBundle, ocitest.Layer{
		MediaType: ocitest.MediaTypeBundle, Content: v.ImageBundleWithKey(t, key, digest, sigtest.Options{}),
	})
}

// cmdAttach attaches something to what a reference leads to: attach REF TEXT [BYTES].
func cmdAttach(ts *testscript.TestScript, _ bool, args []string) {
	repo, digest := resolved(ts, args[0])
	layer := ocitest.SBOM(args[1])
	if len(args) > 2 {
		n, err := strconv.Atoi(args[2])
		ts.Check(err)
		layer.Content = append(layer.Content, bytesOf(args[1], n)...)
	}
	ocitest.Attach(scriptTB{ts: ts}, repo, digest, "text/spdx+json", layer)
}

// cmdSigned checks who has signed the image of a reference, in both forms: signed REF KEY...
func cmdSigned(ts *testscript.TestScript, neg bool, args []string) {
	repo, digest := resolved(ts, args[0])
	var all []sigstore.ImageSignatures
	read := func(identifier string) {
		c, err := repo.Manifest(context.Background(), identifier)
		ts.Check(err)
		s, err := signaturesIn(repo, c)
		ts.Check(err)
		all = append(all, s)
	}
	list, _, err := repo.Referrers(context.Background(), digest)
	ts.Check(err)
	for _, l := range list {
		read(l.Digest)
	}
	tag := strings.Replace(digest, ":", "-", 1) + ".sig"
	if at, err := repo.ManifestDigest(context.Background(), tag); err == nil && at != "" {
		read(tag)
	}
	for _, name := range args[1:] {
		public := sigtest.Public(scriptTB{ts: ts}, imageKey(ts, name))
		holds := false
		for _, s := range all {
			_, err := s.Verify(context.Background(), digest, sigstore.SignedBy{Key: &public})
			holds = holds || err == nil
		}
		if holds == neg {
			ts.Fatalf("signed by %s: %t", name, holds)
		}
	}
}

func signaturesIn(repo *oci.Repository, c *oci.Content) (s sigstore.ImageSignatures, err error) {
	parsed, err := oci.ParseImage(c.Raw)
	if err != nil {
		return s, err
	}
	var doc struct {
		Layers []struct {
			Annotations map[string]string `json:"annotations"`
		} `json:"layers"`
	}
	if err := json.Unmarshal(c.Raw, &doc); err != nil {
		return s, err
	}
	for i, l := range parsed.Layers {
		raw, err := repo.ReadBlob(context.Background(), l, 1<<20)
		if err != nil {
			return s, err
		}
		switch l.MediaType {
		case ocitest.MediaTypeSimpleSigning:
			s.Simple = append(s.Simple, sigstore.SimpleSignature{Payload: raw, Annotations: doc.Layers[i].Annotations})
		case ocitest.MediaTypeBundle:
			s.Bundles = append(s.Bundles, raw)
		}
	}
	return s, nil
}
