package chart

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	"go.yaml.in/yaml/v3"
)

// maxObjectsFile is where the objects of a chart that is made of plain ones go on in another file:
// Helm reads no larger files than 5 MiB.
const maxObjectsFile = 2 << 20

// ObjectsError says that a stream of Kubernetes objects cannot be installed.
type ObjectsError struct {
	Document int // 1 for the first; 0 where the stream as a whole is meant
	Line     int // of the stream; 0 where unknown
	Err      error
}

func (e *ObjectsError) Error() string {
	switch {
	case e.Document > 0 && e.Line > 0:
		return fmt.Sprintf("object %d (line %d): %v", e.Document, e.Line, e.Err)
	case e.Document > 0:
		return fmt.Sprintf("object %d: %v", e.Document, e.Err)
	}
	return e.Err.Error()
}

func (e *ObjectsError) Unwrap() error { return e.Err }

// CheckObjects checks that docs, a stream of YAML documents of at most MaxManifests bytes, holds
// Kubernetes objects with an apiVersion, a kind and a name, or lists of such, and returns how many
// documents are not empty. Errors are *[ObjectsError].
func CheckObjects(docs []byte) (int, error) {
	s, err := parseObjects(docs)
	if err != nil {
		return 0, err
	}
	return len(s.objects()), nil
}

// FromObjects makes a chart of plain objects (see [CheckObjects]), whose templates give exactly
// them: what is in them is not taken for template language. Custom resource definitions are among
// the templates, so that they are upgraded. The same objects give the same bytes.
//
// A custom resource beside its own definition is refused: Helm has to know what it is before it
// begins to install. Errors are *[ObjectsError] and *[LoadError].
func FromObjects(name, version string, docs []byte) (*Chart, error) {
	s, err := parseObjects(docs)
	if err != nil {
		return nil, err
	}
	if len(s.objects()) == 0 {
		return nil, &ObjectsError{Err: errors.New("there are no objects")}
	}
	if err := checkDefinitions(s); err != nil {
		return nil, err
	}
	// Written anew, one document after the other: Helm cuts streams by its own rules, which
	// know nothing of directives, and reads aliases with its own limits.
	var files [][]byte
	var file bytes.Buffer
	for i, doc := range s.docs {
		if doc.tree == nil {
			continue
		}
		text, err := encode(doc.tree)
		if err != nil {
			return nil, &ObjectsError{i + 1, doc.line, err}
		}
		if file.Len() > 0 && file.Len()+len(text) > maxObjectsFile {
			files = append(files, bytes.Clone(file.Bytes()))
			file.Reset()
		}
		file.WriteString("---\n")
		file.Write(text)
	}
	files = append(files, file.Bytes())
	if err := s.check(bytes.Join(files, nil)); err != nil {
		return nil, &ObjectsError{Err: fmt.Errorf("writing the objects anew: %w", err)}
	}
	archive, err := packObjects(name, version, files)
	if err != nil {
		return nil, &LoadError{Err: err}
	}
	return Parse(archive)
}

func parseObjects(docs []byte) (*stream, error) {
	s, err := parseStream(docs)
	var bad *ManifestError
	if errors.As(err, &bad) {
		return nil, &ObjectsError{bad.Document, bad.Line, bad.Err}
	}
	if err != nil {
		return nil, &ObjectsError{Err: err}
	}
	for i, doc := range s.docs {
		if doc.tree == nil {
			continue
		}
		if err := checkObject(doc.tree); err != nil {
			return nil, &ObjectsError{i + 1, doc.tree.Line, err}
		}
	}
	return s, nil
}

// checkObject reports whether a tree is an object, or a list of objects, that can be applied.
func checkObject(tree *yaml.Node) error {
	apiVersion, kind := textAt(tree, "apiVersion"), textAt(tree, "kind")
	if apiVersion == "" {
		return errors.New("it has no apiVersion")
	}
	if kind == "" {
		return errors.New("it has no kind")
	}
	if items := valueAt(tree, "items"); items != nil && strings.HasSuffix(kind, "List") {
		if items.Kind != yaml.SequenceNode && !isNull(items) {
			return errors.New("its items are no list")
		}
		for i, item := range items.Content {
			if item.Kind != yaml.MappingNode {
				return fmt.Errorf("items[%d] (line %d) is not an object", i, item.Line)
			}
			if err := checkObject(item); err != nil {
				return fmt.Errorf("items[%d] (line %d): %w", i, item.Line, err)
			}
		}
		return nil
	}
	metadata := valueAt(tree, "metadata")
	if metadata == nil || textAt(metadata, "name") == "" {
		return fmt.Errorf("%s has no name", kind)
	}
	return nil
}

func valueAt(n *yaml.Node, key string) *yaml.Node {
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

// textAt is the text of a value, empty where there is none.
func textAt(n *yaml.Node, key string) string {
	v := valueAt(n, key)
	if v == nil || v.Kind != yaml.ScalarNode || isNull(v) {
		return ""
	}
	return v.Value
}

// checkDefinitions looks for custom resources whose definitions are among the same objects.
func checkDefinitions(s *stream) error {
	defined := map[string]string{}
	each := func(f func(document int, tree *yaml.Node) error) error {
		for i, doc := range s.docs {
			if doc.tree == nil {
				continue
			}
			trees := []*yaml.Node{doc.tree}
			if items := valueAt(doc.tree, "items"); items != nil && strings.HasSuffix(textAt(doc.tree, "kind"), "List") {
				trees = items.Content
			}
			for _, tree := range trees {
				if err := f(i+1, tree); err != nil {
					return err
				}
			}
		}
		return nil
	}
	err := each(func(_ int, tree *yaml.Node) error {
		spec := valueAt(tree, "spec")
		if textAt(tree, "kind") != "CustomResourceDefinition" || spec == nil {
			return nil
		}
		if names := valueAt(spec, "names"); names != nil {
			defined[textAt(spec, "group")+"/"+textAt(names, "kind")] = textAt(valueAt(tree, "metadata"), "name")
		}
		return nil
	})
	if err != nil || len(defined) == 0 {
		return err
	}
	return each(func(document int, tree *yaml.Node) error {
		group, _, _ := strings.Cut(textAt(tree, "apiVersion"), "/")
		kind := textAt(tree, "kind")
		if crd, ok := defined[group+"/"+kind]; ok {
			return &ObjectsError{document, tree.Line, fmt.Errorf("%s %q needs the CustomResourceDefinition %q, which is among the same objects: "+
				"make two sets of them, and let the second depend on the first", kind, textAt(valueAt(tree, "metadata"), "name"), crd)}
		}
		return nil
	})
}

// packObjects makes the archive of a chart that gives the objects in files.
func packObjects(name, version string, files [][]byte) ([]byte, error) {
	meta, err := json.Marshal(struct {
		APIVersion  string `json:"apiVersion"`
		Name        string `json:"name"`
		Version     string `json:"version"`
		Description string `json:"description"`
	}{"v2", name, version, "Plain Kubernetes objects, packed by Sealift"})
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	zw, err := gzip.NewWriterLevel(&buf, packLevel)
	if err != nil {
		return nil, err
	}
	zw.ModTime = time.Unix(0, 0)
	tw := tar.NewWriter(zw)
	add := func(file string, content []byte) error {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: name + "/" + file, Mode: 0o644, Size: int64(len(content)), ModTime: time.Unix(0, 0)}
		if err := tw.WriteHeader(h); err != nil {
			return fmt.Errorf("packing %q: %w", file, err)
		}
		if _, err := tw.Write(content); err != nil {
			return fmt.Errorf("packing %q: %w", file, err)
		}
		return nil
	}
	// JSON is YAML.
	errs := []error{add("Chart.yaml", append(meta, '\n'))}
	var template strings.Builder
	for i, content := range files {
		file := fmt.Sprintf("objects-%04d.yaml", i+1)
		fmt.Fprintf(&template, "{{ .Files.Get %q }}\n", file)
		errs = append(errs, add(file, content))
	}
	errs = append(errs, add("templates/objects.yaml", []byte(template.String())), tw.Close(), zw.Close())
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}
