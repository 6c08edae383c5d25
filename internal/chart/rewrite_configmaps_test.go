package chart

import (
	"strings"
	"testing"
)

func TestRewriteConfigMaps(t *testing.T) {
	const docs = `apiVersion: v1
kind: ConfigMap
metadata:
  name: chosen
  labels: {image: quay.io/shop/app:1}
data:
  quay.io/shop/app:1: key
  plain: quay.io/shop/app:1 # here
  text: |
    run quay.io/shop/app:1 and quay.io/shop/app:12, xquay.io/shop/app:1/y
    short shop/app:1, and quay.io/shop/app without a tag
  yaml: |
    worker:
      image: quay.io/shop/app:1
      other: 2
binaryData:
  raw: cXVheS5pby9zaG9wL2FwcDox
---
apiVersion: v1
kind: ConfigMap
metadata: {name: other}
data: {image: "quay.io/shop/app:1"}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: chosen, namespace: elsewhere}
data: {image: "quay.io/shop/app:1"}
---
apiVersion: v1
kind: Secret
metadata: {name: chosen}
stringData: {image: "quay.io/shop/app:1"}
`
	got, err := RewriteConfigMaps([]byte(docs), func(namespace, name string) bool { return namespace == "" && name == "chosen" }, func(use Find) (string, error) {
		if use.Reference == "quay.io/shop/app:1" {
			return "site:5000/shop/app:1@sha256:" + strings.Repeat("a", 64), nil
		}
		return use.Reference, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	to := "site:5000/shop/app:1@sha256:" + strings.Repeat("a", 64)
	first, rest, _ := strings.Cut(docs, "---\n")
	first = strings.Replace(first, "plain: quay.io/shop/app:1 ", "plain: "+to+" ", 1)
	first = strings.Replace(first, "run quay.io/shop/app:1 ", "run "+to+" ", 1)
	first = strings.Replace(first, "image: quay.io/shop/app:1\n      other", "image: "+to+"\n      other", 1)
	if want := first + "---\n" + rest; string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
