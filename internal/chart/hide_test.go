package chart

import (
	"strings"
	"testing"
)

func TestHideSecrets(t *testing.T) {
	in := `apiVersion: v1
kind: Secret
metadata: {name: a}
data:
  one: c2VjcmV0
  two: |
    c2VjcmV0
stringData: {three: "secret", four: secret, five: }
---
apiVersion: v1
kind: ConfigMap
metadata: {name: b}
data: {one: kept} # as it is
---
apiVersion: v1
kind: List
items:
  - {apiVersion: v1, kind: Secret, metadata: {name: c}, data: {one: c2VjcmV0}}
`
	out, err := HideSecrets([]byte(in))
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"secret", "c2VjcmV0"} {
		if strings.Contains(string(out), secret) {
			t.Errorf("%q is still there:\n%s", secret, out)
		}
	}
	if n := strings.Count(string(out), Hidden); n != 6 {
		t.Errorf("%d values are hidden, want 6:\n%s", n, out)
	}
	if !strings.Contains(string(out), "data: {one: kept} # as it is") {
		t.Errorf("what is no secret has changed:\n%s", out)
	}
	if _, err := parseStream(out); err != nil {
		t.Error(err)
	}
}
