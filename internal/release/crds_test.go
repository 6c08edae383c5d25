package release

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"reflect"
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func orders(owner string, stored []any, versions ...string) *unstructured.Unstructured {
	var list []any
	for _, v := range versions {
		name, unserved := v, false
		if v[0] == '-' {
			name, unserved = v[1:], true
		}
		list = append(list, map[string]any{"name": name, "served": !unserved})
	}
	u := object(crdKind, "orders.shop.example", map[string]any{
		"apiVersion": crdGroup + "/v1", "spec": map[string]any{"versions": list}, "status": map[string]any{"storedVersions": stored},
	})
	if owner != "" {
		u.SetAnnotations(map[string]string{nameAnnotation: owner, namespaceAnnotation: "ns"})
	}
	return u
}

func TestCRDAllowed(t *testing.T) {
	going := orders("", nil, "v1")
	now := going.GetCreationTimestamp()
	going.SetDeletionTimestamp(&now)
	going.Object["metadata"].(map[string]any)["deletionTimestamp"] = "2026-01-01T00:00:00Z"
	tests := []struct {
		name       string
		live, want *unstructured.Unstructured
		ok         bool
	}{
		{"another one", orders("", []any{"v1"}, "v1"), orders("", nil, "v1", "v2"), true},
		{"unused one goes", orders("", []any{"v2"}, "v1", "v2"), orders("", nil, "v2"), true},
		{"stored one goes", orders("", []any{"v1", "v2"}, "v1", "v2"), orders("", nil, "v2"), false},
		{"stored one is not served", orders("", []any{"v1"}, "v1"), orders("", nil, "-v1", "v2"), false},
		{"stored one was not served", orders("", []any{"v1"}, "-v1", "v2"), orders("", nil, "-v1", "v2"), true},
		{"of another release, unused one goes", orders("other", []any{"v2"}, "v1", "v2"), orders("", nil, "v2"), false},
		{"of another release", orders("other", []any{"v1"}, "v1"), orders("", nil, "v1", "v2"), true},
		{"being deleted", going, orders("", nil, "v1"), false},
	}
	for _, tt := range tests {
		if err := (crdChange{tt.want, tt.live}).allowed(); (err == nil) != tt.ok {
			t.Errorf("%s: got %v", tt.name, err)
		}
	}
}

func TestApplyCRDsRefuses(t *testing.T) {
	c := newFake(t)
	for _, docs := range []string{
		"kind: ConfigMap\napiVersion: v1\nmetadata: {name: x}\n", "kind: CustomResourceDefinition\napiVersion: apiextensions.k8s.io/v1beta1\nmetadata: {name: x}\n",
		"kind: CustomResourceDefinition\napiVersion: apiextensions.k8s.io/v1\n",
	} {
		var ce *CRDError
		if got, err := c.ApplyCRDs(t.Context(), "shop", "was", []byte(docs)); !errors.As(err, &ce) || len(got) > 0 {
			t.Errorf("%q: got %v, %v", docs, got, err)
		}
	}
	if got, err := c.ApplyCRDs(t.Context(), "shop", "was", nil); err != nil || len(got) > 0 {
		t.Errorf("got %v, %v", got, err)
	}
	if len(c.posts) > 0 {
		t.Errorf("something was done: %q", c.posts)
	}
	// Nothing is kept, so nothing was changed.
	if err := errors.Join(c.RestoreCRDs(t.Context(), "shop", "was"), c.DropWas(t.Context(), "shop", "was")); err != nil {
		t.Error(err)
	}
}

// What was there before is spread over several Secrets, and what is kept first stays.
func TestWas(t *testing.T) {
	c := newFake(t)
	s, err := c.open(t.Context(), "shop")
	if err != nil {
		t.Fatal(err)
	}
	noise := make([]byte, 2<<20)
	if _, err := rand.Read(noise); err != nil {
		t.Fatal(err)
	}
	large := orders("", []any{"v1"}, "v1")
	large.SetAnnotations(map[string]string{"noise": hex.EncodeToString(noise)})
	was := crdsWas{Were: []map[string]any{former(large)}, New: []string{"new.shop.example"}}
	if err := s.saveWas(t.Context(), "shop", "was", was); err != nil {
		t.Fatal(err)
	}
	if len(c.posts) < 3 {
		t.Errorf("%d secrets", len(c.posts))
	}
	if err := s.saveWas(t.Context(), "shop", "was", crdsWas{}); err != nil {
		t.Error(err)
	}
	got, err := s.readWas(t.Context(), "shop", "was")
	if err != nil || !reflect.DeepEqual(*got, was) {
		t.Errorf("got something else, %v", err)
	}
	if _, ok := got.Were[0]["status"]; ok {
		t.Error("the status is kept")
	}
	posts := len(c.posts)
	for range 2 {
		if err := c.DropWas(t.Context(), "shop", "was"); err != nil {
			t.Error(err)
		}
	}
	if len(c.deleted) != posts || !slices.Contains(c.deleted, "/api/v1/namespaces/shop/secrets/was-1") ||
		c.deleted[posts-1] != "/api/v1/namespaces/shop/secrets/was" {
		t.Errorf("deleted %q", c.deleted)
	}
	// A Secret of somebody else is neither read nor overwritten nor deleted.
	c.api["/api/v1/namespaces/shop/secrets/was"] = `{"metadata":{"name":"was"},"data":{"parts":"MQ=="}}`
	_, readErr := s.readWas(t.Context(), "shop", "was")
	if readErr == nil || s.saveWas(t.Context(), "shop", "was", was) == nil || c.DropWas(t.Context(), "shop", "was") == nil || len(c.deleted) != posts {
		t.Errorf("got %v, deleted %q", readErr, c.deleted)
	}
}

func FuzzParseWas(f *testing.F) {
	for _, s := range []string{
		"", `{}`, `{"were":[{"kind":"CustomResourceDefinition","apiVersion":"apiextensions.k8s.io/v1","metadata":{"name":"x"}}],"new":["y"]}`,
		`{"were":[{"kind":7,"metadata":[]}]}`, `{"were":[null]}`,
	} {
		var b bytes.Buffer
		zw := gzip.NewWriter(&b)
		if _, err := zw.Write([]byte(s)); err != nil || zw.Close() != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, packed []byte) {
		was, err := parseWas(packed)
		if err != nil {
			return
		}
		for _, object := range was.Were {
			u := &unstructured.Unstructured{Object: object}
			if u.GetName() == "" || sameCRD(u, orders("", nil)) {
				t.Errorf("got %v", object)
			}
			_ = crdVersions(u)
		}
	})
}
