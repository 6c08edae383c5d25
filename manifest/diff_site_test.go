package manifest_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/sealift/sealift/manifest"
)

// TestCompareWhatTheSiteSees: every member of a manifest that a site can notice is noticed, by its word.
func TestCompareWhatTheSiteSees(t *testing.T) {
	chart := func(change func(*manifest.Chart)) func(*manifest.Manifest) {
		return func(m *manifest.Manifest) { change(&m.Charts[0]) }
	}
	for name, c := range map[string]struct {
		change func(*manifest.Manifest)
		want   string
	}{
		"nothing":                {func(*manifest.Manifest) {}, ""},
		"reasons":                {func(m *manifest.Manifest) { m.Images[0].Reasons = m.Images[0].Reasons[:1] }, ""},
		"artifact added":         {func(m *manifest.Manifest) { m.Artifacts = append(m.Artifacts, img("r.example/wasm:1 1")) }, "+artifact"},
		"artifact removed":       {func(m *manifest.Manifest) { m.Artifacts = nil }, "-artifact"},
		"artifact type":          {func(m *manifest.Manifest) { m.Artifacts[0].ArtifactType = "a/b" }, "artifact artifactType"},
		"ignored":                {func(m *manifest.Manifest) { m.Ignored = nil }, "-ignored"},
		"why it is ignored":      {func(m *manifest.Manifest) { m.Ignored[0].Why = "other" }, ""},
		"another one is ignored": {func(m *manifest.Manifest) { m.Ignored[0].Reference = "r.example/x:1" }, "+ignored -ignored"},
		"source, another tag":    {chart(func(c *manifest.Chart) { c.Source = "oci://registry.example.com/charts/shop:0.2.0" }), ""},
		"source":                 {chart(func(c *manifest.Chart) { c.Source = "oci://other.example/charts/shop:0.1.0" }), "chart source"},
		"source, none":           {chart(func(c *manifest.Chart) { c.Source = "" }), "chart source"},
		"plain":                  {chart(func(c *manifest.Chart) { c.Plain = true }), "chart source"},
		"provenance":             {chart(func(c *manifest.Chart) { c.Provenance = nil }), "chart provenance"},
		"who signed it":          {chart(func(c *manifest.Chart) { c.SignedBy = "" }), "chart provenance"},
		"referrers of a chart":   {chart(func(c *manifest.Chart) { c.Referrers = c.Referrers[:1] }), "chart referrers"},
		"depends on":             {func(m *manifest.Manifest) { m.Charts[1].DependsOn = nil }, "chart dependsOn"},
		"registry values":        {chart(func(c *manifest.Chart) { c.RegistryValues = c.RegistryValues[:1] }), "chart registryValues"},
		"rollback":               {chart(func(c *manifest.Chart) { c.Rollback = "" }), "chart rollback"},
		"rollout":                {func(m *manifest.Manifest) { m.Charts[1].Rollout = nil }, "chart rollout"},
		"steps of a rollout":     {func(m *manifest.Manifest) { m.Charts[1].Rollout.Steps = []int{5} }, "chart rollout"},
		"checks":                 {chart(func(c *manifest.Chart) { c.Checks = c.Checks[:1] }), "chart checks"},
		"a check's port": {chart(func(c *manifest.Chart) {
			c.Checks = []manifest.Check{c.Checks[0], {Name: "db", TCP: &manifest.CheckTCP{Service: "db", Port: 1}}, c.Checks[2]}
		}), "chart checks"},
		"file added":       {func(m *manifest.Manifest) { m.Files = append(m.Files, manifest.File{Name: "x", Digest: digestOf(77)}) }, "+file"},
		"file removed":     {func(m *manifest.Manifest) { m.Files = m.Files[1:] }, "-file"},
		"file renamed":     {func(m *manifest.Manifest) { m.Files[1].Name = "bin/other" }, "file name"},
		"file's content":   {func(m *manifest.Manifest) { m.Files[1].Digest = digestOf(77) }, "file content"},
		"file, no program": {func(m *manifest.Manifest) { m.Files[1].Executable = false }, "file executable"},
		"notes":            {func(m *manifest.Manifest) { m.Notes = nil }, "notes"},
		"kubernetes":       {func(m *manifest.Manifest) { m.Requires.Kubernetes = "" }, "kubernetes:>=1.30 <1.36->"},
		"nothing required": {func(m *manifest.Manifest) {
			m.Requires = &manifest.Requires{Kubernetes: ">=1.30 <1.36", UpgradeFrom: "^1.0.0", CPU: "4", Memory: "8.5Gi"}
		}, "architectures:amd64, arm64-> storageClasses:*, fast.ssd-> apiGroups:apps/v1, cert-manager.io, monitoring.coreos.com/v1/ServiceMonitor->"},
		"order of what is needed": {func(m *manifest.Manifest) { m.Requires.Architectures = []string{"arm64", "amd64"} }, ""},
		"memory":                  {func(m *manifest.Manifest) { m.Requires.Memory = "16Gi" }, "memory:8.5Gi->16Gi"},
		"parameter added":         {func(m *manifest.Manifest) { m.Parameters = append(m.Parameters, manifest.Parameter{Name: "x"}) }, "+parameter"},
		"environment removed":     {func(m *manifest.Manifest) { m.Charts[0].Environments = m.Charts[0].Environments[1:] }, "chart environments"},
		"environment's values": {func(m *manifest.Manifest) {
			m.Charts[0].Environments = []manifest.Environment{{Name: "staging"}, {Name: "bare"}}
		}, "chart environments"},
		"parameter removed": {func(m *manifest.Manifest) { m.Parameters = m.Parameters[1:] }, "-parameter"},
		"parameter": {func(m *manifest.Manifest) {
			m.Parameters[0] = manifest.Parameter{Name: "host", Type: "integer", Required: true, Secret: true, Enum: []string{"1"}}
		}, "parameter description,type,default,required,secret,pattern,enum,values"},
		"default, empty or none": {func(m *manifest.Manifest) { m.Parameters[3].Default = nil }, "parameter default"},
	} {
		t.Run(name, func(t *testing.T) {
			old, now := full(t), full(t)
			c.change(now)
			d := manifest.Compare(old, now)
			if got := words(d); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if d.Changed() != (c.want != "") {
				t.Errorf("changed: %t", d.Changed())
			}
			raw, err := json.Marshal(d)
			if err != nil {
				t.Fatal(err)
			}
			// Those of the manifest itself may be left out, as they are there.
			var members map[string]json.RawMessage
			if err := json.Unmarshal(raw, &members); err != nil {
				t.Fatal(err)
			}
			for name, m := range members {
				if string(m) == "null" || strings.Contains(string(m), `"added":null`) || strings.Contains(string(m), `"changed":null`) {
					t.Errorf("%s is %s", name, m)
				}
			}
		})
	}
}

// words are what differs, in the order of the Difference.
func words(d *manifest.Difference) string {
	var w []string
	add := func(what string, added, removed int) {
		w = append(w, slices.Repeat([]string{"+" + what}, added)...)
		w = append(w, slices.Repeat([]string{"-" + what}, removed)...)
	}
	add("image", len(d.Images.Added), len(d.Images.Removed))
	for _, c := range d.Images.Changed {
		w = append(w, "image "+strings.Join(c.Changes, ","))
	}
	add("artifact", len(d.Artifacts.Added), len(d.Artifacts.Removed))
	for _, c := range d.Artifacts.Changed {
		w = append(w, "artifact "+strings.Join(c.Changes, ","))
	}
	add("ignored", len(d.Ignored.Added), len(d.Ignored.Removed))
	for _, c := range d.Charts.Changed {
		w = append(w, "chart "+strings.Join(c.Changes, ","))
	}
	add("file", len(d.Files.Added), len(d.Files.Removed))
	for _, c := range d.Files.Changed {
		w = append(w, "file "+strings.Join(c.Changes, ","))
	}
	if d.Notes != nil {
		w = append(w, "notes")
	}
	for _, c := range d.Requirements {
		w = append(w, fmt.Sprintf("%s:%s->%s", c.Name, c.Old, c.New))
	}
	add("parameter", len(d.Parameters.Added), len(d.Parameters.Removed))
	for _, c := range d.Parameters.Changed {
		w = append(w, "parameter "+strings.Join(c.Changes, ","))
	}
	return strings.Join(w, " ")
}

// TestNoMemberIsForgotten: a new member of the types that Compare looks into has to be thought of.
func TestNoMemberIsForgotten(t *testing.T) {
	for _, c := range []struct {
		v    any
		want int
	}{
		{manifest.Manifest{}, 19},
		{manifest.Image{}, 12},
		{manifest.Chart{}, 19},
		{manifest.Environment{}, 2},
		{manifest.Check{}, 5},
		{manifest.Rollout{}, 3},
		{manifest.File{}, 4},
		{manifest.Requires{}, 7},
		{manifest.Parameter{}, 9},
	} {
		typ := reflect.TypeOf(c.v)
		if n := typ.NumField(); n != c.want {
			t.Errorf("%s has %d members, the comparison knows %d", typ, n, c.want)
		}
	}
}
