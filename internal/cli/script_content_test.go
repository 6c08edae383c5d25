package cli_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/rogpeppe/go-internal/testscript"
	helmprovenance "helm.sh/helm/v4/pkg/provenance"
	helmregistry "helm.sh/helm/v4/pkg/registry"
	helmrepo "helm.sh/helm/v4/pkg/repo/v1"

	"github.com/sealift/sealift/internal/chart"
)

// helmClient is Helm's own client of registries.
func helmClient(ts *testscript.TestScript) *helmregistry.Client {
	c, err := helmregistry.NewClient(helmregistry.ClientOptPlainHTTP(),
		helmregistry.ClientOptCredentialsFile(ts.MkAbs("no-credentials")), helmregistry.ClientOptWriter(io.Discard))
	ts.Check(err)
	return c
}

// cmdChartPush packs a chart directory, or takes a .tgz with the provenance file beside it, and pushes
// it with Helm's own client: chartpush REF PATH, where REF ends in NAME:VERSION.
func cmdChartPush(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[1])
	c, err := chart.Load(path)
	ts.Check(err)
	var opts []helmregistry.PushOption
	if proof, err := os.ReadFile(path + ".prov"); err == nil {
		opts = append(opts, helmregistry.PushOptProvData(proof))
	}
	_, err = helmClient(ts).Push(c.Archive, args[0], opts...)
	ts.Check(err)
}

// cmdHelmPullProv pulls a provenance file as "helm pull --prov oci://REF" does: helmpullprov REF FILE.
func cmdHelmPullProv(ts *testscript.TestScript, _ bool, args []string) {
	res, err := helmClient(ts).Pull(args[0], helmregistry.PullOptWithProv(true))
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), res.Prov.Data, 0o600))
}

// cmdChartPack writes the archive of a chart directory: chartpack DIR FILE.
func cmdChartPack(ts *testscript.TestScript, _ bool, args []string) {
	c, err := chart.Load(ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), c.Archive, 0o600))
}

// cmdChartIndex fills a directory with charts, from directories or archives, and their index.yaml; of
// an archive the provenance file comes along: chartindex DIR CHART...
func cmdChartIndex(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs(args[0])
	ts.Check(os.RemoveAll(dir))
	ts.Check(os.MkdirAll(dir, 0o755))
	for _, d := range args[1:] {
		path := ts.MkAbs(d)
		c, err := chart.Load(path)
		ts.Check(err)
		file := filepath.Join(dir, c.Name+"-"+c.Version+".tgz")
		ts.Check(os.WriteFile(file, c.Archive, 0o600))
		if proof, err := os.ReadFile(path + ".prov"); err == nil {
			ts.Check(os.WriteFile(file+".prov", proof, 0o600))
		}
	}
	index, err := helmrepo.IndexDirectory(dir, "")
	ts.Check(err)
	index.SortEntries()
	ts.Check(index.WriteFile(filepath.Join(dir, "index.yaml"), 0o600))
}

// cmdChartRepo serves a chart repository with the charts of some directories, as they are now, under
// an address that it puts into a variable; a second call for the same variable replaces what is
// served: chartrepo VARIABLE DIR...
func cmdChartRepo(ts *testscript.TestScript, _ bool, args []string) {
	dir := "repo-" + args[0]
	cmdChartIndex(ts, false, append([]string{dir}, args[1:]...))
	if ts.Getenv(args[0]) == "" {
		cmdWebServer(ts, false, []string{args[0], dir})
	}
}

// cmdWebServer serves the files of a directory under an address that it puts into a variable:
// webserver VARIABLE DIR [auth] [tls]. With auth it lets only jane in, whose password is s3cret; with
// tls the certificate that is to be trusted is VARIABLE.pem. VARIABLE_HOST is its host and port.
func cmdWebServer(ts *testscript.TestScript, _ bool, args []string) {
	s := &site{
		next: http.FileServer(http.Dir(ts.MkAbs(args[1]))), hung: ts.MkAbs("hung"), closing: make(chan struct{}),
		auth: slices.Contains(args[2:], "auth"),
	}
	start := httptest.NewServer
	if slices.Contains(args[2:], "tls") {
		start = func(h http.Handler) *httptest.Server {
			server := httptest.NewUnstartedServer(h)
			server.Config.ErrorLog = log.New(io.Discard, "", 0) // that it is not trusted is what is wanted
			server.StartTLS()
			return server
		}
	}
	s.serve(ts, start)
	if cert := s.server.Certificate(); cert != nil {
		ts.Check(os.WriteFile(ts.MkAbs(args[0]+".pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}), 0o600))
	}
	ts.Setenv(args[0], s.server.URL)
	ts.Setenv(args[0]+"_HOST", s.server.Listener.Addr().String())
}

// cmdShut ends a registry, or a server of files: shut HOST.
func cmdShut(ts *testscript.TestScript, _ bool, args []string) {
	s := siteOf(ts, args[0])
	s.server.CloseClientConnections()
	s.server.Close()
}

// pgpKeys are the OpenPGP keys that scripts have made, by the path of the public one.
var pgpKeys sync.Map

// cmdPGPKey makes an OpenPGP key and writes NAME.asc, the public one: pgpkey NAME.
func cmdPGPKey(ts *testscript.TestScript, _ bool, args []string) {
	key, err := openpgp.NewEntity(args[0], "", args[0]+"@example.com", &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA})
	ts.Check(err)
	var public bytes.Buffer
	w, err := armor.Encode(&public, openpgp.PublicKeyType, nil)
	ts.Check(err)
	ts.Check(errors.Join(key.Serialize(w), w.Close()))
	path := ts.MkAbs(args[0] + ".asc")
	pgpKeys.Store(path, key)
	ts.Check(os.WriteFile(path, public.Bytes(), 0o600))
}

// cmdProvenance signs a chart archive as "helm package --sign" does: provenance KEY FILE writes
// FILE.prov.
func cmdProvenance(ts *testscript.TestScript, _ bool, args []string) {
	key, ok := pgpKeys.Load(ts.MkAbs(args[0] + ".asc"))
	if !ok {
		ts.Fatalf("no key %q", args[0])
	}
	path := ts.MkAbs(args[1])
	c, err := chart.Load(path)
	ts.Check(err)
	about := fmt.Appendf(nil, "apiVersion: v2\nname: %s\nversion: %s\n", c.Name, c.Version)
	text, err := (&helmprovenance.Signatory{Entity: key.(*openpgp.Entity)}).ClearSign(c.Archive, filepath.Base(path), about)
	ts.Check(err)
	ts.Check(os.WriteFile(path+".prov", []byte(text), 0o600))
}

// cmdLayout writes an image into an OCI layout, an index where there are several platforms, or into
// a docker save archive where the path ends in .tar: layout PATH NAME PLATFORM[,PLATFORM...] SEED.
// What is in the layout already stays.
func cmdLayout(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	if strings.HasSuffix(path, ".tar") {
		tag, err := name.NewTag(args[1])
		ts.Check(err)
		ts.Check(tarball.WriteToFile(path, tag, dockerImage(ts, args[2], "docker")))
		return
	}
	l, err := layout.FromPath(path)
	if err != nil {
		l, err = layout.Write(path, empty.Index)
		ts.Check(err)
	}
	named := layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": args[1]})
	img, index, err := makeImages(args[2], args[3])
	ts.Check(err)
	if index != nil {
		ts.Check(l.AppendIndex(index, named))
		return
	}
	ts.Check(l.AppendImage(img, named))
}

// cmdTarred makes a tar of a directory, compressed where its name ends in gz: tarred DIR FILE.
func cmdTarred(ts *testscript.TestScript, _ bool, args []string) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	ts.Check(errors.Join(w.AddFS(os.DirFS(ts.MkAbs(args[0]))), w.Close()))
	content := b.Bytes()
	if strings.HasSuffix(args[1], "gz") {
		var z bytes.Buffer
		zw := gzip.NewWriter(&z)
		_, err := zw.Write(content)
		ts.Check(errors.Join(err, zw.Close()))
		content = z.Bytes()
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), content, 0o600))
}

// cmdDockerSave writes an archive as docker save does, with one image or several:
// dockersave FILE PLATFORM NAME...
func cmdDockerSave(ts *testscript.TestScript, _ bool, args []string) {
	images := map[name.Tag]v1.Image{}
	for _, text := range args[2:] {
		tag, err := name.NewTag(text)
		ts.Check(err)
		images[tag] = dockerImage(ts, args[1], text)
	}
	ts.Check(tarball.MultiWriteToFile(ts.MkAbs(args[0]), images))
}

// dockerImage is an image with a layer that is a real tar, since docker save writes it unpacked.
func dockerImage(ts *testscript.TestScript, platform, seed string) v1.Image {
	layer := static.NewLayer(plainLayer(seed), types.DockerUncompressedLayer)
	img, err := mutate.AppendLayers(empty.Image, layer)
	ts.Check(err)
	p, err := v1.ParsePlatform(platform)
	ts.Check(err)
	c, err := img.ConfigFile()
	ts.Check(err)
	c.OS, c.Architecture = p.OS, p.Architecture
	img, err = mutate.ConfigFile(img, c)
	ts.Check(err)
	return img
}

// cmdBigFile writes a file of so many bytes, of text: bigfile PATH BYTES.
func cmdBigFile(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), bytes.Repeat([]byte("x"), n), 0o600))
}

// cmdAttached checks how many things are attached to what a reference leads to, in the way of
// referrers: attached REF N.
func cmdAttached(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[1])
	ts.Check(err)
	repo, digest := resolved(ts, args[0])
	list, _, err := repo.Referrers(context.Background(), digest)
	ts.Check(err)
	if len(list) != want {
		ts.Fatalf("%d are attached, want %d", len(list), want)
	}
}

// cmdArtifact pushes something that is no image: artifact REF TYPE CONTENT.
func cmdArtifact(ts *testscript.TestScript, _ bool, args []string) {
	ref, err := name.ParseReference(args[0])
	ts.Check(err)
	img, err := mutate.AppendLayers(mutate.MediaType(empty.Image, types.OCIManifestSchema1), static.NewLayer([]byte(args[2]), "application/octet-stream"))
	ts.Check(err)
	img = mutate.ConfigMediaType(img, types.MediaType(args[1]))
	ts.Check(remote.Write(ref, img))
}
