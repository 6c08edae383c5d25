package install

import (
	"errors"
	"strings"
	"testing"
)

func TestFindings(t *testing.T) {
	c := check{name: CheckObjects}
	for range maxFindings {
		c.warn("ConfigMap/a/b", "", "old")
	}
	c.fail("Service/a/b", "change it", "taken")
	found := c.done("all is well")
	if len(found) != maxFindings+1 || found[0].Level != LevelFail || found[maxFindings].Level != LevelWarn || !strings.Contains(found[maxFindings].Text, "1 more") {
		t.Errorf("got %d findings, the first %+v, the last %+v; want what fails first, and that there are more", len(found), found[0], found[len(found)-1])
	}
	r := &PreflightReport{Findings: found}
	err := r.Err()
	var preflight *PreflightError
	var findings *FindingsError
	if !errors.As(err, &preflight) || !errors.As(err, &findings) || !strings.Contains(err.Error(), "objects: Service/a/b: taken") || strings.Contains(err.Error(), "old") {
		t.Errorf("got %v, want what fails and no more", err)
	}
	passed := check{name: CheckAPI}
	r = &PreflightReport{Findings: passed.done("all %d are served", 3)}
	if r.Err() != nil || r.Count(LevelPass) != 1 || r.Findings[0].Text != "all 3 are served" {
		t.Errorf("got %+v, want one that passed", r.Findings)
	}
}

func TestNodePlatforms(t *testing.T) {
	for platform, want := range map[string]string{"linux/arm64/v8": "linux/arm64", "linux/amd64": "linux/amd64", "linux": "linux", "": ""} {
		if got := nodePlatform(platform); got != want {
			t.Errorf("%q: got %q, want %q", platform, got, want)
		}
	}
	for _, c := range []struct {
		platforms []string
		node      string
		suits     bool
	}{
		{[]string{"linux/arm64/v8"}, "linux/arm64", true},
		{[]string{"linux/amd64"}, "linux/amd64", true},
		{[]string{"linux/arm/v7"}, "linux/arm64", false},
		{[]string{"linux/amd64"}, "windows/amd64", false},
	} {
		if got := suitsNode(c.platforms, c.node); got != c.suits {
			t.Errorf("%v on %s: got %t, want %t", c.platforms, c.node, got, c.suits)
		}
	}
}
