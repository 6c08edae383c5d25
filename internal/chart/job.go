package chart

import (
	"errors"
	"fmt"

	"go.yaml.in/yaml/v3"
)

// CheckJob reports whether docs is exactly one Job of Kubernetes with a name: what a health check
// runs. Errors are *[ManifestError] or say what there is instead.
func CheckJob(docs []byte) error {
	s, err := parseStream(docs)
	if err != nil {
		return err
	}
	n := 0
	for _, doc := range s.docs {
		err := doc.objects(func(object *yaml.Node) error {
			n++
			if kind, version := text(field(object, "kind")), text(field(object, "apiVersion")); kind != "Job" || version != "batch/v1" {
				return fmt.Errorf("it holds a %s of %q, want a Job of \"batch/v1\"", kind, version)
			}
			if text(field(field(object, "metadata"), "name")) == "" {
				return errors.New("the Job has no name")
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if n != 1 {
		return fmt.Errorf("it holds %d objects, want one Job", n)
	}
	return nil
}

// CheckRoute reports whether docs is exactly one HTTPRoute of the Gateway API, which has rules. Errors are *[ManifestError]
// or say what there is instead.
func CheckRoute(docs []byte) error {
	objects, err := clientObjects(docs)
	if err != nil {
		return err
	}
	if len(objects) != 1 {
		return fmt.Errorf("it holds %d objects, want one HTTPRoute", len(objects))
	}
	o := objects[0]
	if o.GetKind() != "HTTPRoute" || o.GroupVersionKind().Group != "gateway.networking.k8s.io" {
		return fmt.Errorf("it holds a %s of %q, want an HTTPRoute of \"gateway.networking.k8s.io/v1\"", o.GetKind(), o.GetAPIVersion())
	}
	spec, _ := o.Object["spec"].(map[string]any)
	if len(mappings(spec["rules"])) == 0 {
		return errors.New("the HTTPRoute has no rules")
	}
	return nil
}
