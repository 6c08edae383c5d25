package install

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/sealift/sealift/internal/chart"
	"github.com/sealift/sealift/manifest"
)

func file(name, text string) chart.ValuesFile {
	return chart.ValuesFile{Name: name, Data: []byte(text)}
}

// siteManifest has two releases, an environment, and parameters.
func siteManifest() *manifest.Manifest {
	three := "3"
	return &manifest.Manifest{
		Charts: []manifest.Chart{
			{
				Release: "web", Namespace: "shop",
				Values:         []manifest.ValuesFile{{Name: "vendor.yaml"}},
				Environments:   []manifest.Environment{{Name: "staging", Values: []manifest.ValuesFile{{Name: "staging.yaml"}}}},
				RegistryValues: []manifest.RegistryValue{{Path: "registry", Gets: manifest.RegistryWhole}},
			},
			{Release: "db", Namespace: "data"},
			{Release: "crds", Namespace: "shop", Plain: true},
		},
		Parameters: []manifest.Parameter{
			{Name: "replicas", Type: manifest.ParameterInteger, Default: &three, Values: []manifest.ParameterValue{{Release: "shop/web", Path: "replicas"}}},
			{Name: "password", Type: manifest.ParameterString, Secret: true, Pattern: "[a-z0-9]+", Values: []manifest.ParameterValue{{Release: "shop/web", Path: "auth.password"}}},
			{Name: "host", Type: manifest.ParameterString, Enum: []string{"a", "b"}, Values: []manifest.ParameterValue{{Release: "shop/web", Path: "host"}}},
		},
	}
}

// valuesOf are the values of shop/web with a site.
func valuesOf(t *testing.T, s Site) (map[string]any, []string) {
	t.Helper()
	m := siteManifest()
	files := map[string]string{
		"vendor.yaml":  "{who: vendor, a: vendor, b: vendor, c: vendor, d: vendor, registry: vendor, list: [1]}",
		"staging.yaml": "{who: staging, a: staging, b: staging, c: staging, list: [2, 3]}",
	}
	vendor, err := s.vendorValues(&m.Charts[0], func(v manifest.ValuesFile) ([]byte, error) { return []byte(files[v.Name]), nil })
	if err != nil {
		t.Fatal(err)
	}
	texts, err := s.parameters(m)
	if err != nil {
		t.Fatal(err)
	}
	values, warnings, err := s.apply(vendor, &m.Charts[0], m, texts)
	if err != nil {
		t.Fatal(err)
	}
	return values, warnings
}

// The later ones win: the vendor, the environment, the registry, what was said before, files, single values,
// parameters.
func TestWhatWins(t *testing.T) {
	before := Site{Values: map[string][]chart.ValuesFile{"shop/web": {file("old.yaml", "{a: kept, b: kept, c: kept, registry: kept, old: {x: 1, z: 1}}")}}}
	s := Site{
		Target:      Target{Registry: "site:5000", Prefix: "p"},
		Environment: "staging",
		Parameters:  map[string]string{"host": "a"},
		Values:      map[string][]chart.ValuesFile{"shop/web": {file("1.yaml", "{b: first, c: file, replicas: 9, host: b}"), file("2.yaml", "{b: second, old: {z: 2}}")}},
		Set:         map[string][]SetValue{"shop/web": {{"c", "set"}, {"deep.er", int64(1)}}},
	}.Over(before)
	got, warnings := valuesOf(t, s)
	want := map[string]any{
		"who": "staging", "a": "kept", "b": "second", "c": "set", "d": "vendor", "registry": "kept", "replicas": int64(3), "host": "a",
		"list": []any{2.0, 3.0}, "old": map[string]any{"x": 1.0, "z": 2.0}, "deep": map[string]any{"er": int64(1)},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
	if len(warnings) != 2 || !strings.Contains(warnings[0], "value replicas is that of parameter replicas") || !strings.Contains(warnings[1], "value host is") {
		t.Errorf("warnings %q", warnings)
	}
	// Without any of it: the vendor's, and the registry.
	got, warnings = valuesOf(t, Site{Target: Target{Registry: "site:5000", Prefix: "p"}})
	if got["who"] != "vendor" || got["registry"] != "site:5000/p" || len(warnings) > 0 {
		t.Errorf("got %v, %q", got, warnings)
	}
	if got, _ = valuesOf(t, Site{Target: Target{Registry: "site:5000"}, Rendering: Rendering{NoRewrite: true}}); got["registry"] != "vendor" {
		t.Errorf("the registry was told although nothing is rewritten: %v", got)
	}
}

func TestReleaseKey(t *testing.T) {
	m := siteManifest()
	for name, want := range map[string]string{"web": "shop/web", "data/db": "data/db"} {
		if got, err := ReleaseKey(m, name); err != nil || got != want {
			t.Errorf("%q: got %q, %v", name, got, err)
		}
	}
	for _, name := range []string{"", "crds", "shop/crds", "shop/db", "x"} {
		var e *NoReleaseError
		if got, err := ReleaseKey(m, name); !errors.As(err, &e) || len(e.Known) != 2 {
			t.Errorf("%q: got %q, %v", name, got, err)
		}
	}
	m.Charts = m.Charts[:1]
	if got, err := ReleaseKey(m, ""); err != nil || got != "shop/web" {
		t.Errorf("the only one: got %q, %v", got, err)
	}
}

// What was said for one version counts for the next one.
func TestKept(t *testing.T) {
	first := Site{
		Environment: "staging",
		Parameters:  map[string]string{"host": "a", "password": "canary1234", "gone": "x"},
		Secrets:     map[string]SecretKey{"token": {"ns", "name", "k"}},
		Values:      map[string][]chart.ValuesFile{"shop/web": {file("a.yaml", "{a: 1, big: 12345678901234567, none: null, deep: {x: y}}")}, "shop/gone": {file("a.yaml", "{a: 1}")}},
		Set:         map[string][]SetValue{"shop/web": {{"deep.z", "set"}, {"b", 1.5}}},
	}
	raw, err := first.Keep()
	if err != nil {
		t.Fatal(err)
	}
	before, err := ReadKept(raw)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := before.Keep(); err != nil || string(again) != string(raw) {
		t.Errorf("the second time: %v\n%s\n%s", err, again, raw)
	}
	next, gone := Site{
		Parameters: map[string]string{"host": "b"},
		Values:     map[string][]chart.ValuesFile{"shop/web": {file("b.yaml", "{deep: {x: new}}")}},
	}.Over(before).Fit(siteManifest())
	if len(gone) != 3 || !strings.Contains(gone[0], `"gone"`) || !strings.Contains(gone[1], `"token"`) || !strings.Contains(gone[2], "shop/gone") {
		t.Errorf("gone: %q", gone)
	}
	said, err := next.Say(siteManifest())
	if err != nil {
		t.Fatal(err)
	}
	want := []Said{{Name: "replicas", Value: "3", Default: true}, {Name: "password", Secret: true, Kept: true}, {Name: "host", Value: "b"}}
	if !reflect.DeepEqual(said, want) {
		t.Errorf("said %+v", said)
	}
	if next.Chosen() != "staging" {
		t.Errorf("environment %q", next.Chosen())
	}
	values, err := next.overlay("shop/web")
	if err != nil {
		t.Fatal(err)
	}
	if deep := values["deep"]; !reflect.DeepEqual(deep, map[string]any{"x": "new", "z": "set"}) || values["b"] != 1.5 {
		t.Errorf("values %v", values)
	}
	if v, there := values["none"]; v != nil || !there {
		t.Errorf("a null got lost: %v", values)
	}
	// A text takes the place of a Secret, and the other way round.
	third := Site{Parameters: map[string]string{"token": "text"}, Secrets: map[string]SecretKey{"host": {"ns", "name", "k"}}, Environment: "prod"}.Over(before)
	if k := third.whole(); k.parameters["token"] != "text" || len(k.secrets) != 1 || k.parameters["host"] != "" || k.environment != "prod" {
		t.Errorf("%+v", k)
	}
	if raw, err := (Site{}).Keep(); raw != nil || err != nil {
		t.Errorf("nothing is %s, %v", raw, err)
	}
}

// What does not suit the new version any more is refused; what comes from elsewhere is not shown.
func TestKeptThatDoesNotFit(t *testing.T) {
	m := siteManifest()
	before := Site{Parameters: map[string]string{"host": "old", "password": "CANARY-secret"}}
	s := Site{}.Over(before)
	var e *ParameterError
	if _, err := s.parameters(m); !errors.As(err, &e) || !e.Kept || e.Name != "password" || strings.Contains(err.Error(), "CANARY") {
		t.Errorf("got %v", err)
	}
	s = Site{Parameters: map[string]string{"password": "abc"}}.Over(before)
	if _, err := s.parameters(m); !errors.As(err, &e) || !e.Kept || !strings.Contains(err.Error(), `parameter "host", as it was said for an earlier version`) {
		t.Errorf("got %v", err)
	}
	var env *EnvironmentError
	if err := (Site{}).Over(Site{Environment: "prod"}).checkEnvironment(m); !errors.As(err, &env) || !env.Kept || len(env.Known) != 1 {
		t.Errorf("got %v", err)
	}
	if err := (Site{Environment: "staging"}).Over(Site{Environment: "prod"}).checkEnvironment(m); err != nil {
		t.Error(err)
	}
	if err := (Site{Environment: "x"}).checkEnvironment(m); !errors.As(err, &env) || env.Kept || !strings.Contains(err.Error(), "it has staging") {
		t.Errorf("got %v", err)
	}
}

func TestReadKeptRefused(t *testing.T) {
	const head = `{"mediaType":"application/vnd.sealift.said.v1+json"`
	for _, text := range []string{
		"", "x", "null", "{}", head, head + `}{}`, head + `,"x":1}`, `{"mediaType":"application/vnd.sealift.plan.v1+json"}`,
		head + `,"environment":"A"}`, head + `,"parameters":{"-":"canary1234"}}`, head + `,"parameters":{"a":1234}}`,
		head + `,"secrets":{"a":"canary1234"}}`, head + `,"parameters":{"a":"b"},"secrets":{"a":"n/m:k"}}`, head + `,"values":{"a/b":["canary1234"]}}`,
		head + `,"parameters":{"a":"` + strings.Repeat("x", MaxSaidBytes) + `"}}`,
	} {
		var e *KeptError
		if _, err := ReadKept([]byte(text)); !errors.As(err, &e) {
			t.Errorf("%.80q: got %v", text, err)
		}
	}
	var e *KeptError
	if _, err := ReadKept([]byte(head + `,"values":{"a/b":["canary1234"]}}`)); !errors.As(err, &e) || strings.Contains(err.Error(), "canary") {
		t.Errorf("got %v", err)
	}
	if _, err := (Site{Parameters: map[string]string{"a": strings.Repeat("x", MaxSaidBytes)}}).Keep(); !errors.As(err, &e) {
		t.Errorf("got %v", err)
	}
}

func FuzzReadKept(f *testing.F) {
	f.Add([]byte(`{"mediaType":"application/vnd.sealift.said.v1+json","environment":"a","parameters":{"a":"b"},"secrets":{"c":"n/m:k"},"values":{"a/b":{"x":null}}}`))
	f.Add([]byte(`{"mediaType":"application/vnd.sealift.said.v1+json","values":{"a/b":{}}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := ReadKept(raw)
		if err != nil {
			return
		}
		kept, err := s.Keep()
		if err != nil || kept == nil {
			return
		}
		again, err := ReadKept(kept)
		if err != nil {
			t.Fatalf("%s cannot be read: %v", kept, err)
		}
		if second, err := again.Keep(); err != nil || string(second) != string(kept) {
			t.Fatalf("%s became %s, %v", kept, second, err)
		}
	})
}

func TestSecretKeys(t *testing.T) {
	if k, err := ParseSecretKey("shop/db.creds:pass_word.txt"); err != nil || k != (SecretKey{"shop", "db.creds", "pass_word.txt"}) || k.String() != "shop/db.creds:pass_word.txt" {
		t.Errorf("got %v, %v", k, err)
	}
	for _, text := range []string{"", "a/b", "a:b", "a/b:", "/b:c", "a/:c", "A/b:c", "a/B:c", "a/b:c d", "a/b:..", "a/b/c:d", "a/b:c:d"} {
		if k, err := ParseSecretKey(text); err == nil {
			t.Errorf("%q is %v", text, k)
		}
	}
}

func FuzzParseSecretKey(f *testing.F) {
	f.Add("a/b:c")
	f.Fuzz(func(t *testing.T, text string) {
		if k, err := ParseSecretKey(text); err == nil && k.String() != text {
			t.Fatalf("%q became %q", text, k)
		}
	})
}

// A parameter from a Secret is not shown, whether the vendor calls it secret or not.
func TestParameterFromSecret(t *testing.T) {
	m := siteManifest()
	s := Site{Secrets: map[string]SecretKey{"host": {"ns", "name", "k"}}}
	var unread *UnreadError
	if _, err := s.parameters(m); !errors.As(err, &unread) || unread.Parameter != "host" {
		t.Errorf("got %v", err)
	}
	s.read = map[string]string{"host": "b"}
	said, err := s.Say(m)
	if err != nil || !reflect.DeepEqual(said[1], Said{Name: "host", Secret: true, From: "ns/name:k"}) {
		t.Errorf("said %+v, %v", said, err)
	}
	raw, err := s.Keep()
	if err != nil || !strings.Contains(string(raw), `"secrets":{"host":"ns/name:k"}`) || strings.Contains(string(raw), "parameters") {
		t.Errorf("kept %s, %v", raw, err)
	}
	s.read["host"] = "canary1234"
	if _, err := s.parameters(m); err == nil || strings.Contains(err.Error(), "canary") {
		t.Errorf("got %v", err)
	}
}

// Where a value was said is told.
func TestWhere(t *testing.T) {
	s := Site{
		Values: map[string][]chart.ValuesFile{"shop/web": {file("1.yaml", "a: 1\nlist: [{x: 1}]\n"), file("2.yaml", "\na: 2\n")}},
		Set:    map[string][]SetValue{"shop/web": {{"b.c", "x"}}},
	}.Over(Site{Values: map[string][]chart.ValuesFile{"shop/web": {file("0.yaml", "old.er: {x: 1}")}}})
	for path, want := range map[string]string{"a": "2.yaml:2 (a)", "list/0/x": "1.yaml:2 (list.0.x)", "b/c": "--set-value b.c", "b": "--set-value b.c", "old.er/x": `old\.er.x, as it was said for an earlier version`, "z": ""} {
		if got := s.where("shop/web", strings.Split(path, "/")); got != want {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
	}
}

// TestSecretTexts: what is called like a secret in the site's own values is not printed, also where it was said for an earlier version.
func TestSecretTexts(t *testing.T) {
	before := Site{Values: map[string][]chart.ValuesFile{"shop/web": {{Name: "old.yaml", Data: []byte("auth: {adminPassword: old-canary, existingSecret: web-auth, user: administrator}\n")}}}}
	now := Site{Set: map[string][]SetValue{"shop/web": {{Path: "api.token", Value: "new-canary"}, {Path: "api.tokenFile", Value: "/etc/token-file"}, {Path: "api.key", Value: "x"}}}}
	if got := strings.Join(now.Over(before).SecretTexts(), " "); got != "new-canary old-canary" {
		t.Errorf("got %q", got)
	}
}
