package oci_test

import (
	"bytes"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sealift/sealift/internal/oci"
)

// TestRootCAs: a registry with a certificate of a site's own authority.
func TestRootCAs(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // that it is not trusted is what is wanted
	s.StartTLS()
	defer s.Close()
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	trust, err := oci.WithRootCAs(append([]byte("a comment\n"), authority...))
	if err != nil {
		t.Fatal(err)
	}
	host := strings.TrimPrefix(s.URL, "https://")
	for _, c := range []struct {
		options []oci.TransportOption
		ok      bool
	}{{[]oci.TransportOption{trust}, true}, {nil, false}} {
		transport := oci.NewTransport(nil, c.options...)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+host, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := transport.RoundTrip(req)
		if (err == nil) != c.ok {
			t.Errorf("with %d options: %v", len(c.options), err)
		}
		if err == nil {
			resp.Body.Close()
		}
		transport.CloseIdleConnections()
	}
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")})
	for name, text := range map[string][]byte{
		"nothing": nil, "text": []byte("x"), "a key": key, "a key after it": bytes.Join([][]byte{authority, key}, nil),
		"a broken one": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}),
	} {
		if _, err := oci.WithRootCAs(text); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}
