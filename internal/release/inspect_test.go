package release

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

func TestPulse(t *testing.T) {
	f, c := newAPI(t)
	p, err := c.Pulse(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if p.Ahead != 0 {
		t.Errorf("clocks: got %v apart, want together", p.Ahead)
	}
	for _, off := range []time.Duration{10 * time.Minute, -time.Hour} {
		f.on("GET /version", func(w http.ResponseWriter, _ *http.Request, _ []byte) {
			w.Header().Set("Date", time.Now().Add(off).UTC().Format(http.TimeFormat))
			_, _ = w.Write([]byte(`{}`))
		})
		if p, err = c.Pulse(t.Context()); err != nil {
			t.Fatal(err)
		}
		if d := (p.Ahead - off).Abs(); d > 2*time.Second {
			t.Errorf("clocks: got %v apart, want about %v", p.Ahead, off)
		}
	}
}

func TestPulseRefused(t *testing.T) {
	claims := base64.RawURLEncoding.EncodeToString([]byte(fmt.Sprintf(`{"exp":%d}`, time.Now().Add(-time.Hour).Unix())))
	f, c := newAPI(t)
	// Credentials are only read of kubeconfigs of servers that speak TLS.
	c.credentials = credentials(&rest.Config{BearerToken: "e30." + claims + ".c2ln"})
	if got := c.Credentials(); len(got) != 1 || got[0].What != "token" || !got[0].Expires.Before(time.Now()) {
		t.Errorf("credentials: got %v, want one expired token", got)
	}
	f.refuse("GET /version", http.StatusUnauthorized, metav1.StatusReasonUnauthorized)
	_, err := c.Pulse(t.Context())
	var refused *CredentialsError
	if !errors.As(err, &refused) || refused.Expired.IsZero() {
		t.Errorf("got %v, want refused credentials that have expired", err)
	}
	f.refuse("GET /version", http.StatusBadGateway, metav1.StatusReasonInternalError)
	var unreachable *UnreachableError
	if _, err = c.Pulse(t.Context()); !errors.As(err, &unreachable) {
		t.Errorf("got %v, want an UnreachableError", err)
	}
}

const cartDefinition = `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: carts.shop.example}
spec:
  group: shop.example
  scope: Namespaced
  names: {kind: Cart, plural: carts}
  versions: [{name: v1, served: true}, {name: v0, served: false}]
`

func TestInspect(t *testing.T) {
	f, c := newAPI(t)
	i := inspect(t, c, Intended{Definitions: []byte(cartDefinition), Docs: []byte(`
apiVersion: v1
kind: Namespace
metadata: {name: extra}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
---
apiVersion: shop.example/v1
kind: Cart
metadata: {name: one, namespace: extra}
---
apiVersion: shop.example/v0
kind: Cart
metadata: {name: old}
---
apiVersion: gone.example/v1
kind: Thing
metadata: {name: x}
---
apiVersion: batch/v1
kind: Job
metadata: {name: test, annotations: {helm.sh/hook: test}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: migrate, annotations: {helm.sh/hook: "pre-install, pre-upgrade"}}
`)})
	got := map[string]string{}
	for _, o := range i.Objects {
		word := "missing"
		switch {
		case o.Served:
			word = "served"
		case o.Defined:
			word = "defined"
		case o.Unknown:
			word = "unknown"
		}
		got[o.String()] = o.Role + " " + word
	}
	want := map[string]string{
		"CustomResourceDefinition/shop/carts.shop.example": "definition missing", "Namespace/extra": "object served", "Deployment/shop/web": "object served",
		"Cart/extra/one": "object defined", "Cart/shop/old": "object missing", "Thing/shop/x": "object unknown", "Job/shop/test": "test served", "Job/shop/migrate": "hook served",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
	absent, going, hidden := i.Absent()
	if !reflect.DeepEqual(absent, []string{"extra"}) || going != nil || hidden != nil || !i.Made("extra") || i.Made("shop") {
		t.Errorf("namespaces: got %v absent, %v going, %v hidden", absent, going, hidden)
	}
	if got := i.Silent(); !reflect.DeepEqual(got, []string{"gone.example/v1"}) {
		t.Errorf("silent: got %v", got)
	}
	if got := f.changes(); got != nil {
		t.Errorf("changed: %v", got)
	}
}

func TestInspectBroken(t *testing.T) {
	f, c := newAPI(t)
	f.refuse("GET /api", http.StatusInternalServerError, metav1.StatusReasonInternalError)
	f.refuse("GET /apis", http.StatusInternalServerError, metav1.StatusReasonInternalError)
	var unreachable *UnreachableError
	if _, err := c.Inspect(t.Context(), nil); !errors.As(err, &unreachable) {
		t.Errorf("got %v, want an UnreachableError", err)
	}
}

func FuzzTokenExpiry(f *testing.F) {
	f.Add("e30.eyJleHAiOjE3MDAwMDAwMDB9.c2ln")
	f.Add("e30.eyJleHAiOjFlOTl9.x")
	f.Add("..")
	f.Add(strings.Repeat("a.", 5))
	f.Fuzz(func(t *testing.T, token string) {
		if at := tokenExpiry(token); !at.IsZero() && at.Unix() <= 0 {
			t.Errorf("got %v", at)
		}
	})
}
