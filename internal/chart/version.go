package chart

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"
)

// maxRange bounds a version or a range, in bytes, before it is parsed.
const maxRange = 256

// maxHave bounds how many versions a *VersionError lists.
const maxHave = 10

// CheckRange says whether r is a range of versions as Helm has them: ">=1.30 <1.34", "^1.2",
// "1.x || 2.0.1". An error is a *[RangeError].
func CheckRange(r string) error {
	_, err := parseRange(r)
	return err
}

// InRange says whether a Kubernetes version is in a range. What distributions append to a version
// ("v1.30.2+k3s1", "v1.30.2-gke.100") does not count; what Kubernetes itself appends before a
// release ("v1.31.0-rc.1") does: that is after 1.30 and before 1.31. Versions may be short: "1.34".
//
// An error is a *[RangeError].
func InRange(r, version string) (bool, error) {
	constraint, err := parseRange(r)
	if err != nil {
		return false, err
	}
	if len(version) > maxRange {
		return false, &RangeError{Range: version[:maxRange], Err: fmt.Errorf("longer than %d bytes", maxRange)}
	}
	v, err := semver.NewVersion(version)
	if err != nil {
		return false, &RangeError{Range: version, Err: fmt.Errorf("not a version: %w", err)}
	}
	before := v.Prerelease()
	if !isBeforeRelease(before) {
		before = ""
	}
	constraint.IncludePrerelease = true
	return constraint.Check(semver.New(v.Major(), v.Minor(), v.Patch(), before, "")), nil
}

// isBeforeRelease knows the names that Kubernetes gives its versions before a release; any other
// suffix was put there by a distribution.
func isBeforeRelease(suffix string) bool {
	for _, name := range []string{"alpha", "beta", "rc"} {
		if suffix == name || strings.HasPrefix(suffix, name+".") {
			return true
		}
	}
	return false
}

func parseRange(r string) (*semver.Constraints, error) {
	switch {
	case strings.TrimSpace(r) == "":
		return nil, &RangeError{Range: r, Err: errors.New("it is empty; for any version write *")}
	case len(r) > maxRange:
		return nil, &RangeError{Range: r[:maxRange], Err: fmt.Errorf("longer than %d bytes", maxRange)}
	}
	c, err := semver.NewConstraint(r)
	if err != nil {
		return nil, &RangeError{Range: r, Err: err}
	}
	return c, nil
}

// selector is what somebody asks of a chart's version: nothing, exactly one, or a range.
type selector struct {
	text  string
	exact *semver.Version     // where text is one version
	in    *semver.Constraints // where it is a range
}

func newSelector(text string) (selector, error) {
	s := selector{text: text}
	if text == "" {
		return s, nil
	}
	if v := exactVersion(text); v != nil {
		s.exact = v
		return s, nil
	}
	in, err := parseRange(text)
	s.in = in
	return s, err
}

// exactVersion returns nil for what is not a complete version. "1.2" is not: it means any 1.2.x.
func exactVersion(text string) *semver.Version {
	if len(text) > maxRange {
		return nil
	}
	v, err := semver.StrictNewVersion(strings.TrimPrefix(text, "v"))
	if err != nil {
		return nil
	}
	return v
}

// matches says whether a version that is there satisfies what is asked.
func (s selector) matches(version string) bool {
	if s.text == "" || version == s.text {
		return true
	}
	v, err := semver.NewVersion(version)
	switch {
	case err != nil:
		return false
	case s.exact != nil:
		return v.Equal(s.exact) && (s.exact.Metadata() == "" || v.Metadata() == s.exact.Metadata())
	default:
		return s.in.Check(v)
	}
}

// choose returns the position of the newest version that satisfies what is asked; -1 for none. Without
// a wish that is the newest release: as in a range, versions before a release are
// taken only by who asks for them.
func (s selector) choose(versions []string) int {
	if i := slices.Index(versions, s.text); i >= 0 && s.text != "" {
		return i
	}
	best := -1
	for i, text := range versions {
		v, err := semver.NewVersion(text)
		if err != nil || !s.matches(text) || s.text == "" && v.Prerelease() != "" {
			continue
		}
		if best < 0 || compareVersions(text, versions[best]) > 0 {
			best = i
		}
	}
	return best
}

// compareVersions orders versions, also by their build metadata, of which semver says nothing: two runs
// must choose the same. What is no version comes first.
func compareVersions(a, b string) int {
	va, errA := semver.NewVersion(a)
	vb, errB := semver.NewVersion(b)
	switch {
	case errA != nil && errB != nil:
		return strings.Compare(a, b)
	case errA != nil:
		return -1
	case errB != nil:
		return 1
	}
	if n := va.Compare(vb); n != 0 {
		return n
	}
	if (va.Metadata() == "") != (vb.Metadata() == "") {
		return strings.Compare(va.Metadata(), vb.Metadata())
	}
	// Compared as the suffixes of versions are, so that build.10 is after build.9.
	if n := semver.New(0, 0, 0, va.Metadata(), "").Compare(semver.New(0, 0, 0, vb.Metadata(), "")); n != 0 {
		return n
	}
	return strings.Compare(a, b)
}

// none is the error where nothing that is there satisfies what is asked.
func (s selector) none(chart string, versions []string) *VersionError {
	have := slices.Clone(versions)
	slices.SortFunc(have, func(a, b string) int { return compareVersions(b, a) })
	have = slices.Compact(have)
	return &VersionError{Chart: chart, Want: s.text, Have: have[:min(len(have), maxHave)]}
}
