package install

import (
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/sealift/sealift/internal/containerd"
	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/internal/release"
	"github.com/sealift/sealift/manifest"
	"github.com/sealift/sealift/verify"
)

// TestCheckNode: only one node, only this machine, and only its own containerd.
func TestCheckNode(t *testing.T) {
	here := Machine{Hostname: "Box", MachineID: "m", SystemUUID: "s", IPs: []net.IP{net.ParseIP("127.0.0.1"), net.ParseIP("192.0.2.1")}}
	node := func(change func(*release.Node)) []release.Node {
		n := release.Node{Name: "n", Runtime: "containerd://v2.1.4"}
		change(&n)
		return []release.Node{n}
	}
	for name, c := range map[string]struct {
		nodes []release.Node
		want  string
	}{
		"the same machine":        {node(func(n *release.Node) { n.MachineID, n.SystemUUID = "M", "other" }), ""},
		"another machine":         {node(func(n *release.Node) { n.MachineID, n.Name = "other", "box" }), "machine id"},
		"the same board":          {node(func(n *release.Node) { n.SystemUUID = "S" }), ""},
		"another board":           {node(func(n *release.Node) { n.SystemUUID, n.Name = "other", "box" }), "system uuid"},
		"the same name":           {node(func(n *release.Node) { n.Name = "box" }), ""},
		"the same host":           {node(func(n *release.Node) { n.Hosts = []string{"x", "BOX"} }), ""},
		"the same address":        {node(func(n *release.Node) { n.IPs = []string{"192.0.2.1"} }), ""},
		"only a loopback address": {node(func(n *release.Node) { n.IPs = []string{"127.0.0.1"} }), "name"},
		"another name":            {node(func(n *release.Node) { n.IPs = []string{"192.0.2.2", "?"} }), "name"},
		"another containerd":      {node(func(n *release.Node) { n.Name, n.Runtime = "box", "containerd://1.7.0" }), "container runtime"},
		"a distribution's":        {node(func(n *release.Node) { n.Name, n.Runtime = "box", "containerd://2.1.4~ds1" }), ""},
		"no containerd":           {node(func(n *release.Node) { n.Name, n.Runtime = "box", "cri-o://2.1.4" }), "container runtime"},
	} {
		err := CheckNode(c.nodes, here, "2.1.4")
		var other *OtherNodeError
		var refused *PreflightError
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.want != "" && (!errors.As(err, &refused) || !errors.As(err, &other) || other.What != c.want || other.Node != c.nodes[0].Name):
			t.Errorf("%s: got %v, want it refused for its %s", name, err, c.want)
		}
	}
	// The first two are the same machine: what was cloned with its machine-id is told apart by nothing here.
	var several *NodesError
	var refused *PreflightError
	two := []release.Node{{Name: "box"}, {Name: "worker-1"}}
	if err := CheckNode(two, here, "2.1.4"); !errors.As(err, &refused) || !errors.As(err, &several) || !strings.Contains(err.Error(), "box, worker-1") {
		t.Errorf("two nodes: %v", err)
	}
	if err := CheckNode(nil, here, "2.1.4"); !errors.As(err, &several) {
		t.Errorf("no node: %v", err)
	}
}

// TestCheckPulls: what would be pulled each time is named, whether it is written or follows from the tag.
func TestCheckPulls(t *testing.T) {
	digest := "sha256:" + strings.Repeat("a", 64)
	plan := func(image, policy string) []ReleasePlan {
		if policy != "" {
			policy = ", imagePullPolicy: " + policy
		}
		return []ReleasePlan{{Release: "shop", Namespace: "ns", docs: []byte("apiVersion: batch/v1\nkind: Job\nmetadata: {name: j}\nspec: {template: {spec: {containers: [{image: \"" + image + "\"" + policy + "}]}}}\n")}}
	}
	for _, c := range []struct {
		image, policy    string
		refused, implied bool
	}{
		{"a:1", "", false, false},
		{"a:1", "IfNotPresent", false, false},
		{"a:latest", "Never", false, false},
		{"a@" + digest, "", false, false},
		{"a:1@" + digest, "", false, false},
		{"a:1@" + digest, "Always", true, false},
		{"a:1", "Always", true, false},
		{"a", "", true, true},
		{"a:latest", "", true, true},
		// As Kubernetes has it, though the digest would do.
		{"a:latest@" + digest, "", true, true},
	} {
		err := CheckPulls(plan(c.image, c.policy))
		var always *AlwaysPullError
		var refused *PreflightError
		if !c.refused {
			if err != nil {
				t.Errorf("%s with %q: %v", c.image, c.policy, err)
			}
			continue
		}
		if !errors.As(err, &refused) || !errors.As(err, &always) || len(always.Places) != 1 {
			t.Errorf("%s with %q: %v", c.image, c.policy, err)
			continue
		}
		want := Pulled{"ns/shop", "Job/j", "spec.template.spec.containers[0].image", c.image, c.implied}
		if always.Places[0] != want {
			t.Errorf("got %+v, want %+v", always.Places[0], want)
		}
	}
	var many []ReleasePlan
	for range maxListed + 2 {
		many = append(many, plan("a", "")...)
	}
	if err := CheckPulls(many); err == nil || !strings.Contains(err.Error(), "and 2 more") {
		t.Errorf("many: %v", err)
	}
}

// TestLoadedPlaces: by which names objects may ask for what a node has.
func TestLoadedPlaces(t *testing.T) {
	digest := func(c string) string { return "sha256:" + strings.Repeat(c, 64) }
	m := &manifest.Manifest{
		Images: []manifest.Image{
			{Source: "docker.io/library/nginx:1", Digest: digest("a")},
			{Source: "vendor.example/app@" + digest("b"), Digest: digest("b")},
			{Source: "vendor.example/pinned:1@" + digest("c"), Digest: digest("c")},
			{Source: "vendor.example/arm:1", Digest: digest("d")},
		},
		Ignored: []manifest.IgnoredImage{{Reference: "vendor.example/demo:1"}},
	}
	p := loadedPlaces(m, &LoadResult{Images: []LoadedImage{
		{Source: "vendor.example/pinned:1@" + digest("c"), Names: []string{"vendor.example/pinned:1", "vendor.example/pinned@" + digest("c")}},
	}})
	for text, want := range map[string]bool{
		"nginx:1":                                true,
		"docker.io/library/nginx:1":              true,
		"nginx@" + digest("a"):                   true,
		"nginx:1@" + digest("a"):                 true,
		"nginx:2":                                false,
		"nginx@" + digest("b"):                   false,
		"vendor.example/app@" + digest("b"):      true,
		"vendor.example/app:1":                   false,
		"vendor.example/pinned:1":                true,
		"vendor.example/pinned:1@" + digest("c"): true,
		"vendor.example/arm:1":                   true,
		"vendor.example/demo:1":                  true,
	} {
		ref, err := oci.Normalize(text)
		if err != nil {
			t.Fatal(err)
		}
		if _, got := p.find(ref); got != want {
			t.Errorf("%s: found %v, want %v", text, got, want)
		}
	}
}

// TestNamesOfLoaded: a tag beside a digest is a name only where nobody else has it, and two of the same
// name are refused.
func TestNamesOfLoaded(t *testing.T) {
	digest := func(c string) string { return "sha256:" + strings.Repeat(c, 64) }
	images := func(sources ...string) *Loading {
		l := &Loading{}
		for i, s := range sources {
			source, d, _ := strings.Cut(s, "=")
			l.images = append(l.images, &loadImage{bundle: &verify.Bundle{}, source: source, top: manifest.Descriptor{Digest: digest(d), Size: int64(i)}})
		}
		return l
	}
	names := func(l *Loading) string {
		t.Helper()
		if err := l.name(); err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, li := range l.images {
			all = append(all, strings.Join(li.names, " "))
		}
		return strings.ReplaceAll(strings.Join(all, ", "), "v.example/", "")
	}
	for name, c := range map[string]struct{ got, want string }{
		"tag":                      {names(images("v.example/a:1=a")), "a:1 a@" + digest("a")},
		"digest":                   {names(images("v.example/a@" + digest("a") + "=a")), "a@" + digest("a")},
		"tag and digest":           {names(images("v.example/a:1@" + digest("a") + "=a")), "a:1 a@" + digest("a")},
		"a tag that is taken":      {names(images("v.example/a:1@"+digest("a")+"=a", "v.example/a:1=b")), "a@" + digest("a") + ", a:1 a@" + digest("b")},
		"a tag that two would get": {names(images("v.example/a:1@"+digest("a")+"=a", "v.example/a:1@"+digest("b")+"=b")), "a@" + digest("a") + ", a@" + digest("b")},
	} {
		if c.got != c.want {
			t.Errorf("%s: got %s, want %s", name, c.got, c.want)
		}
	}
	var collision *CollisionError
	if err := images("v.example/a:1=a", "v.example/a:1=b").name(); !errors.As(err, &collision) {
		t.Errorf("two bundles: %v", err)
	}
}

// TestCheckLoaded: what objects name has to be at the node; what the vendor left out is told.
func TestCheckLoaded(t *testing.T) {
	l := &Loading{known: map[string]containerd.Image{"docker.io/library/site:1": {}}, images: []*loadImage{{names: []string{"v.example/app:1"}}}}
	plan := func(image string) []ReleasePlan {
		return []ReleasePlan{{Release: "shop", Namespace: "ns", docs: []byte("apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{image: \"" + image + "\"}]}\n")}}
	}
	for _, image := range []string{"site:1", "v.example/app:1"} {
		if elsewhere, err := l.CheckLoaded(plan(image)); err != nil || len(elsewhere) != 0 {
			t.Errorf("%s: %v, %v", image, elsewhere, err)
		}
	}
	var missing *NotLoadedError
	var refused *PreflightError
	if _, err := l.CheckLoaded(plan("v.example/app:2")); !errors.As(err, &refused) || !errors.As(err, &missing) || missing.Missing[0].Object != "Pod/p" {
		t.Errorf("an image that is nowhere: %v", err)
	}
}
