package manifest

import (
	"cmp"
	"strings"
)

// CompareVersions compares two versions that CheckVersion accepts by their precedence (semver
// 2.0.0, section 11): -1 where a is the older one, 1 where b is, and 0 where neither is, as for
// versions that differ in build metadata only.
func CompareVersions(a, b string) int {
	a, _, _ = strings.Cut(a, "+")
	b, _, _ = strings.Cut(b, "+")
	coreA, preA, isPreA := strings.Cut(a, "-")
	coreB, preB, isPreB := strings.Cut(b, "-")
	if c := compareFields(coreA, coreB); c != 0 {
		return c
	}
	switch {
	case isPreA && isPreB:
		return compareFields(preA, preB)
	case isPreA:
		return -1
	case isPreB:
		return 1
	}
	return 0
}

// compareFields compares the parts between dots, of which more are more.
func compareFields(a, b string) int {
	x, y := strings.Split(a, "."), strings.Split(b, ".")
	for i := range min(len(x), len(y)) {
		if c := compareField(x[i], y[i]); c != 0 {
			return c
		}
	}
	return cmp.Compare(len(x), len(y))
}

func compareField(a, b string) int {
	numberA, numberB := isNumber(a), isNumber(b)
	switch {
	case numberA && numberB:
		// Without leading zeros the longer one is the larger one, whatever its size.
		return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
	case numberA:
		return -1
	case numberB:
		return 1
	}
	return strings.Compare(a, b)
}

func isNumber(s string) bool { return strings.Trim(s, "0123456789") == "" }
