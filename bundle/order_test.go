package bundle

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// nodes reads releases such as "ns/a: b c/d".
func nodes(lines ...string) []releaseNode {
	var list []releaseNode
	for i, line := range lines {
		name, on, _ := strings.Cut(line, ":")
		namespace, release, _ := strings.Cut(name, "/")
		list = append(list, releaseNode{release: release, namespace: namespace, dependsOn: strings.Fields(on), line: 10 + i})
	}
	return list
}

func TestOrder(t *testing.T) {
	for _, c := range []struct {
		list  []string
		order []int
	}{
		{nil, nil},
		{[]string{"x/a", "x/b", "x/c"}, []int{0, 1, 2}},
		{[]string{"x/a: c", "x/b", "x/c"}, []int{1, 2, 0}},
		{[]string{"x/a: b", "x/b: c", "x/c"}, []int{2, 1, 0}},
		{[]string{"x/a", "x/b: a", "x/c: a b x/b"}, []int{0, 1, 2}},
		{[]string{"x/a: y/a", "y/a"}, []int{1, 0}},
		{[]string{"x/d: b", "x/a", "x/b: c", "x/c", "x/e"}, []int{1, 3, 2, 0, 4}},
	} {
		order, dependsOn, err := sortReleases(nodes(c.list...))
		if err != nil || !slices.Equal(order, c.order) || len(dependsOn) != len(c.list) {
			t.Errorf("%q: %v, %v, %v", c.list, order, dependsOn, err)
		}
	}
	_, dependsOn, err := sortReleases(nodes("x/a: b y/c x/b", "x/b", "y/c"))
	if want := [][]string{{"x/b", "y/c"}, nil, nil}; err != nil || !reflect.DeepEqual(dependsOn, want) {
		t.Errorf("%q, %v", dependsOn, err)
	}
}

func TestOrderRefused(t *testing.T) {
	for want, list := range map[string][]string{
		`dependsOn of release "x/a" (line 10 of the spec): there is no release "c" here; there are x/a, x/b`:         {"x/a: c", "x/b"},
		`dependsOn of release "x/b" (line 11 of the spec): there is no release "y/a" here; there are x/a, x/b`:       {"x/a", "x/b: y/a"},
		`dependsOn of release "x/b" (line 12 of the spec): release "a" may be one of several; write one of x/a, y/a`: {"x/a", "y/a", "x/b: a"},
		`releases depend on each other in a circle (line 10 of the spec): x/a -> x/a`:                                {"x/a: a"},
		`releases depend on each other in a circle (line 11 of the spec): x/b -> x/d -> x/c -> x/b`:                  {"x/a: b", "x/b: d", "x/c: b", "x/d: c e", "x/e"},
	} {
		_, _, err := sortReleases(nodes(list...))
		var on *DependsOnError
		var circle *CycleError
		if err == nil || err.Error() != want || !errors.As(err, &on) && !errors.As(err, &circle) {
			t.Errorf("%q:\ngot  %v\nwant %s", list, err, want)
		}
		var name *ReleaseNameError
		if on != nil && !errors.As(err, &name) {
			t.Errorf("%v wraps no *ReleaseNameError", err)
		}
	}
}

// FuzzOrder: everything is there once, behind what it depends on.
func FuzzOrder(f *testing.F) {
	f.Add([]byte{3, 1, 2, 0xff, 0, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		var list []releaseNode
		for i, on := range b {
			n := releaseNode{release: string(rune('a' + i%26)), namespace: string(rune('a' + i/26%26)), line: i}
			if int(on) < len(b) {
				n.dependsOn = []string{string(rune('a'+int(on)/26%26)) + "/" + string(rune('a'+int(on)%26))}
			}
			list = append(list, n)
		}
		if len(list) > 26*26 {
			return
		}
		order, dependsOn, err := sortReleases(list)
		var circle *CycleError
		if errors.As(err, &circle) {
			if len(circle.Releases) == 0 {
				t.Fatal("an empty circle")
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		var done []string
		for _, i := range order {
			for _, on := range dependsOn[i] {
				if !slices.Contains(done, on) {
					t.Fatalf("%s stands before %s", list[i].name(), on)
				}
			}
			done = append(done, list[i].name())
		}
		if len(done) != len(list) {
			t.Fatalf("%d of %d", len(done), len(list))
		}
	})
}
