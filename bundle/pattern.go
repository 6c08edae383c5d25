package bundle

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"

	"github.com/sealift/sealift/internal/oci"
)

// maxPattern bounds a pattern, in bytes.
const maxPattern = 512

// Pattern matches references: REGISTRY/REPOSITORY[:TAG][@DIGEST], in which a * stands for one or
// more characters of a segment (none of / : @), and, in the repository, ** for one or more
// characters of any segments. Without a tag it matches any, and without a digest any.
type Pattern struct {
	text              string
	name, tag, digest *regexp.Regexp
}

// PatternError says why a text is no usable pattern.
type PatternError struct {
	Text string
	Err  error
	// Proposal is what was probably meant, or empty.
	Proposal string
}

// Error quotes the text.
func (e *PatternError) Error() string {
	if e.Proposal != "" {
		return fmt.Sprintf("match %q: %v; write %q if that is what you mean", e.Text, e.Err, e.Proposal)
	}
	return fmt.Sprintf("match %q: %v", e.Text, e.Err)
}

// Unwrap returns the cause.
func (e *PatternError) Unwrap() error { return e.Err }

// What the parts of a pattern are made of.
var (
	patternRegistry   = lazily(`\A[a-zA-Z0-9*](?:[a-zA-Z0-9.*-]*[a-zA-Z0-9*])?(?::[0-9*]{1,5})?\z`)
	patternRepository = lazily(`\A[a-z0-9._*-]+(?:/[a-z0-9._*-]+)*\z`)
	patternTag        = lazily(`\A[a-zA-Z0-9_*][a-zA-Z0-9_.*-]{0,127}\z`)
	patternDigest     = lazily(`\A(?:\*|sha256:[0-9a-f*]{1,64})\z`)
)

// lazily compiles an expression when it is first used.
func lazily(expr string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })
}

// Names that stand for Docker Hub, whose references are all written with the first.
const (
	dockerHub    = "docker.io"
	dockerHubAPI = "index.docker.io"
)

// ParsePattern reads a pattern. One without a registry is refused, with what it probably means as
// proposal. Errors are *PatternError.
func ParsePattern(text string) (*Pattern, error) {
	if text == "" || len(text) > maxPattern {
		return nil, &PatternError{Text: text, Err: fmt.Errorf("%d bytes, 1 to %d are allowed", len(text), maxPattern)}
	}
	rest, digest, hasDigest := strings.Cut(text, "@")
	registry, repository, _ := strings.Cut(rest, "/")
	if !looksLikeRegistry(registry) || repository == "" {
		proposal := dockerHub + "/" + text
		if repository == "" {
			proposal = dockerHub + "/library/" + text
		}
		return nil, refused(text, errors.New("names no registry"), proposal)
	}
	tag, hasTag := "", false
	if at := strings.LastIndexByte(repository, ':'); at > strings.LastIndexByte(repository, '/') {
		repository, tag, hasTag = repository[:at], repository[at+1:], true
	}
	if err := checkParts(registry, repository); err != nil {
		return nil, &PatternError{Text: text, Err: err}
	}
	if hasTag && (!patternTag().MatchString(tag) || strings.Contains(tag, "**")) {
		return nil, &PatternError{Text: text, Err: fmt.Errorf("%q cannot match a tag", tag)}
	}
	if hasDigest && (!patternDigest().MatchString(digest) || strings.Contains(digest, "**")) {
		return nil, &PatternError{Text: text, Err: fmt.Errorf("%q cannot match a digest, which is sha256: and 64 lower-case hex digits", digest)}
	}
	if registry == dockerHubAPI {
		return nil, refused(text, errors.New("would match nothing"), dockerHub+strings.TrimPrefix(text, registry))
	}
	if registry == dockerHub && !strings.Contains(repository, "/") && !strings.Contains(repository, "**") {
		return nil, refused(text, errors.New("would match nothing"), dockerHub+"/library"+strings.TrimPrefix(text, registry))
	}
	p := &Pattern{text: text}
	var errs [3]error
	p.name, errs[0] = glob(registry + "/" + repository)
	if hasTag {
		p.tag, errs[1] = glob(tag)
	}
	if hasDigest && digest != "*" {
		p.digest, errs[2] = glob(digest)
	} else if hasDigest {
		p.digest, errs[2] = glob("sha256:*")
	}
	if err := errors.Join(errs[:]...); err != nil {
		return nil, &PatternError{Text: text, Err: err}
	}
	return p, nil
}

// refused proposes another text, if that is a pattern itself.
func refused(text string, err error, proposal string) error {
	if _, bad := ParsePattern(proposal); bad != nil {
		proposal = ""
	}
	return &PatternError{Text: text, Err: err, Proposal: proposal}
}

// looksLikeRegistry applies Docker's rule to the first segment.
func looksLikeRegistry(s string) bool {
	return strings.ContainsAny(s, ".:") || s == "localhost" || s == "*"
}

func checkParts(registry, repository string) error {
	switch {
	case strings.Contains(registry, "**"):
		return errors.New("** is for segments of the repository; in the registry write *")
	case !patternRegistry().MatchString(registry):
		return fmt.Errorf("%q cannot match a registry, which is HOST or HOST:PORT", registry)
	case strings.Contains(repository, "***"):
		return errors.New("*** is unknown: a * stays within a segment, ** does not")
	case !patternRepository().MatchString(repository):
		return fmt.Errorf("%q cannot match a repository, which is made of lower-case letters, digits and ._-/", repository)
	}
	return nil
}

func glob(text string) (*regexp.Regexp, error) {
	var expr strings.Builder
	expr.WriteString(`\A`)
	for text != "" {
		at := strings.IndexByte(text, '*')
		if at < 0 {
			at = len(text)
		}
		expr.WriteString(regexp.QuoteMeta(text[:at]))
		text = text[at:]
		if rest, ok := strings.CutPrefix(text, "**"); ok {
			expr.WriteString(`[^:@]+`)
			text = rest
		} else if rest, ok := strings.CutPrefix(text, "*"); ok {
			expr.WriteString(`[^/:@]+`)
			text = rest
		}
	}
	expr.WriteString(`\z`)
	return regexp.Compile(expr.String())
}

// Matches tells whether r is one of the references that are meant.
func (p *Pattern) Matches(r oci.Reference) bool {
	return p.name.MatchString(r.Registry+"/"+r.Repository) &&
		(p.tag == nil || p.tag.MatchString(r.Tag)) &&
		(p.digest == nil || p.digest.MatchString(r.Digest))
}

// String is the pattern as it is written.
func (p *Pattern) String() string { return p.text }
