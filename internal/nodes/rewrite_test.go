package nodes

import (
	"regexp"
	"testing"

	"github.com/BurntSushi/toml"
)

// replaced is path as containerd asks for it that k3s has configured: the template of k3s puts pattern
// and name into a TOML file as they are.
func replaced(t *testing.T, pattern, name, path string) string {
	t.Helper()
	if pattern == "" {
		return path
	}
	var file struct{ Rewrite map[string]string }
	if _, err := toml.Decode("[rewrite]\n  \""+pattern+"\" = \""+name+"\"\n", &file); err != nil {
		t.Fatal(err)
	}
	for p, n := range file.Rewrite {
		path = regexp.MustCompile(p).ReplaceAllString(path, n)
	}
	return path
}
