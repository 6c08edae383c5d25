package chart

import (
	"errors"
	"fmt"

	"go.yaml.in/yaml/v3"
)

// RunAnnotation is the annotation of Jobs that are no part of a release, and that Sealift runs itself:
// RunBackup before a release is changed, RunRestore on the way back.
const (
	RunAnnotation = "sealift/run"
	RunBackup     = "backup"
	RunRestore    = "restore"
)

// RunError says that an object has the annotation RunAnnotation and cannot be run.
type RunError struct {
	// Object is "KIND/NAME".
	Object string
	Err    error
}

// Error names the object.
func (e *RunError) Error() string {
	return fmt.Sprintf("%s has the annotation %s: %v", e.Object, RunAnnotation, e.Err)
}

// Unwrap returns the cause.
func (e *RunError) Unwrap() error { return e.Err }

// SplitJobs takes the Jobs with the annotation RunAnnotation out of rendered documents, in their order.
// What there is none of is nil, and rest is docs itself where there are no such Jobs at all. Errors are
// *[RunError], where anything else than a Job with a name has that annotation, or it is a hook of Helm,
// too, and *[ManifestError].
func SplitJobs(docs []byte) (rest, backup, restore []byte, err error) {
	s, err := parseStream(docs)
	if err != nil {
		return nil, nil, nil, err
	}
	parts := map[string]*stream{"": {}, RunBackup: {}, RunRestore: {}}
	texts := map[string][]byte{}
	lines := newLineIndex(docs)
	found := false
	for i, doc := range s.docs {
		run := ""
		err := doc.objects(func(object *yaml.Node) error {
			word, there, err := runWord(object)
			if err != nil || !there {
				return err
			}
			if object != doc.tree {
				return &RunError{objectName(object), errors.New("it stands in a list; Jobs that are run are documents of their own")}
			}
			run = word
			return nil
		})
		if err != nil {
			return nil, nil, nil, err
		}
		found = found || run != ""
		parts[run].docs = append(parts[run].docs, doc)
		// Where the text cannot be told apart, that is found out when it is checked.
		if start, end, err := s.documentSpan(i, lines); err == nil {
			texts[run] = append(texts[run], docs[start:end]...)
		}
	}
	if !found {
		return docs, nil, nil, nil
	}
	text := func(run string) []byte {
		part := parts[run]
		if err != nil || len(part.objects()) == 0 {
			return nil
		}
		// The text stays as it is, unless it means something else by itself.
		if part.check(texts[run]) == nil {
			return texts[run]
		}
		var out []byte
		if out, err = part.encoded(); err == nil {
			err = part.check(out)
		}
		return out
	}
	rest, backup, restore = text(""), text(RunBackup), text(RunRestore)
	if err != nil {
		return nil, nil, nil, &ManifestError{Err: fmt.Errorf("taking the Jobs out that are run: %w", err)}
	}
	return rest, backup, restore, nil
}

// runWord is what the annotation RunAnnotation of an object says.
func runWord(object *yaml.Node) (word string, there bool, err error) {
	annotations := field(field(object, "metadata"), "annotations")
	value := field(annotations, RunAnnotation)
	if value == nil {
		return "", false, nil
	}
	word = text(value)
	fail := func(err error) (string, bool, error) { return "", true, &RunError{objectName(object), err} }
	switch {
	case word != RunBackup && word != RunRestore:
		return fail(fmt.Errorf("%q is neither %q nor %q", word, RunBackup, RunRestore))
	case text(field(object, "kind")) != "Job" || text(field(object, "apiVersion")) != "batch/v1":
		return fail(errors.New(`only a Job of "batch/v1" can be run`))
	case text(field(field(object, "metadata"), "name")) == "":
		return fail(errors.New("it has no name"))
	case field(annotations, "helm.sh/hook") != nil:
		return fail(errors.New("it is a hook of Helm, too"))
	}
	return word, true, nil
}
