package bundle

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// nothingToPack is what the parser says about a spec without content.
const nothingToPack = "names no images, artifacts, charts, manifests or files: there is nothing to pack"

func TestSampleSpecIsReadAsItIs(t *testing.T) {
	_, problems := parseSpec(fmt.Appendf(nil, SampleSpec, "shop"))
	if len(problems) != 1 || problems[0].Text != nothingToPack {
		t.Fatalf("%v", problems)
	}
}

// TestSampleSpecWithItsExamples: what the comments of the sample show can be written, but for what
// it leads to.
func TestSampleSpecWithItsExamples(t *testing.T) {
	var text strings.Builder
	for line := range strings.Lines(fmt.Sprintf(SampleSpec, "shop")) {
		trimmed := strings.TrimPrefix(line, "#")
		switch {
		case line == "charts: []\n" || line == "images: []\n":
			line = strings.TrimSuffix(line, " []\n") + "\n"
		// Examples are indented, or keys; explanations are sentences.
		case strings.HasPrefix(trimmed, "  "):
			line = trimmed
		case regexp.MustCompile(`^ [a-zA-Z]+:( [^ ]+| +[{\[].*)?( +#.*)?\n$`).MatchString(trimmed):
			line = trimmed[1:]
		}
		text.WriteString(line)
	}
	s, problems := parseSpec([]byte(text.String()))
	if len(problems) > 0 {
		t.Fatalf("%v\n%s", problems, text.String())
	}
	if len(s.Charts) != 3 || len(s.Images) != 3 || len(s.IgnoreImages) != 1 || len(s.Artifacts) != 1 || len(s.Manifests) != 1 || len(s.Files) != 1 ||
		s.Notes == "" || len(s.Kubernetes.Versions) != 2 || s.Requires == nil || len(s.Parameters) != 1 || len(s.Verify) != 2 || s.Expires == "" || s.Roots == "" {
		t.Fatalf("%+v\n%s", s, text.String())
	}
	if err := compiledSchema(t).Validate(asEditor(t, []byte(text.String()))); err != nil {
		t.Error(err)
	}
}

func TestDefaults(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.yaml")
	text := "apiVersion: sealift/v1\nkind: Bundle\nname: a\nversion: 1.0.0\ncharts: [{path: ./c}]\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := LoadSpec(path)
	if err != nil {
		t.Fatal(err)
	}
	if s.Channel != "stable" || len(s.Platforms) != 1 || s.Platforms[0] != DefaultPlatform {
		t.Fatalf("%+v", s)
	}
	if got := s.file("./c"); got != filepath.Join(filepath.Dir(path), "c") {
		t.Fatalf("a path leads to %q", got)
	}
}

func TestSpecTooLarge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.yaml")
	if err := os.WriteFile(path, make([]byte, MaxSpecBytes+1), 0o600); err != nil {
		t.Fatal(err)
	}
	var bad *SpecError
	if _, err := LoadSpec(path); !errors.As(err, &bad) {
		t.Fatal(err)
	}
}

// FuzzSpec: no text makes the parser panic, and what it accepts has what Resolve relies on.
func FuzzSpec(f *testing.F) {
	f.Add(fmt.Appendf(nil, SampleSpec, "shop"))
	f.Add([]byte("apiVersion: sealift/v1\nkind: Bundle\nname: a\nversion: 1.0.0\nimages: [{ref: r.example.com/a:1}]\n"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Add([]byte("apiVersion: sealift/v1\nkind: Bundle\nname: a\nversion: 1.0.0\nexpires: 2027-12-31\nverify: [{match: r.example.com/*, key: k}]\nimages: [{ref: r.example.com/a:1, verify: {key: k}, referrers: drop}]\n"))
	f.Add([]byte("images: &x\n- ref: 1\ncharts: *x\n"))
	f.Add([]byte(wholeSpec))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, problems := parseSpec(b)
		if len(problems) > 0 {
			if !slices.IsSortedFunc(problems, func(a, b Problem) int { return a.Line - b.Line }) {
				t.Fatalf("not in the order of the lines: %v", problems)
			}
			return
		}
		if s == nil || s.Name == "" || len(s.Platforms) == 0 || !s.hasContent() {
			t.Fatalf("accepted %q as %+v", b, s)
		}
		for _, m := range s.Manifests {
			if m.Name == "" || m.Namespace == "" {
				t.Fatalf("manifests without a name: %q", b)
			}
		}
		for _, c := range s.Charts {
			for _, k := range c.Checks {
				k.check()
			}
		}
		s.requirements()
		if _, err := s.parameters(func(string) (string, error) { return "a/a", nil }); err != nil {
			var twice *ParameterError
			if !errors.As(err, &twice) {
				t.Fatal(err)
			}
		}
	})
}

// TestDemandsOfASpec: what cannot be meant is told with its line, before any file is read.
func TestDemandsOfASpec(t *testing.T) {
	head := "apiVersion: sealift/v1\nkind: Bundle\nname: a\nversion: 1.0.0\n"
	image := "images: [{ref: r.example.com/a:1%s}]\n"
	for lines, want := range map[string]string{
		fmt.Sprintf(image, ", verify: {key: k}"):                                                 "",
		fmt.Sprintf(image, ", verify: [{key: k}, {key: l}]"):                                     "",
		fmt.Sprintf(image, ", verify: {issuer: i, subject: s, trustedRoot: t}"):                  "",
		fmt.Sprintf(image, ", verify: {issuerRegExp: i, subjectRegExp: s, trustedRoot: t}"):      "",
		fmt.Sprintf(image, ", verify: {kye: k}"):                                                 `unknown key "kye"`,
		fmt.Sprintf(image, ", verify: [{kye: k}]"):                                               `unknown key "images[0].verify[0].kye"`,
		fmt.Sprintf(image, ", verify: {key: k, key: l}"):                                         "already defined",
		fmt.Sprintf(image, ", verify: k"):                                                        "cannot unmarshal",
		fmt.Sprintf(image, ", verify: {}"):                                                       "either a key, or issuer",
		fmt.Sprintf(image, ", verify: [{key: k, issuer: i}]"):                                    "either a key, or issuer",
		fmt.Sprintf(image, ", verify: {key: k, trustedRoot: t}"):                                 "a key needs no trustedRoot",
		fmt.Sprintf(image, ", verify: {issuer: i, trustedRoot: t}"):                              "subject: exactly one of",
		fmt.Sprintf(image, ", verify: {issuer: i, issuerRegExp: i, subject: s, trustedRoot: t}"): "issuer: exactly one of",
		fmt.Sprintf(image, ", verify: {issuer: i, subject: 's**', trustedRoot: t}"):              "stays within its segment",
		fmt.Sprintf(image, ", verify: {issuer: i, subjectRegExp: '(', trustedRoot: t}"):          "not a usable pattern",
		fmt.Sprintf(image, ", verify: {issuer: i, subject: s}"):                                  "none is named",
		fmt.Sprintf(image, ", referrers: maybe"):                                                 `referrers "maybe" is none of carry, drop`,
		fmt.Sprintf(image, "") + "referrers: no\n":                                               "is none of carry, drop",
		fmt.Sprintf(image, "") + "verify: [{match: 'r.example.com/*', key: k}]\n":                "",
		fmt.Sprintf(image, "") + "verify: [{match: 'r.example.com:5000/*', key: k}]\n":           "",
		fmt.Sprintf(image, "") + "verify: [{match: 'r.example.com/a:1', key: k}]\n":              "names a tag or digest",
		fmt.Sprintf(image, "") + "verify: [{match: 'r.example.com/a@sha256:*', key: k}]\n":       "names a tag or digest",
		fmt.Sprintf(image, "") + "verify: [{key: k}]\n":                                          "match: empty",
		fmt.Sprintf(image, "") + "expires: 2027-12-31\n":                                         "",
		fmt.Sprintf(image, "") + "expires: 2027-12-31T12:00:00+02:00\n":                          "",
		fmt.Sprintf(image, "") + "expires: 31.12.2027\n":                                         "is neither a date",
		fmt.Sprintf(image, "") + "expires: 1969-12-31\n":                                         "expires",
	} {
		_, problems := parseSpec([]byte(head + lines))
		switch {
		case want == "" && len(problems) > 0:
			t.Errorf("%s: %v", lines, problems)
		case want != "" && (len(problems) != 1 || !strings.Contains(problems[0].Text, want) || problems[0].Line < 5):
			t.Errorf("%s: %v, want %q", lines, problems, want)
		}
	}
}

func TestExpiry(t *testing.T) {
	for text, want := range map[string]string{
		"":                          "",
		"2027-12-31":                "2027-12-31T23:59:59Z",
		"2027-12-31T12:00:00+02:00": "2027-12-31T10:00:00Z",
		"2027-12-31T12:00:00.9Z":    "2027-12-31T12:00:00Z",
	} {
		if got, err := expiry(text); err != nil || got != want {
			t.Errorf("%q: %q, %v, want %q", text, got, err, want)
		}
	}
}

// wholeSpec has every key.
const wholeSpec = `apiVersion: sealift/v1
kind: Bundle
name: shop
version: 2.4.0
channel: beta
platforms: [all]
images:
  - ref: registry.example.com/shop/tool:1.3
    oci: ./out/tool.tar
    why: asked for by the operators
    platforms: [linux/amd64, linux/arm64]
    verify: {key: tool.pub}
    referrers: carry
  - match: registry.example.com/shop/**:2.*
ignoreImages:
  - match: "*/demo/**"
    why: never on
artifacts:
  - ref: registry.example.com/shop/model:3
    oci: model
    verify: [{issuerRegExp: i, subjectRegExp: s, trustedRoot: r}]
    referrers: drop
charts:
  - path: ./charts/shop
    version: 1.x
    verify: {keyring: keys.gpg}
    release: shop
    namespace: shop
    values: [values.yaml]
    environments:
      - {name: staging, values: [staging.yaml]}
    renderWith: [on.yaml]
    apiVersions: [v1, apps/v1/Deployment, monitoring.coreos.com/v1]
    dependsOn: [crds, data/db]
    registryValues:
      - path: global.imageRegistry
      - {path: 'image.host\.name', gets: host}
    rollback: manual
    rollout:
      strategy: canary
      front: {kind: HTTPRoute, name: shop.front, service: '*-web', object: route.yaml}
      steps: [5, 50]
    checks:
      - name: web
        http: {service: shop, port: 8443, path: "/healthz?all=1", status: 204, tls: true}
        timeout: 2m30s
      - name: db
        tcp: {service: db, port: 5432}
      - name: smoke
        job: smoke.yaml
  - oci: oci://registry.example.com:5000/charts/db
    version: ^1.2
    release: db
    namespace: data
  - repo: https://charts.example.com/stable
    chart: cache
    version: 3.1.4
manifests:
  - path: ./crds
    name: crds
    namespace: kube-system
    dependsOn: [db]
    rollback: forbidden
    checks: [{name: there, job: j.yaml}]
files:
  - path: ./docs
    name: manual/docs
  - path: runbook.pdf
kubernetes:
  versions: [1.34, v1.35.2]
  apiVersions: [monitoring.coreos.com/v1/ServiceMonitor]
requires:
  kubernetes: ">=1.30 <1.36"
  upgradeFrom: ">=2.2.0"
  nodes: {cpu: 4, memory: 8Gi, architectures: [amd64, arm64]}
  storageClasses: ["*", fast]
  apiGroups: [cert-manager.io/v1/Certificate]
parameters:
  - name: host
    description: where users go
    type: string
    required: true
    pattern: "[a-z.]+"
    values: [{release: shop, path: ingress.host}]
  - name: replicas
    type: integer
    default: 3
    enum: [1, 3, 5]
    values: [{release: shop, path: replicas}]
  - name: password
    secret: true
    values: [{release: data/db, path: auth.password}]
notes: CHANGES.md
expires: 2027-12-31
roots: ./trust
verify:
  - match: registry.example.com/shop/*
    key: vendor.pub
referrers: carry
`

func TestWholeSpec(t *testing.T) {
	s, problems := parseSpec([]byte(wholeSpec))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	if got := s.Kubernetes.Versions; !slices.Equal(got, []string{"v1.34.0", "v1.35.2"}) {
		t.Errorf("kubernetes versions %q", got)
	}
	if got := s.Files[1].Name; got != "runbook.pdf" {
		t.Errorf("a file is called %q", got)
	}
	if got := s.Charts[0].RegistryValues[0].Gets; got != "registry" {
		t.Errorf("a registry value gets %q", got)
	}
	if got := s.Parameters[0].line; got != 79 {
		t.Errorf("a parameter is on line %d", got)
	}
	// Every key of every type is somewhere in it, so that the tests of the schema see them all.
	for name := range descriptions {
		_, key, _ := strings.Cut(name, ".")
		if !strings.Contains(wholeSpec, key+":") && key != "issuer" && key != "subject" {
			t.Errorf("no %s", name)
		}
	}
}

func TestNamesOfManifests(t *testing.T) {
	head := "apiVersion: sealift/v1\nkind: Bundle\nname: a\nversion: 1.0.0\nmanifests: [{path: %s}]\n"
	for path, want := range map[string]string{
		"./crds": "crds", "./crds/": "crds", "a/b.yaml": "b", "objects.json": "objects", "a/v1.2": "v1",
		"./CRDs": "", ".": "", "..": "", "a_b.yaml": "", "/": "",
	} {
		s, problems := parseSpec(fmt.Appendf(nil, head, path))
		switch {
		case want == "" && (len(problems) != 1 || !strings.Contains(problems[0].Text, "gives no usable name")):
			t.Errorf("%s: %v", path, problems)
		case want != "" && (len(problems) > 0 || s.Manifests[0].Name != want || s.Manifests[0].Namespace != want):
			t.Errorf("%s: %+v, %v", path, s.Manifests, problems)
		}
	}
}

// TestMistakes: each is told with its line, and none with another one.
func TestMistakes(t *testing.T) {
	const head = "apiVersion: sealift/v1\nkind: Bundle\nname: a\nversion: 1.0.0\nimages:\n- ref: r.example.com/a:1\n" // 6 lines
	chart := func(lines string) string {
		return "charts:\n- path: ./c\n  release: c\n  " + strings.ReplaceAll(lines, "\n", "\n  ") + "\n" // from line 10 on
	}
	parameter := func(lines string) string {
		return "charts: [{path: c}]\nparameters:\n- name: p\n  values: [{path: a.b}]\n  " + strings.ReplaceAll(lines, "\n", "\n  ") + "\n" // from line 11 on
	}
	for _, c := range []struct {
		lines string
		line  int
		want  string
	}{
		{"platforms: [all, linux/amd64]", 7, `"all" stands alone`},
		{"- ref: r.example.com/a:1", 7, `image "r.example.com/a:1" stands here for the second time, first on line 6`},
		{"- ref: r.example.com/a:1\n  oci: b\nartifacts: []", 7, "second time"},
		{"- oci: ./x", 7, "images[1] has neither ref nor match"},
		{"- ref: r.example.com/b\n  match: r.example.com/b", 7, "both ref and match"},
		{"- match: r.example.com/b\n  platforms: [linux/amd64]", 7, "match stands alone"},
		{"- match: nginx", 7, `match "nginx": names no registry; write "docker.io/library/nginx"`},
		{"- match: r.example.com/b\n- match: r.example.com/b", 8, `match "r.example.com/b" stands here for the second time, first on line 7`},
		{"- match: r.example.com/b\nignoreImages:\n- match: r.example.com/b", 9, "second time, first on line 7"},
		{"- ref: r.example.com/b\n  oci: oci://r.example.com/b", 8, "is an address"},
		{"- ref: r.example.com/b\n  verify:\n  - key: a\n  - {}", 10, "verify wants either"},
		{"ignoreImages:\n- why: no", 8, "ignoreImages[0] has no match"},
		{"artifacts:\n- oci: x", 8, "artifacts[0] has no ref"},
		{"artifacts:\n- ref: r.example.com/a:1", 8, `artifact "r.example.com/a:1" stands here for the second time, first on line 6`},
		{"artifacts:\n- ref: model", 8, `write "docker.io/library/model:latest"`},

		{"charts:\n- release: c", 8, "charts[0] has no source"},
		{"charts:\n- path: a\n  oci: oci://r.example.com/a", 8, "more than one source (path, oci)"},
		{"charts:\n- chart: a", 8, "no repo is named"},
		{"charts:\n- path: x\n  chart: a", 9, "no repo is named"},
		{"charts:\n- repo: https://r.example.com", 8, "has a repo and no chart"},
		{"charts:\n- repo: https://me:geheim@r.example.com\n  chart: a", 8, "credentials do not belong into a spec"},
		{"charts:\n- repo: ftp://r.example.com\n  chart: a", 8, "is not an address such as"},
		{"charts:\n- repo: \"https://a:geheim@ b\"\n  chart: a", 8, "repo is not an address"},
		{"charts:\n- oci: r.example.com/a", 8, `does not begin with oci://`},
		{"charts:\n- oci: oci://charts/a", 8, `write "oci://docker.io/charts/a"`},
		{"charts:\n- oci: oci://r.example.com/a:1.0.0\n  version: 1.0.0", 8, "leave one of them out"},
		{"charts:\n- oci: oci://r.example.com/A", 8, "must be lowercase"},
		{chart("version: latest"), 10, "latest"},
		{chart("namespace: A"), 10, "namespace"},
		{chart("verify: {}"), 10, "no keyring"},
		{chart("apiVersions:\n- a/b/c"), 11, "apiVersions"},
		{chart("apiVersions:\n- v1\n- v1"), 12, "second time, first on line 11"},
		{chart("dependsOn:\n- a\n- A"), 12, "dependsOn: release"},
		{chart("dependsOn: [a/b/c]"), 10, "dependsOn"},
		{chart("dependsOn:\n- a\n- a"), 12, "second time, first on line 11"},
		{chart("environments:\n- values: [a]"), 11, "an environment has no name"},
		{chart("environments:\n- name: Staging\n  values: [a]"), 11, "environment \"Staging\" is not made of"},
		{chart("environments:\n- name: a\n  values: [a]\n- name: a\n  values: [a]"), 13, "second time, first on line 11"},
		{chart("environments:\n- name: a"), 11, "environment \"a\" has no values"},
		{chart("registryValues:\n- gets: host"), 11, "registryValues: path"},
		{chart("registryValues:\n- path: a\n  gets: all"), 12, `gets "all" is none of registry, host, prefix`},
		{chart("registryValues:\n- path: a\n- path: a"), 12, "second time, first on line 11"},
		{chart("rollback: yes"), 10, `rollback "yes" is none of safe, manual, forbidden`},
		{chart("rollout: {strategy: blue, front: {kind: Service, name: a}}"), 10, "strategy"},
		{chart("rollout: {strategy: blueGreen, front: {kind: Pod, name: a}}"), 10, "front: kind"},
		{chart("rollout: {strategy: blueGreen, front: {kind: Service, name: a.b}}"), 10, "front: service"},
		{chart("rollout: {strategy: blueGreen, front: {kind: Service, name: a}, steps: [5]}"), 10, "steps"},
		{chart("rollout: {strategy: canary, front: {kind: Service, name: a}, steps: [50, 5]}"), 10, "do not rise"},
		{chart("rollout: {strategy: canary, front: {kind: Service, name: a}, steps: [100]}"), 10, "do not rise"},
		{chart("rollout: {strategy: canary, front: {kind: Service, name: a}, steps: [76]}"), 10, "made of pods"},
		{chart("rollout: {strategy: blueGreen, front: {kind: Service, name: a, service: web}}"), 10, "with one *"},
		{chart("rollout: {strategy: blueGreen, front: {kind: Service, name: a, object: a.yaml}}"), 10, "object is for"},
		{chart("checks:\n- tcp: {service: a, port: 1}"), 11, "no name"},
		{chart("checks:\n- name: a"), 11, "0 of http, tcp and job"},
		{chart("checks:\n- name: a\n  job: j\n  tcp: {service: a, port: 1}"), 11, "2 of http, tcp and job"},
		{chart("checks:\n- name: a\n  tcp: {service: a, port: 65536}"), 11, "port 65536"},
		{chart("checks:\n- name: a\n  http: {service: a, port: 1, path: x}"), 11, `path "x"`},
		{chart("checks:\n- name: a\n  http: {service: A, port: 1}"), 11, `service "A"`},
		{chart("checks:\n- name: a\n  http: {service: a, port: 1, status: 99}"), 11, "status 99"},
		{chart("checks:\n- name: a\n  job: j\n  timeout: 1.5s"), 11, "timeout"},
		{chart("checks:\n- name: a\n  job: j\n  timeout: 90"), 11, "timeout"},
		{chart("checks:\n- name: a\n  job: j\n  timeout: 25h"), 11, "timeout"},
		{chart("checks:\n- name: a\n  job: j\n- name: a\n  job: k"), 13, `check "a" stands here for the second time, first on line 11`},
		{"charts:\n- {path: a, release: x}\n- {path: b, release: x}", 9, `release "x/x" stands here for the second time, first on line 8`},
		{"manifests:\n- {path: x}\ncharts:\n- {path: a, release: x, namespace: x}", 10, `release "x/x" stands here for the second time, first on line 8`},

		{"manifests:\n- name: x", 8, "manifests[0] has no path"},
		{"manifests:\n- path: x\n  name: X", 9, `release "X"`},
		{"manifests:\n- path: x\n  rollback: no", 9, "rollback"},
		{"files:\n- name: x", 8, "files[0] has no path"},
		{"files:\n- path: ..", 8, "file name"},
		{"files:\n- path: a\n  name: ../a", 9, "file name"},
		{"files:\n- path: a\n  name: /a", 9, "file name"},
		{"files:\n- path: a\n- path: b/a", 9, `file "a" stands here for the second time, first on line 8`},

		{"kubernetes:\n  versions:\n  - 1.34\n  - latest", 10, `version "latest"`},
		{"kubernetes:\n  versions:\n  - 1.34\n  - v1.34.0", 10, "second time, first on line 9"},
		{"kubernetes:\n  apiVersions: [x]", 8, "apiVersions"},
		{"requires: {kubernetes: new}", 7, "requires: kubernetes"},
		{"requires: {upgradeFrom: '>>1'}", 7, "requires: upgradeFrom"},
		{"requires:\n  nodes: {cpu: many}", 8, "requires: nodes: cpu"},
		{"requires:\n  nodes: {memory: 8 GB}", 8, "requires: nodes: memory"},
		{"requires:\n  nodes:\n    architectures: [x86-64]", 9, "architecture"},
		{"requires:\n  storageClasses: [a, a]", 8, "second time"},
		{"requires:\n  storageClasses: [A]", 8, "storageClasses"},
		{"requires:\n  apiGroups: [a/b/c/d]", 8, "apiGroups"},

		{"charts: [{path: c}]\nparameters:\n- values: [{path: a}]", 9, "parameter name"},
		{"charts: [{path: c}]\nparameters:\n- name: p", 9, "it would go nowhere"},
		{"parameters:\n- name: p\n  values: [{path: a}]", 9, "names no release, and there are 0 charts"},
		{"charts: [{path: c}, {path: d}]\nparameters:\n- name: p\n  values: [{path: a}]", 10, "names no release, and there are 2 charts"},
		{"charts: [{path: c}]\nparameters:\n- name: p\n  values: [{release: A, path: a}]", 10, "release"},
		{parameter("type: list"), 11, `type "list" is none of`},
		{parameter("type: integer\ndefault: 1.5"), 12, "not an integer"},
		{parameter("type: integer\ndefault: 010"), 12, "not an integer"},
		{parameter("type: boolean\ndefault: yes"), 12, "neither true nor false"},
		{parameter("type: number\ndefault: .5"), 12, "not a number"},
		{parameter("type: number\npattern: a"), 12, "a pattern is for the type string"},
		{parameter("pattern: ("), 11, "pattern"},
		{parameter("pattern: (((a{1000}){1000}){1000})"), 11, "pattern"},
		{parameter("pattern: a+\ndefault: b"), 12, "does not match the pattern"},
		{parameter("enum: [a, b]\ndefault: c"), 12, "is none of a, b"},
		{parameter("enum: [a, a]"), 11, "twice"},
		{parameter("type: integer\nenum: [1, a]"), 12, "not an integer"},
		{parameter("secret: true\ndefault: geheim"), 12, "a secret has no default"},
		{parameter("required: true\ndefault: a"), 11, "it has a default"},
		{parameter("required: true\n") + "- name: p\n  values: [{path: c}]\n", 13, `parameter "p" stands here for the second time, first on line 9`},
		{parameter("required: true\n") + "- name: q\n  values: [{path: a.b}]\n", 14, `value "a.b" stands here for the second time, first on line 10`},
		{parameter("required: true\n") + "- name: q\n  values: [{path: 'a[0]'}]\n", 14, `path "a[0]"`},
	} {
		_, problems := parseSpec([]byte(head + c.lines + "\n"))
		if len(problems) != 1 || problems[0].Line != c.line || !strings.Contains(problems[0].Text, c.want) {
			t.Errorf("%s\n\tgot  %v\n\twant line %d: %s", c.lines, problems, c.line, c.want)
		}
		for _, p := range problems {
			if strings.Contains(p.Text, "geheim") {
				t.Errorf("a secret is told: %s", p.Text)
			}
		}
	}
}

// TestContent: patterns alone are nothing to pack; each kind of content is something.
func TestContent(t *testing.T) {
	head := "apiVersion: sealift/v1\nkind: Bundle\nname: a\nversion: 1.0.0\n"
	for lines, want := range map[string]bool{
		"": false, "images: []": false, "images: [{match: r.example.com/a}]": false, "ignoreImages: [{match: r.example.com/a}]": false,
		"images: [{ref: r.example.com/a}]": true, "artifacts: [{ref: r.example.com/a}]": true, "charts: [{path: a}]": true,
		"manifests: [{path: a}]": true, "files: [{path: a}]": true,
	} {
		_, problems := parseSpec([]byte(head + lines))
		if want != (len(problems) == 0) || !want && problems[0].Text != nothingToPack {
			t.Errorf("%q: %v", lines, problems)
		}
	}
}
