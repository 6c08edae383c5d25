package install

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/sealift/sealift/internal/chart"
	"github.com/sealift/sealift/internal/ledger"
	"github.com/sealift/sealift/internal/release"
	"github.com/sealift/sealift/manifest"
)

// aPlan has something of everything.
func aPlan() *Plan {
	return &Plan{
		MediaType: PlanMediaType, Bundle: "shop", Version: "2.0.0", Manifest: "sha256:aa", Cluster: "uid", Kubernetes: "v1.36.3",
		Registry: "reg.example/shop", Rendering: &RenderingPlan{Pin: PinDigest, PullSecrets: []string{"pull"}}, Environment: "staging",
		Parameters: []Said{{Name: "domain", Value: "a.example"}, {Name: "password", Secret: true}}, Replaces: "1.0.0", Serial: 4,
		Seed: &SeedResult{Registry: "reg.example/shop", UploadedBytes: 12},
		Releases: []ReleasePlan{
			{
				Release: "shop", Namespace: "apps", Chart: "shop", Version: "2.0.0", Action: release.ActionUpgrade,
				From: &release.State{Revision: 3, Status: "deployed", Chart: "shop", Version: "1.0.0"}, Digest: "sha256:bb",
				Changes: []ObjectPlan{{ObjectChange: chart.ObjectChange{Action: chart.ObjectChanged, Object: "Deployment/apps/shop", Fields: []chart.FieldChange{{Path: "a", Old: "<1>", New: "2"}}}, Against: AgainstLive}},
				Hooks:   []string{"pre-upgrade Job/migrate"}, Backup: []string{"Job/backup"}, Restore: []string{"Job/restore"},
				Impact: []ImpactPlan{{Object: "Deployment/apps/shop", Effect: EffectReplace, Pods: 2}}, NoReturn: []string{"a hook"},
			},
			{Release: "db", Namespace: "apps", Chart: "db", Version: "1.0.0", Action: ActionLeave, Digest: "sha256:cc"},
		},
		Dropped: []DroppedRelease{{Release: "old", Namespace: "apps", Chart: "old", Version: "1.0.0", Revision: 2, Action: ActionKeep}},
		Steps:   []PlannedStep{{Kind: ledger.StepBackup, Release: "apps/shop"}, {Kind: ledger.StepRelease, Release: "apps/shop", After: []int{0}, NoReturn: []string{"a hook"}}},
	}
}

func encoded(t testing.TB, p *Plan) []byte {
	t.Helper()
	raw, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestReadPlan(t *testing.T) {
	raw := encoded(t, aPlan())
	p, err := ReadPlan(raw)
	if err != nil {
		t.Fatal(err)
	}
	if again := encoded(t, p); string(again) != string(raw) {
		t.Errorf("written again it is\n%s\nwas\n%s", again, raw)
	}
	if err := p.Matches(aPlan()); err != nil {
		t.Error(err)
	}
	one, err := aPlan().Digest()
	if err != nil {
		t.Fatal(err)
	}
	if two, err := p.Digest(); err != nil || two != one {
		t.Errorf("digest %s, %v, want %s", two, err, one)
	}
	text := string(raw)
	for name, bad := range map[string]string{
		"empty":              "",
		"no object":          "[]",
		"other media type":   strings.Replace(text, PlanMediaType, "application/vnd.sealift.state.v1+json", 1),
		"media type later":   strings.Replace(text, "{\n  \"mediaType\"", "{\n  \"serial\": 4,\n  \"mediaType\"", 1),
		"unknown member":     strings.Replace(text, `"bundle"`, `"bundles"`, 1),
		"other case":         strings.Replace(text, `"bundle"`, `"Bundle"`, 1),
		"twice":              strings.Replace(text, `"serial": 4`, "\"serial\": 9,\n  \"serial\": 4", 1),
		"written otherwise":  strings.Replace(text, `"serial": 4`, `"serial":4`, 1),
		"escaped":            strings.Replace(text, `<1>`, `\u003c1>`, 1),
		"two documents":      text + text,
		"cut":                text[:len(text)/2],
		"without a cluster":  strings.Replace(text, "  \"cluster\": \"uid\",\n", "", 1),
		"release twice":      strings.Replace(text, `"release": "db"`, `"release": "shop"`, 1),
		"release no digest":  strings.Replace(text, "sha256:cc", "", 1),
		"step after itself":  strings.Replace(text, "\"after\": [\n        0\n", "\"after\": [\n        1\n", 1),
		"too large":          text + strings.Repeat(" ", MaxPlanBytes),
		"without a manifest": strings.Replace(text, "sha256:aa", "", 1),
	} {
		t.Run(name, func(t *testing.T) {
			if bad == text {
				t.Fatal("nothing was changed")
			}
			var e *PlanError
			if _, err := ReadPlan([]byte(bad)); !errors.As(err, &e) {
				t.Errorf("got %v, want a *PlanError", err)
			}
		})
	}
}

// Each thing that a plan binds is found when it differs, and named; what is for people only is not.
func TestMatches(t *testing.T) {
	for what, change := range map[string]func(*Plan){
		"bundle":                        func(p *Plan) { p.Bundle = "x" },
		"version":                       func(p *Plan) { p.Version = "x" },
		"manifest":                      func(p *Plan) { p.Manifest = "x" },
		"cluster":                       func(p *Plan) { p.Cluster = "x" },
		"registry":                      func(p *Plan) { p.Registry = "x" },
		"rendering":                     func(p *Plan) { p.Rendering.NoRewrite = true },
		"environment":                   func(p *Plan) { p.Environment = "" },
		"parameter domain":              func(p *Plan) { p.Parameters[0].Value = "b.example" },
		"parameter password":            func(p *Plan) { p.Parameters = p.Parameters[:1] },
		"parameter more":                func(p *Plan) { p.Parameters = append(p.Parameters, Said{Name: "more", Value: "x"}) },
		"installed version":             func(p *Plan) { p.Replaces = "" },
		"changes of the bundle's state": func(p *Plan) { p.Serial++ },
		"removal of dropped releases":   func(p *Plan) { p.RemoveDropped = true },
		"tests of charts":               func(p *Plan) { p.Test = true },
		"steps":                         func(p *Plan) { p.Steps = append(p.Steps, PlannedStep{Kind: ledger.StepTest, Release: "apps/shop"}) },
		"taking over of fields of others (--take-over)":           func(p *Plan) { p.TakeOver = true },
		"taking over of releases and objects of others (--adopt)": func(p *Plan) { p.Adopt = true },
		"releases that the bundle has no more":                    func(p *Plan) { p.Dropped[0].Revision++ },
		"release apps/db":                                         func(p *Plan) { p.Releases = p.Releases[:1] },
		"release apps/new": func(p *Plan) {
			p.Releases = append(p.Releases, ReleasePlan{Release: "new", Namespace: "apps", Action: "install"})
		},
		"release apps/shop, action":              func(p *Plan) { p.Releases[0].Action = release.ActionInstall },
		"release apps/shop, name in Helm":        func(p *Plan) { p.Releases[0].As = "shop-green" },
		"release apps/shop, chart":               func(p *Plan) { p.Releases[0].Version = "x" },
		"release apps/shop, installed":           func(p *Plan) { p.Releases[0].From.Revision++ },
		"release apps/shop, objects":             func(p *Plan) { p.Releases[0].Digest = "x" },
		"release apps/shop, points of no return": func(p *Plan) { p.Releases[0].NoReturn = nil },
		"release apps/shop, backup":              func(p *Plan) { p.Releases[0].Backup = nil },
		"release apps/shop, restore":             func(p *Plan) { p.Releases[0].Restore = []string{"Job/x"} },
	} {
		t.Run(what, func(t *testing.T) {
			now := aPlan()
			change(now)
			var e *PlanChangedError
			if err := aPlan().Matches(now); !errors.As(err, &e) || len(e.Differences) != 1 || e.Differences[0].What != what {
				t.Errorf("got %v, want one difference in %q", err, what)
			} else if !strings.Contains(err.Error(), what) {
				t.Errorf("%v does not name %q", err, what)
			}
		})
	}
	now := aPlan()
	now.Seed.UploadedBytes, now.Releases[0].Changes, now.Releases[0].Impact, now.Mentions, now.Kubernetes = 0, nil, nil, []MentionPlan{{}}, "v1.36.4"
	now.Releases[0].Objects = "x"
	slices.Reverse(now.Releases)
	if err := aPlan().Matches(now); err != nil {
		t.Errorf("what people are shown counts: %v", err)
	}
}

func FuzzReadPlan(f *testing.F) {
	raw := encoded(f, aPlan())
	f.Add(raw)
	f.Add([]byte(`{"mediaType":"` + PlanMediaType + `"}`))
	f.Add(raw[:len(raw)-2])
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := ReadPlan(raw)
		if err != nil {
			return
		}
		if again := encoded(t, p); string(again) != string(raw) {
			t.Errorf("%q became %q", raw, again)
		}
		if err := p.Matches(p); err != nil {
			t.Errorf("it does not match itself: %v", err)
		}
	})
}

func TestOtherSecrets(t *testing.T) {
	values := map[string]any{"db": map[string]any{"password": "Aaz9-Z", "port": int64(5432)}, "list": []any{map[string]any{"a": "b"}}}
	copied, ok := cloneValue(values).(map[string]any)
	if !ok || !reflect.DeepEqual(copied, values) {
		t.Fatalf("the copy is %v", copied)
	}
	for path, want := range map[string]string{"password": "Aaz9-Z", "port": "5432"} {
		if got, ok := changeSecret(copied, []string{"db", path}); !ok || got != want {
			t.Fatalf("%s: got %q, %v, want %q", path, got, ok, want)
		}
	}
	want := map[string]any{"password": "Bba0-A", "port": int64(5433)}
	if !reflect.DeepEqual(copied["db"], want) {
		t.Errorf("got %v, want %v", copied["db"], want)
	}
	if db, ok := values["db"].(map[string]any); !ok || db["password"] != "Aaz9-Z" {
		t.Error("the values themselves were changed")
	}
	for _, path := range [][]string{{"none"}, {"db", "none"}, {"list", "a"}} {
		if _, changed := changeSecret(copied, path); changed {
			t.Errorf("something at %v was changed", path)
		}
	}
}

// Where a chart takes no other secret, what it most often makes of one is found.
func TestExchange(t *testing.T) {
	docs := []byte("a: x-hunter22-y\nb: aHVudGVyMjI=\nc: 6a2fee36ddf2aa7e4ab1e7f6ed3d8df1\nd: e3f2dd8e7a3d3ad9f6f8a56c1d4ff8f4\n")
	sum := sha256.Sum256([]byte("hunter22"))
	docs = append(docs, "e: "+hex.EncodeToString(sum[:])+"\n"...)
	got := string(exchange(docs, []string{"hunter22", "x"}))
	want := "a: x-ivoufs33-y\nb: bIWveHWzNkJ=\nc: 6a2fee36ddf2aa7e4ab1e7f6ed3d8df1\nd: e3f2dd8e7a3d3ad9f6f8a56c1d4ff8f4\n"
	if !strings.HasPrefix(got, want) || strings.Contains(got, hex.EncodeToString(sum[:])) || len(got) != len(docs) {
		t.Errorf("got %q, want %q and another checksum", got, want)
	}
}

// vendorsReleases have the vendor's word each.
func vendorsReleases(specs ...manifest.Chart) (list []*Release, plans []ReleasePlan) {
	for i := range specs {
		s := &specs[i]
		list = append(list, &Release{Name: s.Release, Namespace: s.Namespace, As: s.Release, Spec: s})
		plans = append(plans, ReleasePlan{Release: s.Release, Namespace: s.Namespace, Chart: s.Release, Version: "2", Action: release.ActionInstall, spec: s})
	}
	return list, plans
}

func TestPlannedSteps(t *testing.T) {
	releases, plans := vendorsReleases(
		manifest.Chart{Release: "db", Namespace: "a"},
		manifest.Chart{Release: "same", Namespace: "a", DependsOn: []string{"a/db"}},
		manifest.Chart{Release: "app", Namespace: "a", DependsOn: []string{"a/same"}, Checks: []manifest.Check{{Name: "web"}}},
	)
	plans[0].parts.crds = []byte("x")
	plans[1].Action = ActionLeave
	plans[2].Action, plans[2].From = release.ActionUpgrade, &release.State{Revision: 4, Chart: "app", Version: "1"}
	plans[2].Backup, plans[2].Restore, plans[2].NoReturn = []string{"Job/save"}, []string{"Job/load"}, []string{"why"}
	p := &Plan{Cluster: "uid", Releases: plans, Dropped: []DroppedRelease{
		{Release: "left", Namespace: "a", Action: ActionKeep}, {Release: "gone", Namespace: "a", Chart: "gone", Version: "1", Revision: 7, Action: ActionRemove},
	}}
	p.Steps = p.steps(releases, true)
	var got []string
	for _, s := range p.Steps {
		raw, err := json.Marshal(s.After)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, s.Kind+" "+s.Release+" "+string(raw)+" "+s.Do+" | "+s.Back)
	}
	want := []string{
		`crds a/db [] apply the definitions of its chart, of which 0 change | apply the former definitions; new ones stay`,
		`release a/db [0] install db 2 | uninstall; claims, volumes, namespaces and definitions stay`,
		`test a/db [1] run the tests of the chart | `,
		`backup a/app [0,2] run Job/save | run Job/load`,
		`release a/app [3] upgrade app 2 over revision 4 (app 1) | to revision 4 (app 1)`,
		`test a/app [4] run the tests of the chart | `,
		`check a/app [5] check "web" | `,
		`remove a/gone [0,1,2,3,4,5,6] uninstall gone 1; what holds data stays | install revision 7 again (gone 1)`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if at := p.NoReturnFrom(); at != 4 {
		t.Errorf("there is no way back from step %d, want 4", at)
	}
}

const hookDocs = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: migrate, annotations: {helm.sh/hook: pre-upgrade}}\n"

func TestPlannedNoReturn(t *testing.T) {
	set := func(replicas, deleted, scaled string) []byte {
		return []byte(`{"kind":"StatefulSet","spec":{"replicas":` + replicas + `,"volumeClaimTemplates":[{}],"persistentVolumeClaimRetentionPolicy":{"whenDeleted":"` + deleted + `","whenScaled":"` + scaled + `"}}}`)
	}
	for name, c := range map[string]struct {
		rollback, action string
		docs             string
		live, gone       []release.LiveObject
		want, note       string
	}{
		"hook":                 {docs: hookDocs, want: "the hook Job/migrate runs"},
		"hook called safe":     {rollback: manifest.RollbackSafe, docs: hookDocs},
		"hook at first":        {action: release.ActionInstall, docs: hookDocs},
		"hook of an install":   {docs: strings.Replace(hookDocs, "pre-upgrade", "pre-install", 1)},
		"forbidden":            {rollback: manifest.RollbackForbidden, want: "no way back from this version"},
		"forbidden, at first":  {rollback: manifest.RollbackForbidden, action: release.ActionInstall},
		"manual":               {rollback: manifest.RollbackManual, want: "by hand"},
		"claim goes":           {gone: []release.LiveObject{{Object: "PersistentVolumeClaim/a/data", Kind: "PersistentVolumeClaim", Live: []byte("{}")}}, note: "it stays in the cluster"},
		"claim kept":           {gone: []release.LiveObject{{Object: "PersistentVolumeClaim/a/data", Kind: "PersistentVolumeClaim", Live: []byte("{}"), Kept: true}}},
		"set goes with claims": {gone: []release.LiveObject{{Object: "StatefulSet/a/db", Kind: "StatefulSet", Live: set("1", "Delete", "Retain")}}, want: "its claims are deleted with it"},
		"set goes":             {gone: []release.LiveObject{{Object: "StatefulSet/a/db", Kind: "StatefulSet", Live: set("1", "Retain", "Delete")}}},
		"scaled with claims":   {live: []release.LiveObject{{Object: "StatefulSet/a/db", Kind: "StatefulSet", Pods: 3, Live: []byte("{}"), Applied: set("2", "Retain", "Delete")}}, want: "from 3 to 2"},
		"scaled up":            {live: []release.LiveObject{{Object: "StatefulSet/a/db", Kind: "StatefulSet", Pods: 1, Live: []byte("{}"), Applied: set("2", "Retain", "Delete")}}},
		"scaled, claims stay":  {live: []release.LiveObject{{Object: "StatefulSet/a/db", Kind: "StatefulSet", Pods: 3, Live: []byte("{}"), Applied: set("2", "Retain", "Retain")}}},
	} {
		t.Run(name, func(t *testing.T) {
			p := &ReleasePlan{Action: c.action, spec: &manifest.Chart{Rollback: c.rollback}, parts: rendered{docs: []byte(c.docs)}}
			if p.Action == "" {
				p.Action = release.ActionUpgrade
			}
			if err := (&comparison{plan: p, live: c.live, gone: c.gone}).noReturn(); err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(p.NoReturn, "; "); c.want == "" && got != "" || !strings.Contains(got, c.want) {
				t.Errorf("points of no return: %q, want %q", got, c.want)
			}
			if got := strings.Join(p.Notes, "; "); c.note == "" && got != "" || !strings.Contains(got, c.note) {
				t.Errorf("notes: %q, want %q", got, c.note)
			}
		})
	}
}

func TestDefinitionPlans(t *testing.T) {
	crd := func(versions string) string {
		return `{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"w.example.com"},"spec":{"versions":[` + versions + `]}}`
	}
	v := func(name, storage string) string {
		return `{"name":"` + name + `","served":true,"storage":` + storage + `}`
	}
	name := "CustomResourceDefinition/w.example.com"
	for title, c := range map[string]struct {
		was, is string
		want    DefinitionPlan
		final   bool
	}{
		"new":             {"", crd(v("v1", "true")), DefinitionPlan{Name: "w.example.com", Action: chart.ObjectAdded, Added: []string{"v1"}, Removed: []string{}}, false},
		"new storage":     {crd(v("v1", "true")), crd(v("v1", "false") + "," + v("v2", "true")), DefinitionPlan{Name: "w.example.com", Action: chart.ObjectChanged, Added: []string{"v2"}, Removed: []string{}, StorageWas: "v1", Storage: "v2"}, true},
		"known storage":   {crd(v("v1", "true") + "," + v("v2", "false")), crd(v("v2", "true")), DefinitionPlan{Name: "w.example.com", Action: chart.ObjectChanged, Added: []string{}, Removed: []string{"v1"}, StorageWas: "v1", Storage: "v2"}, false},
		"version besides": {crd(v("v1", "true")), crd(v("v1", "true") + "," + v("v2", "false")), DefinitionPlan{Name: "w.example.com", Action: chart.ObjectChanged, Added: []string{"v2"}, Removed: []string{}}, false},
	} {
		t.Run(title, func(t *testing.T) {
			p := &ReleasePlan{parts: rendered{crds: []byte(c.is)}, Changes: []ObjectPlan{{ObjectChange: chart.ObjectChange{Object: name}}}}
			live := release.LiveObject{Object: name, Kind: "CustomResourceDefinition"}
			if c.was != "" {
				live.Live = []byte(c.was)
			}
			if err := (&comparison{plan: p, live: []release.LiveObject{live}}).definitions(); err != nil {
				t.Fatal(err)
			}
			if len(p.Definitions) != 1 || !reflect.DeepEqual(p.Definitions[0], c.want) {
				t.Errorf("got %+v, want %+v", p.Definitions, c.want)
			}
			if (len(p.NoReturn) > 0) != c.final {
				t.Errorf("points of no return: %q", p.NoReturn)
			}
		})
	}
}

func TestMentions(t *testing.T) {
	docs := `apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  containers:
  - {name: a, image: "site.example/shop/app:1@sha256:aa"}
  - {name: b, image: "other.example/tool:2"}
  - {name: c, image: "site.example/x:1", args: ["--from=vendor.example", "--to=site.example"]}
`
	m := &manifest.Manifest{Images: []manifest.Image{{Source: "vendor.example/shop/app:1"}}}
	got, err := mentionsOf([]ReleasePlan{{Release: "r", Namespace: "n", docs: []byte(docs)}}, m, Target{Registry: "site.example"}, func(s string) string { return s })
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, g := range got {
		lines = append(lines, g.Reference+" "+g.Path)
	}
	if want := []string{"other.example/tool:2 spec.containers[1].image", "vendor.example spec.containers[2].args[0]"}; !slices.Equal(lines, want) {
		t.Errorf("got %q, want %q", lines, want)
	}
}
