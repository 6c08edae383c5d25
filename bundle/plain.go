package bundle

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sealift/sealift/internal/chart"
	"github.com/sealift/sealift/internal/kustomize"
)

// ManifestsError says that plain objects of a spec cannot be used.
type ManifestsError struct {
	Path string
	Err  error
}

// Error names the file or directory.
func (e *ManifestsError) Error() string { return fmt.Sprintf("manifests %q: %v", e.Path, e.Err) }

// Unwrap returns the cause.
func (e *ManifestsError) Unwrap() error { return e.Err }

// maxObjectFiles bounds how many files of objects a directory has.
const maxObjectFiles = 10000

// readObjects reads plain objects as one stream of YAML documents of at most chart.MaxManifests
// bytes: from a file, from all files in and below a directory, in the order of their names, or by
// building a kustomization. What a name begins with a dot for is left out. Errors are *ManifestsError.
func readObjects(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, &ManifestsError{path, err}
	}
	var docs []byte
	switch {
	case !info.IsDir():
		if !isObjectsFile(path) {
			return nil, &ManifestsError{path, errors.New("is neither a directory nor a file .yaml, .yml or .json")}
		}
		docs, err = readObjectsFile(path, chart.MaxManifests)
	case kustomize.IsKustomization(path):
		docs, err = kustomize.Build(path)
	default:
		docs, err = readObjectsDir(path)
	}
	var bad *ManifestsError
	switch {
	case errors.As(err, &bad):
		return nil, err
	case err != nil:
		return nil, &ManifestsError{path, err}
	}
	n, err := chart.CheckObjects(docs)
	if err == nil && n == 0 {
		err = errors.New("there are no objects")
	}
	if err != nil {
		return nil, &ManifestsError{path, err}
	}
	return docs, nil
}

func isObjectsFile(path string) bool {
	return slices.Contains([]string{".yaml", ".yml", ".json"}, strings.ToLower(filepath.Ext(path)))
}

func readObjectsDir(dir string) ([]byte, error) {
	var all bytes.Buffer
	count := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case path != dir && strings.HasPrefix(d.Name(), "."):
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case d.IsDir():
			if path != dir && kustomize.IsKustomization(path) {
				return &ManifestsError{path, errors.New("is a kustomization below a directory that is none: name it by itself")}
			}
			return nil
		case !isObjectsFile(path):
			return nil
		}
		if count++; count > maxObjectFiles {
			return fmt.Errorf("more than %d files", maxObjectFiles)
		}
		raw, err := readObjectsFile(path, chart.MaxManifests-all.Len())
		if err != nil {
			return &ManifestsError{path, err}
		}
		// Here the file that is wrong has a name.
		if _, err := chart.CheckObjects(raw); err != nil {
			return &ManifestsError{path, err}
		}
		all.WriteString("---\n")
		all.Write(raw)
		if !bytes.HasSuffix(raw, []byte("\n")) {
			all.WriteByte('\n')
		}
		return nil
	})
	if err == nil && all.Len() > chart.MaxManifests {
		err = fmt.Errorf("the files have more than %d bytes together", chart.MaxManifests)
	}
	return all.Bytes(), err
}

func readObjectsFile(path string, limit int) ([]byte, error) {
	raw, err := readBounded(path, int64(max(limit, 0)))
	return bytes.TrimPrefix(raw, []byte("\ufeff")), err
}
