package chart

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	kubeyaml "k8s.io/apimachinery/pkg/util/yaml"
)

const (
	// maxText bounds the text that a stream has once its aliases are resolved: a few
	// aliases of one long string can become gigabytes.
	maxText = 2 * MaxManifests
	// maxListDepth bounds lists in lists.
	maxListDepth = 16
)

// clientObjects reads documents as Helm's client for Kubernetes does, so that what is
// checked is what would be sent: with its reader of streams, its YAML (1.1: "yes" is
// true) and its notion of a list (whatever has items). Errors are *[ManifestError].
func clientObjects(docs []byte) ([]*unstructured.Unstructured, error) {
	if err := checkExpansion(docs); err != nil {
		return nil, err
	}
	var objects []*unstructured.Unstructured
	decoder := kubeyaml.NewYAMLOrJSONDecoder(bytes.NewReader(docs), 4096) // the size that the client takes
	for number := 1; ; number++ {
		var ext runtime.RawExtension
		err := protect(func() error { return decoder.Decode(&ext) })
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, &ManifestError{Document: number, Err: err}
		}
		raw := bytes.TrimSpace(ext.Raw)
		if len(raw) == 0 || bytes.Equal(raw, []byte("null")) {
			continue
		}
		err = protect(func() error {
			decoded, _, err := unstructured.UnstructuredJSONScheme.Decode(raw, nil, nil)
			if runtime.IsMissingKind(err) {
				return errNoKind // the library's own words hold the whole document
			}
			if err != nil {
				return err
			}
			objects, err = flatten(objects, decoded, 0)
			return err
		})
		if err != nil {
			return nil, &ManifestError{Document: number, Err: err}
		}
	}
}

var errNoKind = errors.New("an object has no kind")

// flatten takes lists apart.
func flatten(to []*unstructured.Unstructured, o runtime.Object, depth int) ([]*unstructured.Unstructured, error) {
	if depth > maxListDepth {
		return nil, fmt.Errorf("lists are nested deeper than %d levels", maxListDepth)
	}
	var itself *unstructured.Unstructured
	var list interface {
		EachListItem(func(runtime.Object) error) error
	}
	switch o := o.(type) {
	case *unstructured.UnstructuredList:
		itself, list = &unstructured.Unstructured{Object: o.Object}, o
	case *unstructured.Unstructured:
		itself = o
		if o.IsList() {
			list = o
		}
	default:
		return nil, fmt.Errorf("unexpected object %T", o)
	}
	if itself.GetKind() == "" {
		return nil, errNoKind
	}
	if list == nil {
		return append(to, itself), nil
	}
	// The client sends only the items, whatever the kind is called. Of an object that is
	// no list by its name, another client may see more.
	if !strings.HasSuffix(itself.GetKind(), "List") {
		to = append(to, itself)
	}
	err := list.EachListItem(func(item runtime.Object) (err error) {
		to, err = flatten(to, item, depth+1)
		return err
	})
	return to, err
}

// checkExpansion refuses what would become too large when it is read, and a document
// that is really two, of which the client would see the first only.
func checkExpansion(docs []byte) error {
	if len(docs) > MaxManifests {
		return &ManifestError{Err: fmt.Errorf("there are more than %d bytes", MaxManifests)}
	}
	total := 0
	reader := kubeyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(docs)))
	for number := 1; ; number++ {
		chunk, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return &ManifestError{Document: number, Err: err}
		}
		s, err := parseStream(chunk)
		if err != nil {
			var inner *ManifestError
			if errors.As(err, &inner) {
				err = inner.Err // its numbers count from the start of the chunk
			}
			return &ManifestError{Document: number, Err: err}
		}
		if len(s.docs) > 1 {
			return &ManifestError{Document: number, Err: errors.New("the client would read one document where YAML has several")}
		}
		for _, o := range s.objects() {
			if total = textSize(o, total); total > maxText {
				return &ManifestError{Document: number, Err: fmt.Errorf("resolving aliases gives more than %d bytes", maxText)}
			}
		}
	}
}

// textSize adds the size of a tree to that of what came before; it stops where that is
// too much.
func textSize(n *yaml.Node, size int) int {
	size += len(n.Value)
	for _, child := range n.Content {
		if size > maxText {
			break
		}
		size = textSize(child, size)
	}
	return size
}

// ClientObjects reads rendered documents as Helm's client for Kubernetes does, lists taken apart. Errors are
// *[ManifestError].
func ClientObjects(docs []byte) ([]*unstructured.Unstructured, error) { return clientObjects(docs) }
