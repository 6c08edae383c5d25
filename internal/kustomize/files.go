package kustomize

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"sigs.k8s.io/kustomize/api/konfig"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// readOnly is the file system that the library sees. It looks at each kustomization before the
// library does, so that nothing it says leads away from this machine.
type readOnly struct {
	filesys.FileSystem
	// read has the files that were read: what was looked at is what is used.
	read map[string][]byte
	size int
	// refused is the first thing that was not allowed.
	refused error
}

// ReadFile implements filesys.FileSystem.
func (f *readOnly) ReadFile(path string) ([]byte, error) {
	if f.refused != nil {
		return nil, f.refused
	}
	content, err := f.content(path)
	if err != nil {
		return nil, err
	}
	if slices.Contains(konfig.RecognizedKustomizationFileNames(), filepath.Base(path)) {
		if err := f.check(path, content); err != nil {
			f.refused = err
			return nil, err
		}
	}
	return content, nil
}

func (f *readOnly) content(path string) (_ []byte, err error) {
	path = filepath.Clean(path)
	if content, ok := f.read[path]; ok {
		return content, nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%q is no regular file", path)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	content, err := io.ReadAll(io.LimitReader(file, MaxFile+1))
	if err != nil {
		return nil, err
	}
	if len(content) > MaxFile {
		f.refused = fmt.Errorf("file %q has more than %d bytes", path, MaxFile)
		return nil, f.refused
	}
	if f.size += len(content); f.size > MaxInput {
		f.refused = fmt.Errorf("the files have more than %d bytes together", MaxInput)
		return nil, f.refused
	}
	f.read[path] = content
	return content, nil
}

// Open implements filesys.FileSystem. The library reads whole files.
func (f *readOnly) Open(string) (filesys.File, error) { return nil, errReadOnly }

// Create implements filesys.FileSystem.
func (f *readOnly) Create(string) (filesys.File, error) { return nil, errReadOnly }

// Mkdir implements filesys.FileSystem.
func (f *readOnly) Mkdir(string) error { return errReadOnly }

// MkdirAll implements filesys.FileSystem.
func (f *readOnly) MkdirAll(string) error { return errReadOnly }

// RemoveAll implements filesys.FileSystem.
func (f *readOnly) RemoveAll(string) error { return errReadOnly }

// WriteFile implements filesys.FileSystem.
func (f *readOnly) WriteFile(string, []byte) error { return errReadOnly }
