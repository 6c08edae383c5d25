package bundle

import (
	"fmt"
	"slices"
	"strings"
)

// releaseNode is a release with what it depends on, as the spec says it.
type releaseNode struct {
	release, namespace string
	// dependsOn are "RELEASE" or "NAMESPACE/RELEASE".
	dependsOn []string
	// line of the spec.
	line int
}

func (n *releaseNode) name() string { return n.namespace + "/" + n.release }

// ReleaseNameError says that a name in a spec leads to no release, or to several.
type ReleaseNameError struct {
	Name string
	// Candidates are the releases that it may mean, or all where it means none.
	Candidates []string
	Ambiguous  bool
}

// Error lists what it may mean.
func (e *ReleaseNameError) Error() string {
	if e.Ambiguous {
		return fmt.Sprintf("release %q may be one of several; write one of %s", e.Name, strings.Join(e.Candidates, ", "))
	}
	return fmt.Sprintf("there is no release %q here; there are %s", e.Name, strings.Join(e.Candidates, ", "))
}

// DependsOnError says that a release depends on what is not there, or not clear.
type DependsOnError struct {
	// Release is "NAMESPACE/RELEASE", Line where the spec has it.
	Release string
	Line    int
	Err     error
}

// Error names the release and its line in the spec.
func (e *DependsOnError) Error() string {
	return fmt.Sprintf("dependsOn of release %q (line %d of the spec): %v", e.Release, e.Line, e.Err)
}

// Unwrap returns the cause, a *ReleaseNameError.
func (e *DependsOnError) Unwrap() error { return e.Err }

// CycleError says that releases wait for each other.
type CycleError struct {
	// Releases as "NAMESPACE/RELEASE", each depending on the next one, and the last on the first.
	Releases []string
	// Line of the spec where the first of them is.
	Line int
}

// Error names the circle.
func (e *CycleError) Error() string {
	return fmt.Sprintf("releases depend on each other in a circle (line %d of the spec): %s -> %s", e.Line, strings.Join(e.Releases, " -> "), e.Releases[0])
}

// resolveRelease finds the release that a name in the spec means.
func resolveRelease(list []releaseNode, name string) (int, error) {
	var found []int
	var all []string
	for i := range list {
		all = append(all, list[i].name())
		if list[i].release == name || list[i].name() == name {
			found = append(found, i)
		}
	}
	switch len(found) {
	case 0:
		return 0, &ReleaseNameError{Name: name, Candidates: all}
	case 1:
		return found[0], nil
	}
	e := &ReleaseNameError{Name: name, Ambiguous: true}
	for _, i := range found {
		e.Candidates = append(e.Candidates, list[i].name())
	}
	return 0, e
}

// sortReleases returns the order in which releases are installed, as positions in list: that of the
// list, where nothing has to wait for what comes later. dependsOn has, by the positions in list,
// what each depends on as "NAMESPACE/RELEASE". Errors are *DependsOnError and *CycleError.
func sortReleases(list []releaseNode) (order []int, dependsOn [][]string, err error) {
	waits := make([][]int, len(list))
	dependsOn = make([][]string, len(list))
	for i := range list {
		for _, name := range list[i].dependsOn {
			d, err := resolveRelease(list, name)
			if err != nil {
				return nil, nil, &DependsOnError{list[i].name(), list[i].line, err}
			}
			if !slices.Contains(waits[i], d) {
				waits[i] = append(waits[i], d)
				dependsOn[i] = append(dependsOn[i], list[d].name())
			}
		}
	}
	done := make([]bool, len(list))
	ready := func(i int) bool {
		return !done[i] && !slices.ContainsFunc(waits[i], func(d int) bool { return !done[d] })
	}
	for len(order) < len(list) {
		next := -1
		for i := range list {
			if ready(i) {
				next = i
				break
			}
		}
		if next < 0 {
			return nil, nil, circle(list, waits, done)
		}
		done[next] = true
		order = append(order, next)
	}
	return order, dependsOn, nil
}

// circle finds one among what is not done: each of those waits for another one of them.
func circle(list []releaseNode, waits [][]int, done []bool) *CycleError {
	at := slices.Index(done, false)
	var path []int
	for !slices.Contains(path, at) {
		path = append(path, at)
		at = waits[at][slices.IndexFunc(waits[at], func(d int) bool { return !done[d] })]
	}
	path = path[slices.Index(path, at):]
	// It begins where the spec has it first.
	first := slices.Index(path, slices.Min(path))
	path = append(path[first:], path[:first]...)
	e := &CycleError{Line: list[path[0]].line}
	for _, i := range path {
		e.Releases = append(e.Releases, list[i].name())
	}
	return e
}
