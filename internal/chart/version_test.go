package chart

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestInRange(t *testing.T) {
	tests := []struct {
		r, version string
		want       bool
	}{
		{">=1.30", "v1.30.2+k3s1", true},
		{">=1.30", "v1.30.2-gke.100", true},
		{">=1.30", "v1.30.0-eks-a1b2c3", true},
		{">=1.30", "1.30", true},
		{">=1.30", "v1.29.14+k3s1", false},
		{">=1.30 <1.34", "v1.33.9", true},
		{">=1.30 <1.34", "v1.34.0", false},
		{">=1.30, <1.34", "v1.31.0", true},
		{"1.30.x || 1.32.x", "v1.31.1", false},
		{"~1.30", "v1.30.9-rke2r1", true},
		{">=1.31", "v1.31.0-rc.1", false},
		{">=1.30", "v1.31.0-rc.1", true},
		{">=1.30", "v1.31.0-alpha.1+5", true},
		{"*", "v1.30.1", true},
		{">=1.30.2", "v1.30.2-gke.100", true},
	}
	for _, tt := range tests {
		got, err := InRange(tt.r, tt.version)
		if err != nil || got != tt.want {
			t.Errorf("%q in %q: got %t %v", tt.version, tt.r, got, err)
		}
	}
	for _, bad := range [][2]string{{"", "1.30.0"}, {"newest", "1.30.0"}, {">=1.30", "latest"}, {">=1.30", strings.Repeat("1", 300)}, {strings.Repeat("1", 300), "1.30.0"}} {
		var re *RangeError
		if _, err := InRange(bad[0], bad[1]); !errors.As(err, &re) {
			t.Errorf("%q: got %v", bad, err)
		}
	}
	if err := CheckRange(">=1.30 <1.34"); err != nil {
		t.Error(err)
	}
	var re *RangeError
	if err := CheckRange(">=one"); !errors.As(err, &re) || re.Range != ">=one" {
		t.Errorf("got %v", err)
	}
}

func TestSelector(t *testing.T) {
	have := []string{"1.2.3", "v2.0.1", "2.1.0-rc.1", "1.10.0", "1.2.3+build.9", "1.2.3+build.10", "junk", "1.9.0"}
	tests := []struct{ ask, want string }{
		{"", "v2.0.1"},
		{"*", "v2.0.1"},
		{"1.x", "1.10.0"},
		{"^1.2", "1.10.0"},
		{"1.2", "1.2.3+build.10"}, // any 1.2.x
		{"1.2.3", "1.2.3"},
		{"1.2.3+build.9", "1.2.3+build.9"},
		{"2.0.1", "v2.0.1"},
		{"v1.9.0", "1.9.0"},
		{">=2.1.0-0", "2.1.0-rc.1"},
		{">=2.1.0", ""},
		{"1.2.3+build.11", ""},
		{"3.0.0", ""},
	}
	for _, tt := range tests {
		s, err := newSelector(tt.ask)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 { // in any order
			got := ""
			if i := s.choose(have); i >= 0 {
				got = have[i]
			}
			if got != tt.want {
				t.Errorf("%q: got %q, want %q", tt.ask, got, tt.want)
			}
			have = append(have[3:], have[:3]...)
		}
	}
	err := selector{text: "9"}.none("shop", have)
	if want := []string{"2.1.0-rc.1", "v2.0.1", "1.10.0", "1.9.0", "1.2.3+build.10", "1.2.3+build.9", "1.2.3", "junk"}; !slices.Equal(err.Have, want) {
		t.Errorf("got %q", err.Have)
	}
	many := make([]string, 0, 30)
	for range 15 {
		many = append(many, "1.0."+strings.Repeat("1", len(many)+1), "1.0.0")
	}
	if got := len((selector{text: "9"}).none("shop", many).Have); got != maxHave {
		t.Errorf("%d versions are listed", got)
	}
}
