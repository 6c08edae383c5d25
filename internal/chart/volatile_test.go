package chart_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sealift/sealift/internal/chart"
)

// manifests are what a chart gives for a password, a random word and a certificate.
func manifests(password, random, certificate string) string {
	return fmt.Sprintf(`---
# Source: shop/templates/config.yaml
apiVersion: v1
kind: ConfigMap
metadata:
  name: config
data:
  fixed: "yes"
  app.conf: |
    listen 80
    token %[2]s
    url postgres://app:%[1]s@db
  tls.crt: |
    -----BEGIN CERTIFICATE-----
    %[3]s
    -----END CERTIFICATE-----
---
apiVersion: v1
kind: Secret
metadata: {name: login}
stringData:
  password: %[1]s
---
apiVersion: batch/v1
kind: Job
metadata:
  name: once-%[2]s
spec:
  template:
    spec:
      containers:
      - name: app
        image: registry.example/shop/app:1
        env:
        - name: FIRST
          value: plain
        - name: AUTH
          value: x-%[1]s
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: app}
spec:
  template:
    metadata:
      annotations:
        checksum/config: 6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b
        note: kept
    spec:
      containers:
      - name: app
        image: registry.example/shop/app:1
`, password, random, certificate)
}

func settle(t *testing.T, docs, again, other string) *chart.Settled {
	t.Helper()
	var secrets []byte
	if other != "" {
		secrets = []byte(other)
	}
	s, err := chart.Settle([]byte(docs), []byte(again), secrets, "shop")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSettle(t *testing.T) {
	first, second := manifests("hunter22", "r4nd0m", "MIIa\n    MIIb"), manifests("hunter22", "0th3r", "MIIc")
	s := settle(t, first, second, manifests("iuoufs33", "th1rd", "MIId"))
	docs := string(s.Docs)
	for _, secret := range []string{"hunter22", "r4nd0m", "MIIa", "MIIb", "6b86b273"} {
		if strings.Contains(docs, secret) {
			t.Errorf("%q is in what was settled:\n%s", secret, docs)
		}
	}
	for _, kept := range []string{"fixed: \"yes\"", "listen 80", "value: plain", "note: kept", "# Source: shop/templates/config.yaml", "registry.example/shop/app:1"} {
		if !strings.Contains(docs, kept) {
			t.Errorf("%q is not in what was settled:\n%s", kept, docs)
		}
	}
	var got []string
	for _, l := range s.Left() {
		got = append(got, l.Object+" "+l.Path+" "+l.Why)
	}
	want := []string{
		"ConfigMap/shop/config data[\"app.conf\"] (random)",
		"ConfigMap/shop/config data[\"tls.crt\"] (random)",
		"Deployment/shop/app spec.template.metadata.annotations.checksum/config (checksum)",
		"Job/shop/(random) metadata.name (random)",
		"Job/shop/(random) spec.template.spec.containers[app].env[AUTH].value (secret)",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("left out:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// What is random, secret, or written otherwise does not change the digest; all else does.
func TestSettledDigest(t *testing.T) {
	random := 0
	digest := func(password string, change func(string) string) string {
		random += 2
		render := func(password string, n int) string {
			return change(manifests(password, fmt.Sprintf("w%d", n), fmt.Sprintf("MII%d", n)))
		}
		return settle(t, render(password, random), render(password, random+1), render("other", random+1)).Digest
	}
	same := func(s string) string { return s }
	base := digest("hunter22", same)
	if got := digest("hunter22", same); got != base {
		t.Errorf("rendered again the digest is %s, was %s", got, base)
	}
	if got := digest("changed", same); got != base {
		t.Errorf("with another secret the digest is %s, was %s: it tells something about it", got, base)
	}
	alike := func(s string) string {
		parts := strings.Split(strings.TrimPrefix(s, "---\n"), "\n---\n")
		for i, j := 0, len(parts)-1; i < j; i, j = i+1, j-1 {
			parts[i], parts[j] = parts[j], parts[i]
		}
		s = strings.Join(parts, "\n---\n")
		s = strings.ReplaceAll(s, `fixed: "yes"`, `fixed: 'yes'`)
		return strings.ReplaceAll(s, "metadata: {name: app}", "metadata:\n    \"name\": app # here")
	}
	if got := digest("hunter22", alike); got != base {
		t.Errorf("written otherwise the digest is %s, was %s", got, base)
	}
	for _, change := range [][2]string{
		{"listen 80", "listen 81"},
		{"app:1", "app:2"},
		{"note: kept", "note: changed"},
		{"value: plain", "value: other"},
		{`"yes"`, "true"},
		{"kind: Deployment", "kind: StatefulSet"},
		{"FIRST", "SECOND"},
	} {
		if got := digest("hunter22", func(s string) string { return strings.ReplaceAll(s, change[0], change[1]) }); got == base {
			t.Errorf("with %q for %q the digest is the same", change[1], change[0])
		}
	}
}

// An object that is not always there, and lists and mappings of changing size.
func TestSettleStructure(t *testing.T) {
	base := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {list: here}\n"
	sometimes := base + "---\napiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {type: ClusterIP}\n"
	s := settle(t, sometimes, base, "")
	if docs := string(s.Docs); strings.Contains(docs, "ClusterIP") || !strings.Contains(docs, "kind: Service") {
		t.Errorf("got\n%s", docs)
	}
	object := func(spec string) string {
		return "apiVersion: x/v1\nkind: X\nmetadata: {name: a}\nspec: " + spec + "\n"
	}
	for name, c := range map[string]struct{ a, b, want string }{
		"longer list": {"{l: [1, 2], k: 1}", "{l: [1], k: 1}", "spec.l (random)"},
		"other key":   {"{m: {a: 1}, k: 1}", "{m: {b: 1}, k: 1}", "spec.m (random)"},
		"other kind":  {"{m: {a: 1}, k: 1}", "{m: 7, k: 1}", "spec.m (random)"},
		"one item":    {"{l: [1, 2], k: 1}", "{l: [1, 3], k: 1}", "spec.l[1] (random)"},
	} {
		t.Run(name, func(t *testing.T) {
			left := settle(t, object(c.a), object(c.b), "").Left()
			if len(left) != 1 || left[0].Path+" "+left[0].Why != c.want {
				t.Errorf("left out %v, want %q", left, c.want)
			}
		})
	}
}

func TestSettledHide(t *testing.T) {
	before, now := manifests("oldpassword", "old", "MIIold"), manifests("hunter22", "r4nd0m", "MIIa")
	s := settle(t, now, manifests("hunter22", "other", "MIIb"), manifests("iuoufs33", "third", "MIIc"))
	changes, err := chart.CompareObjects([]byte(strings.Replace(before, "once-old", "once-r4nd0m", 1)), []byte(now), "shop")
	if err != nil {
		t.Fatal(err)
	}
	if len(changes) == 0 {
		t.Fatal("nothing differs")
	}
	for _, c := range s.Hide(changes) {
		if text := fmt.Sprint(c); strings.Contains(text, "oldpassword") || strings.Contains(text, "hunter22") || strings.Contains(text, "MII") || strings.Contains(text, "r4nd0m:") {
			t.Errorf("a secret is in %s", text)
		}
		if c.Object == "ConfigMap/shop/config" && !s.Volatile(&c) {
			t.Errorf("%v is not called volatile", c)
		}
	}
	// What is called like a secret is one, wherever it comes from.
	named := s.Hide([]chart.ObjectChange{{Action: chart.ObjectChanged, Object: "X/y", Fields: []chart.FieldChange{
		{Path: "spec.containers[app].env[DB_PASSWORD].value", Old: "hunter22", New: ""}, {Path: "spec.apiKey", Old: "a", New: "b"}, {Path: "spec.secretName", Old: "a", New: "b"},
	}}})[0].Fields
	if named[0].Old != chart.SecretValue || named[0].New != "" || named[1].New != chart.SecretValue || named[2].New != "b" {
		t.Errorf("got %v", named)
	}
}

func TestOnlyIn(t *testing.T) {
	a := "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: b, namespace: shop}\n"
	b := "apiVersion: v1\nkind: Service\nmetadata: {name: b}\n"
	got, err := chart.OnlyIn([]byte(a), []byte(b), "shop")
	if err != nil || !strings.Contains(string(got), "name: a") || strings.Contains(string(got), "name: b") {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestDefinitionsAndHooks(t *testing.T) {
	docs := []byte(`apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  names: {kind: Widget}
  versions: [{name: v1, served: true, storage: false}, {name: v2, served: true, storage: true}]
---
apiVersion: batch/v1
kind: Job
metadata: {name: migrate, annotations: {helm.sh/hook: "pre-upgrade, post-install"}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: c, annotations: {helm.sh/hook: pre-upgrade}}
`)
	d, err := chart.Definitions(docs)
	if err != nil || len(d) != 1 || d[0].Name != "widgets.example.com" || d[0].Storage() != "v2" || !d[0].Has("v1") || d[0].Has("v3") {
		t.Errorf("got %v, %v", d, err)
	}
	h, err := chart.Hooks(docs)
	if err != nil || len(h) != 2 || !h[0].Runs("pre-upgrade") || h[0].Runs("post-upgrade") || h[1].Runs("pre-upgrade") {
		t.Errorf("got %v, %v", h, err)
	}
}

func TestFindHosts(t *testing.T) {
	docs := []byte(`apiVersion: v1
kind: ConfigMap
metadata: {name: c}
data: {a: "pull from vendor.example:5000/x.", b: notvendor.example, c: vendor.example.org, d: "https://vendor.example/", e: "see vendor.example."}
---
apiVersion: v1
kind: Secret
metadata: {name: s}
stringData: {a: vendor.example}
`)
	got, err := chart.FindHosts(docs, []string{"vendor.example"})
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, m := range got {
		paths = append(paths, m.Object+" "+m.Path)
	}
	if want := "ConfigMap/c data.a, ConfigMap/c data.d, ConfigMap/c data.e"; strings.Join(paths, ", ") != want {
		t.Errorf("got %s, want %s", strings.Join(paths, ", "), want)
	}
}

// Whatever documents two renderings give, what they settle on can be read again, and settling it with itself changes nothing.
func FuzzSettle(f *testing.F) {
	f.Add([]byte(manifests("a", "b", "c")), []byte(manifests("a", "d", "e")), []byte(manifests("f", "b", "c")))
	f.Add([]byte("a: 1"), []byte("a: {b: 2}"), []byte("---"))
	f.Add([]byte("kind: List\nitems: [{kind: Secret, apiVersion: v1, data: {a: b}}]"), []byte("kind: List\nitems: []"), []byte(""))
	f.Add([]byte("metadata: {annotations: &a {checksum/x: 0123456789abcdef0123456789abcdef}}\nspec: *a"), []byte("metadata: {}"), []byte("x: y"))
	f.Fuzz(func(t *testing.T, a, b, c []byte) {
		s, err := chart.Settle(a, b, c, "ns")
		if err != nil {
			return
		}
		again, err := chart.Settle(s.Docs, s.Docs, nil, "ns")
		if err != nil {
			t.Fatalf("what was settled cannot be read: %v\n%s", err, s.Docs)
		}
		if again.Digest != s.Digest {
			t.Errorf("digest %s became %s:\n%s", s.Digest, again.Digest, s.Docs)
		}
	})
}
