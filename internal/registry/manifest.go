package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"unicode"
)

const (
	// maxManifest bounds a manifest that is pushed, in bytes: as distribution does.
	maxManifest = 4 << 20
	// maxElements bounds what is in all lists of a manifest together, maxTokens all that is in it: what
	// takes three bytes there takes hundreds in memory.
	maxElements = 10_000
	maxTokens   = 400_000
	// maxParsing bounds how many manifests are parsed at the same time.
	maxParsing = 8
	// maxRepository bounds the name of a repository, in bytes: as reference.RepositoryNameTotalLengthMax.
	maxRepository = 255
)

// refuseNames answers requests with names that no file can have, and reports whether it has.
func refuseNames(w http.ResponseWriter, r *http.Request) bool {
	switch {
	case len(repositoryOf(r.URL.Path)) > maxRepository:
		refuse(w, http.StatusBadRequest, "NAME_INVALID", "the name of the repository is longer than 255 bytes")
	case strings.ContainsFunc(r.URL.Query().Get("last"), unicode.IsControl):
		refuse(w, http.StatusBadRequest, "NAME_INVALID", "the parameter last has control characters in it")
	default:
		return false
	}
	return true
}

// putManifest lets the registry have a manifest that does not take more memory than it may.
func (s *Server) putManifest(w http.ResponseWriter, r *http.Request) {
	raw, err := io.ReadAll(io.LimitReader(r.Body, maxManifest+1))
	if err != nil {
		refuse(w, http.StatusBadRequest, "MANIFEST_INVALID", "the manifest did not come as a whole")
		return
	}
	if len(raw) > maxManifest {
		refuse(w, http.StatusRequestEntityTooLarge, "MANIFEST_INVALID", "the manifest is larger than 4 MiB")
		return
	}
	select {
	case s.parsing <- struct{}{}:
		defer func() { <-s.parsing }()
	case <-r.Context().Done():
		return
	}
	if !modest(raw) {
		refuse(w, http.StatusBadRequest, "MANIFEST_INVALID", "the manifest has too much in it: no more than 10000 elements of lists are taken")
		return
	}
	r = r.WithContext(r.Context())
	r.Body = io.NopCloser(bytes.NewReader(raw))
	s.app.ServeHTTP(w, r)
}

// modest reports whether JSON has no more in it than a manifest may have. What is no JSON is: nobody
// parses more of it.
func modest(raw []byte) bool {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber() // none is too large
	elements := 0
	var lists []bool // what the decoder is in, outermost first: true for a list
	for range maxTokens {
		t, err := d.Token()
		if err != nil {
			return errors.Is(err, io.EOF) || !json.Valid(raw)
		}
		delim, isDelim := t.(json.Delim)
		if isDelim && (delim == ']' || delim == '}') {
			lists = lists[:len(lists)-1]
			continue
		}
		if n := len(lists); n > 0 && lists[n-1] {
			if elements++; elements > maxElements {
				return false
			}
		}
		if isDelim {
			lists = append(lists, delim == '[')
		}
	}
	return false
}
