package manifest_test

import (
	"testing"

	"github.com/Masterminds/semver/v3"

	"github.com/sealift/sealift/manifest"
)

func TestCompareVersions(t *testing.T) {
	// In the order of semver 2.0.0, section 11; those in one row are equal.
	rows := [][]string{
		{"0.0.0-0"},
		{"0.0.0"},
		{"0.9.99999999999999999999999999"},
		{"1.0.0-alpha", "1.0.0-alpha+x"},
		{"1.0.0-alpha.1"},
		{"1.0.0-alpha.beta"},
		{"1.0.0-alpha-"},
		{"1.0.0-beta"},
		{"1.0.0-beta.2"},
		{"1.0.0-beta.11"},
		{"1.0.0-rc.1"},
		{"1.0.0", "1.0.0+1", "1.0.0+2-3.4"},
		{"1.0.1"},
		{"1.9.0"},
		{"1.10.0"},
		{"2.0.0-x.99999999999999999999"},
		{"2.0.0-x.100000000000000000000"},
		{"2.0.0-x.y"},
		{"10.0.0"},
	}
	for i, a := range rows {
		for j, b := range rows {
			for _, x := range a {
				for _, y := range b {
					if manifest.CheckVersion(x) != nil || manifest.CheckVersion(y) != nil {
						t.Fatalf("%q or %q is no version", x, y)
					}
					if got, want := manifest.CompareVersions(x, y), compareInts(i, j); got != want {
						t.Errorf("%q and %q: got %d, want %d", x, y, got, want)
					}
				}
			}
		}
	}
}

func compareInts(a, b int) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func FuzzCompareVersions(f *testing.F) {
	f.Add("1.0.0-rc.1", "1.0.0+x")
	f.Add("1.2.3", "1.10.0-a.b.1")
	f.Fuzz(func(t *testing.T, a, b string) {
		x, errX := semver.StrictNewVersion(a)
		y, errY := semver.StrictNewVersion(b)
		if manifest.CheckVersion(a) != nil || manifest.CheckVersion(b) != nil || errX != nil || errY != nil {
			return
		}
		if got, want := manifest.CompareVersions(a, b), x.Compare(y); got != want {
			t.Errorf("%q and %q: got %d, want %d", a, b, got, want)
		}
	})
}
