package install

import (
	"reflect"
	"strings"
	"testing"
)

func TestRenderingWords(t *testing.T) {
	for _, r := range []Rendering{
		{}, {Pin: PinTag, NoRewrite: true, PullSecrets: []string{"a", "b.c"}}, {Pin: PinBare, ConfigMaps: []string{"ns/a", "ns/b"}},
	} {
		got, err := ReadRendering(r.Words())
		if err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("%+v became %+v, %v", r, got, err)
		}
	}
	if w := (Rendering{Autoscaled: map[string]bool{"x": true}}).Words(); w != nil {
		t.Errorf("words %v", w)
	}
	for _, words := range []map[string]string{
		{"x": ""},
		{"pin": "none"},
		{"noRewrite": "yes"},
		{"pullSecrets": ""},
		{"pullSecrets": "a,a"},
		{"pullSecrets": "A"},
		{"configMaps": "a"},
		{"configMaps": "a/b,a/b"},
		{"configMaps": "a/b", "noRewrite": "true"},
		{"pullSecrets": strings.Repeat("a,", 16) + "b"},
	} {
		if r, err := ReadRendering(words); err == nil {
			t.Errorf("%v is %+v", words, r)
		}
	}
}

func TestPinned(t *testing.T) {
	digest := "@sha256:" + strings.Repeat("a", 64)
	for _, c := range []struct {
		pin     Pin
		inParts bool
		text    string
		want    string
	}{
		{"", false, "site:5000/a:1" + digest, "site:5000/a:1" + digest},
		{PinDigest, true, "site:5000/a:1" + digest, "site:5000/a:1" + digest},
		{PinTag, false, "site:5000/a:1" + digest, "site:5000/a:1"},
		{PinTag, false, "site:5000/a" + digest, "site:5000/a" + digest},
		{PinBare, false, "site:5000/a:1" + digest, "site:5000/a" + digest},
		{PinBare, true, "site:5000/a:1" + digest, "site:5000/a:1" + digest},
		{PinBare, false, "site:5000/a" + digest, "site:5000/a" + digest},
	} {
		if got := (Rendering{Pin: c.pin}).pinned(c.text, c.inParts); got != c.want {
			t.Errorf("%s of %s: got %s, want %s", c.pin, c.text, got, c.want)
		}
	}
}
