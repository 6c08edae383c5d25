package chart

import (
	"reflect"
	"testing"
)

// TestPulls: every container counts, wherever its pod is, and image volumes do.
func TestPulls(t *testing.T) {
	got, err := Pulls([]byte(`apiVersion: v1
kind: List
items:
  - apiVersion: apps/v1
    kind: Deployment
    metadata: {name: shop}
    spec:
      template:
        spec:
          initContainers: [{name: i, image: "a:1", imagePullPolicy: Always}]
          containers: [{name: c, image: "b"}, {name: none}]
          volumes:
            - {name: v, image: {reference: "c:1", pullPolicy: Never}}
            - {name: w, emptyDir: {}}
  - apiVersion: example.com/v1
    kind: Widget
    metadata: {generateName: one-}
    spec: {pod: {containers: [{image: "d:1", imagePullPolicy: IfNotPresent}]}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: c}
data: {containers: "image: e"}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []Pull{
		{"Deployment/shop", "spec.template.spec.initContainers[0].image", "a:1", "Always"},
		{"Deployment/shop", "spec.template.spec.containers[0].image", "b", ""},
		{"Deployment/shop", "spec.template.spec.volumes[0].image.reference", "c:1", "Never"},
		{"Widget/one-", "spec.pod.containers[0].image", "d:1", "IfNotPresent"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if _, err := Pulls([]byte("a: [")); err == nil {
		t.Error("what cannot be read has no pulls")
	}
}
