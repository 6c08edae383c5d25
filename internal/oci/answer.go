package oci

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

const (
	// maxRefusal bounds what is read of a refusal, in bytes.
	maxRefusal = 64 << 10
	// maxWords bounds what is quoted of it, maxDetail what is of one detail.
	maxWords  = 1000
	maxDetail = 400
	// maxDepth bounds how deep details are read.
	maxDepth = 4
)

// answerError is an answer that refuses something, in the registry's own words: those of the errors
// that it lists (OCI distribution spec 1.1, "error codes") or else what it says instead.
type answerError struct {
	method string
	words  string
	err    *transport.Error
}

// Error gives status and words, printable and of bounded length.
func (e *answerError) Error() string {
	status := fmt.Sprintf("%s answered with %d %s", e.method, e.err.StatusCode, http.StatusText(e.err.StatusCode))
	if e.words == "" {
		return strings.TrimSpace(status)
	}
	return status + ": " + e.words
}

// Unwrap returns what predicates and callers look at.
func (e *answerError) Unwrap() error { return e.err }

// check returns an error unless an answer has one of these codes. It leaves the body as it is where
// there is none.
func check(resp *http.Response, codes ...int) error {
	if slices.Contains(codes, resp.StatusCode) {
		return nil
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxRefusal))
	if err != nil {
		raw = nil // the refusal counts, not its words
	}
	parsed := &http.Response{StatusCode: resp.StatusCode, Body: io.NopCloser(bytes.NewReader(raw)), Request: resp.Request}
	var t *transport.Error
	if err := transport.CheckError(parsed); !errors.As(err, &t) {
		t = &transport.Error{StatusCode: resp.StatusCode, Request: resp.Request}
	}
	method := "it"
	if resp.Request != nil {
		method = resp.Request.Method
	}
	return &answerError{method, wordsOf(t, raw), t}
}

// wordsOf is what a refusal says.
func wordsOf(t *transport.Error, raw []byte) string {
	if len(t.Errors) == 0 {
		return clean(title(string(raw)), maxDetail)
	}
	var all []string
	for _, d := range t.Errors {
		words := strings.Trim(string(d.Code)+": "+d.Message, ": ")
		if detail := clean(detailWords(d.Detail, maxDepth), maxDetail); detail != "" && detail != clean(d.Message, maxDetail) {
			words += " (" + detail + ")"
		}
		all = append(all, words)
	}
	return clean(strings.Join(all, "; "), maxWords)
}

// title is that of an HTML page; other text is returned as it is.
func title(text string) string {
	lower := strings.ToLower(text)
	if _, rest, ok := strings.Cut(lower, "<title>"); ok && len(lower) == len(text) {
		if inner, _, ok := strings.Cut(rest, "</title>"); ok {
			at := len(text) - len(rest)
			return text[at : at+len(inner)]
		}
	}
	return text
}

// detailWords are those of the detail of an error. Its form is up to the registry: distribution
// gives what Go makes of its own error, a path and the number of a system's error among it.
func detailWords(detail any, depth int) string {
	if depth == 0 {
		return "…"
	}
	switch d := detail.(type) {
	case nil:
		return ""
	case string:
		return d
	case float64, bool:
		return fmt.Sprint(d)
	case []any:
		var all []string
		for _, item := range d[:min(len(d), maxDetail)] {
			all = append(all, detailWords(item, depth-1))
		}
		return strings.Join(all, ", ")
	case map[string]any:
		if words := pathErrorWords(d); words != "" {
			return words
		}
		var all []string
		for _, key := range slices.Sorted(maps.Keys(d)) {
			if words := detailWords(d[key], depth-1); words != "" {
				all = append(all, key+": "+words)
			}
		}
		return strings.Join(all, ", ")
	}
	return ""
}

// errnos are numbers of the errors of Linux that a registry may meet.
var errnos = map[float64]string{
	2: "no such file or directory", 5: "input/output error", 13: "permission denied", 24: "too many open files", 27: "file too large",
	28: noSpaceWords[0], 30: "read-only file system", 116: "stale file handle", 122: noSpaceWords[1],
}

// pathErrorWords are those of an *fs.PathError in JSON, empty for anything else.
func pathErrorWords(d map[string]any) string {
	op, isOp := d["Op"].(string)
	path, isPath := d["Path"].(string)
	number, isNumber := d["Err"].(float64)
	if !isOp || !isPath || !isNumber {
		return ""
	}
	return fmt.Sprintf("%s %s: %s", op, path, cmp.Or(errnos[number], fmt.Sprintf("error %v of the system", number)))
}

// clean makes foreign text one printable line of at most so many bytes.
func clean(text string, limit int) string {
	if len(text) > 4*limit {
		text = text[:4*limit]
	}
	text = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
	text = strings.Join(strings.Fields(text), " ")
	if len(text) <= limit {
		return text
	}
	end := limit
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + "…"
}

// noSpaceWords are what systems say when there is no room left. No code of the distribution spec
// says it, so that the words have to.
var noSpaceWords = []string{"no space left on device", "disk quota exceeded", "not enough space on the disk"}

// IsNoSpace reports whether a registry could not store something for want of room on its disk.
func IsNoSpace(err error) bool {
	var e *answerError
	if !errors.As(err, &e) {
		return statusOf(err) == http.StatusInsufficientStorage
	}
	return e.err.StatusCode == http.StatusInsufficientStorage ||
		e.err.StatusCode >= 500 && slices.ContainsFunc(noSpaceWords, func(w string) bool { return strings.Contains(strings.ToLower(e.words), w) })
}
