package bundle

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/sealift/sealift/manifest"
)

// UnknownLockedError says that a lock has nothing of a name.
type UnknownLockedError struct {
	Name string
	// Near are names that are there and may have been meant.
	Near []string
}

// Error proposes what is near.
func (e *UnknownLockedError) Error() string {
	text := fmt.Sprintf("nothing in the lock is called %q", e.Name)
	if len(e.Near) > 0 {
		text += "; did you mean " + strings.Join(e.Near, " or ") + "?"
	}
	return text
}

// Without is a copy of the lock that lacks what the names mean, so that it is looked for again, and
// that has no time: moving forward is another moment. A name is an image or artifact with or without
// its tag, a release with or without its namespace, a chart as the spec has it or the last part of
// that, a file, a directory with all that is below it; or a pattern for any of these, in which each *
// stands for one or more characters other than / : and @, and ** for any but : and @. Without names
// nothing stays. A name that
// means nothing is an *UnknownLockedError, a malformed pattern a *PatternError.
func (l *Lock) Without(names []string) (*Lock, error) {
	rest := &Lock{}
	if len(names) == 0 {
		return rest, nil
	}
	goes := make(map[string]bool, len(names))
	matchers := make([]lockName, len(names))
	for i, name := range names {
		m := lockName{text: name}
		if strings.Contains(name, "*") {
			if len(name) > maxPattern {
				return nil, &PatternError{Text: name, Err: fmt.Errorf("%d bytes, at most %d are allowed", len(name), maxPattern)}
			}
			var err error
			if m.pattern, err = glob(name); err != nil {
				return nil, &PatternError{Text: name, Err: err}
			}
		}
		matchers[i] = m
	}
	// Every name is asked about everything, so that each that means something is seen to.
	means := func(calls []string, below string) bool {
		any := false
		for i := range matchers {
			if matchers[i].means(calls, below) {
				any, goes[matchers[i].text] = true, true
			}
		}
		return any
	}
	for i := range l.Images {
		if !means(imageNames(l.Images[i].Ref), "") {
			rest.Images = append(rest.Images, l.Images[i])
		}
	}
	for i := range l.Artifacts {
		if !means(imageNames(l.Artifacts[i].Ref), "") {
			rest.Artifacts = append(rest.Artifacts, l.Artifacts[i])
		}
	}
	for i := range l.Charts {
		if !means(l.Charts[i].names(), "") {
			rest.Charts = append(rest.Charts, l.Charts[i])
		}
	}
	for _, f := range l.Files {
		if !means([]string{f.Path, strings.TrimSuffix(f.Path, lockedRendered)}, f.Path) {
			rest.Files = append(rest.Files, f)
		}
	}
	for _, name := range names {
		if !goes[name] {
			return nil, &UnknownLockedError{name, l.near(name)}
		}
	}
	return rest, nil
}

// lockName is a name or pattern for things in a lock.
type lockName struct {
	text    string
	pattern *regexp.Regexp
}

// means reports whether one of the names that a thing has is meant, or the directory that the path
// below is in.
func (n *lockName) means(calls []string, below string) bool {
	if n.pattern != nil {
		return slices.ContainsFunc(calls, n.pattern.MatchString)
	}
	clean := path.Clean(n.text)
	return slices.ContainsFunc(calls, func(call string) bool {
		return call == n.text || !strings.Contains(call, "://") && path.Clean(call) == clean
	}) ||
		below != "" && strings.HasPrefix(path.Clean(below), clean+"/")
}

// imageNames are the ways to call an image: in full, without its digest, without its tag.
func imageNames(ref string) []string {
	repository, tag, _ := manifest.SplitSource(ref)
	names := []string{ref, repository}
	if tag != "" {
		names = append(names, repository+":"+tag)
	}
	return names
}

// names are the ways to call a chart and its release.
func (c *LockedChart) names() []string {
	_, release, _ := strings.Cut(c.Release, "/")
	names := []string{c.Release, release, c.Chart}
	last := c.Chart
	if oci, found := strings.CutPrefix(last, "oci://"); found {
		var tag string
		if last, tag, _ = manifest.SplitSource(oci); tag != "" || strings.Contains(oci, "@") {
			names = append(names, "oci://"+last)
		}
	}
	// A repository is separated from the name of the chart by a space; other spaces are in a path.
	if _, name, found := strings.Cut(last, " "); found && strings.Contains(last, "://") {
		last = name
	}
	return append(names, path.Base(last))
}

const (
	// maxNear bounds how many names are proposed, nearDistance how many letters may differ.
	maxNear      = 3
	nearDistance = 2
)

// near finds names that are like one that means nothing: with the same last part, or but for a few
// letters.
func (l *Lock) near(name string) []string {
	var near []string
	try := func(proposal string, calls ...string) {
		if len(near) < maxNear && !slices.Contains(near, proposal) && slices.ContainsFunc(calls, func(call string) bool {
			return path.Base(call) == path.Base(name) || alike(call, name) || alike(path.Base(call), path.Base(name))
		}) {
			near = append(near, proposal)
		}
	}
	for _, list := range [][]LockedImage{l.Images, l.Artifacts} {
		for i := range list {
			try(list[i].Ref, imageNames(list[i].Ref)...)
		}
	}
	for i := range l.Charts {
		try(l.Charts[i].Release, l.Charts[i].names()...)
	}
	for _, f := range l.Files {
		try(f.Path, f.Path)
	}
	return near
}

// alike reports whether at most nearDistance letters were added, left out or exchanged, of names
// that are so long that this means something.
func alike(a, b string) bool {
	if min(len(a), len(b)) < 2*nearDistance || max(len(a), len(b))-min(len(a), len(b)) > nearDistance || len(a) > maxLockText {
		return false
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal, least := row[0], i+1
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
			least = min(least, row[j+1])
		}
		if least > nearDistance {
			return false
		}
	}
	return row[len(b)] <= nearDistance
}
