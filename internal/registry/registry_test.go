package registry_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/sealift/sealift/internal/registry"
)

func serve(t *testing.T, o registry.Options) string {
	t.Helper()
	s, err := registry.New(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(s.Handler())
	t.Cleanup(h.Close)
	return strings.TrimPrefix(h.URL, "http://")
}

func TestContentSurvivesARestart(t *testing.T) {
	store := t.TempDir()
	img, err := random.Image(1000, 2)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(serve(t, registry.Options{Store: store}) + "/a/b:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img); err != nil {
		t.Fatal(err)
	}
	again, err := name.ParseReference(serve(t, registry.Options{Store: store, ReadOnly: true}) + "/a/b:1")
	if err != nil {
		t.Fatal(err)
	}
	d, err := remote.Head(again)
	if err != nil {
		t.Fatal(err)
	}
	if want, err := img.Digest(); err != nil || d.Digest != want {
		t.Fatalf("digest %s, %v; want %s", d.Digest, err, want)
	}
	other, err := random.Image(10, 1)
	if err != nil {
		t.Fatal(err)
	}
	var refused *transport.Error
	if err := remote.Write(again, other); !errors.As(err, &refused) || refused.StatusCode != http.StatusMethodNotAllowed {
		t.Fatalf("writing to a read-only registry: %v", err)
	}
}

func TestServeEndsWithItsContext(t *testing.T) {
	s, err := registry.New(context.Background(), registry.Options{Store: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	f, err := registry.NewFront(s.Handler(), registry.FrontOptions{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	go func() { done <- f.Serve(ctx, l) }()
	resp, err := http.Get("http://" + l.Addr().String() + "/v2/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestStoreThatCannotBeMade(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := registry.New(context.Background(), registry.Options{Store: file}); err == nil {
		t.Fatal("a file was taken for a store")
	}
}
