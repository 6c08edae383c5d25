package manifest_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/sealift/sealift/manifest"
)

func d(c string) string { return "sha256:" + strings.Repeat(c, 64) }

// img is an image of one platform: SOURCE DIGEST-DIGIT [PLATFORM,...].
func img(text string) manifest.Image {
	f := strings.Fields(text)
	platforms := []string{"linux/amd64"}
	if len(f) > 2 {
		platforms = strings.Split(f[2], ",")
	}
	return manifest.Image{Source: f[0], Digest: d(f[1]), Platforms: platforms}
}

func imgs(texts []string) []manifest.Image {
	var all []manifest.Image
	for _, t := range texts {
		all = append(all, img(t))
	}
	return all
}

func TestCompareImages(t *testing.T) {
	pinned := "r.example/pin@" + d("1")
	for name, c := range map[string]struct {
		old, now []string
		// want has "+source", "-source", "repository words old-source new-source".
		want      []string
		unchanged int
	}{
		"nothing":   {nil, nil, nil, 0},
		"unchanged": {[]string{"r.example/a:1 1"}, []string{"r.example/a:1 1"}, nil, 1},
		"platforms in another order": {
			[]string{"r.example/a:1 1 linux/amd64,linux/arm64"}, []string{"r.example/a:1 1 linux/arm64,linux/amd64"}, nil, 1,
		},
		"added and removed": {
			[]string{"r.example/a:1 1"}, []string{"r.example/b:1 1"}, []string{"+r.example/b:1", "-r.example/a:1"}, 0,
		},
		"tag":              {[]string{"r.example:5000/a:1 1"}, []string{"r.example:5000/a:2 2"}, []string{"r.example:5000/a tag,digest r.example:5000/a:1 r.example:5000/a:2"}, 0},
		"tag of the same":  {[]string{"r.example/a:1 1"}, []string{"r.example/a:2 1"}, []string{"r.example/a tag r.example/a:1 r.example/a:2"}, 0},
		"moved tag":        {[]string{"r.example/a:1 1"}, []string{"r.example/a:1 2"}, []string{"r.example/a digest r.example/a:1 r.example/a:1"}, 0},
		"platform":         {[]string{"r.example/a:1 1"}, []string{"r.example/a:1 1 linux/amd64,linux/arm64"}, []string{"r.example/a platforms r.example/a:1 r.example/a:1"}, 0},
		"port, no tag":     {[]string{"r.example:5000/a 1"}, []string{"r.example:5000/a 2"}, []string{"r.example:5000/a digest r.example:5000/a r.example:5000/a"}, 0},
		"pinned elsewhere": {[]string{pinned + " 1"}, []string{"r.example/pin@" + d("2") + " 2"}, []string{"r.example/pin digest " + pinned + " r.example/pin@" + d("2")}, 0},
		"pinned now":       {[]string{"r.example/pin:1 1"}, []string{"r.example/pin:1@" + d("1") + " 1"}, []string{"r.example/pin pin r.example/pin:1 r.example/pin:1@" + d("1")}, 0},
		"the tag goes first": {
			[]string{"r.example/a:1 1", "r.example/a:2 2"},
			[]string{"r.example/a:2 3", "r.example/a:3 4"},
			[]string{"r.example/a digest r.example/a:2 r.example/a:2", "r.example/a tag,digest r.example/a:1 r.example/a:3"},
			0,
		},
		"several candidates, none is guessed": {
			[]string{"r.example/a:web-1 1", "r.example/a:db-1 2"},
			[]string{"r.example/a:web-2 3"},
			[]string{"+r.example/a:web-2", "-r.example/a:web-1", "-r.example/a:db-1"},
			0,
		},
		"several candidates, one by its digest": {
			[]string{"r.example/a:web-1 1", "r.example/a:db-1 2"},
			[]string{"r.example/a:web-2 3", "r.example/a:db-2 2"},
			[]string{"r.example/a tag,digest r.example/a:web-1 r.example/a:web-2", "r.example/a tag r.example/a:db-1 r.example/a:db-2"},
			0,
		},
		"two by digest in one repository": {
			[]string{"r.example/a@" + d("1") + " 1", "r.example/a@" + d("2") + " 2"},
			[]string{"r.example/a@" + d("2") + " 2", "r.example/a@" + d("3") + " 3"},
			[]string{"r.example/a digest r.example/a@" + d("1") + " r.example/a@" + d("3")},
			1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			c1 := manifest.Compare(&manifest.Manifest{Images: imgs(c.old)}, &manifest.Manifest{Images: imgs(c.now)})
			var got []string
			for _, i := range c1.Images.Added {
				got = append(got, "+"+i.Source)
			}
			for _, i := range c1.Images.Removed {
				got = append(got, "-"+i.Source)
			}
			for _, i := range c1.Images.Changed {
				got = append(got, fmt.Sprint(i.Repository, " ", strings.Join(i.Changes, ","), " ", i.Old.Source, " ", i.New.Source))
			}
			if !reflect.DeepEqual(got, c.want) || c1.Images.Unchanged != c.unchanged {
				t.Errorf("%q, %d unchanged; want %q, %d", got, c1.Images.Unchanged, c.want, c.unchanged)
			}
			if c1.Changed() != (len(c.want) > 0) {
				t.Errorf("changed is %t", c1.Changed())
			}
		})
	}
}

// TestCompareWhatTravels: the same index, of which other images travel.
func TestCompareWhatTravels(t *testing.T) {
	old, now := img("r.example/a:1 1"), img("r.example/a:1 1")
	old.Children = []manifest.Child{{Digest: d("2")}}
	old.Derived = &manifest.Descriptor{Digest: d("4")}
	now.Children = []manifest.Child{{Digest: d("2")}, {Digest: d("3")}}
	for _, derived := range []*manifest.Descriptor{nil, {Digest: d("4")}, {Digest: d("5")}} {
		now.Derived = derived
		c := manifest.Compare(&manifest.Manifest{Images: []manifest.Image{old}}, &manifest.Manifest{Images: []manifest.Image{now}})
		if len(c.Images.Changed) != 1 || !reflect.DeepEqual(c.Images.Changed[0].Changes, []string{manifest.ChangedContent}) {
			t.Errorf("%+v", c.Images)
		}
	}
	// A reason is no content.
	now = old
	now.Derived = &manifest.Descriptor{Digest: d("4")}
	now.Reasons = []manifest.Reason{{Kind: manifest.ReasonSpec}}
	if c := manifest.Compare(&manifest.Manifest{Images: []manifest.Image{old}}, &manifest.Manifest{Images: []manifest.Image{now}}); c.Changed() || c.Images.Unchanged != 1 {
		t.Errorf("%+v", c.Images)
	}
}

func TestCompareCharts(t *testing.T) {
	base := manifest.Chart{
		Name: "shop", Version: "1.0.0", AppVersion: "1", Release: "shop", Namespace: "shop",
		Manifest: manifest.Descriptor{Digest: d("1")}, Archive: manifest.Descriptor{Digest: d("2")},
		Values: []manifest.ValuesFile{{Name: "v.yaml", Digest: d("3"), Size: 1}, {Name: "w.yaml", Digest: d("4"), Size: 1}},
	}
	other := base
	other.Name, other.Release, other.Namespace = "other", "other", "other"
	with := func(change func(*manifest.Chart)) manifest.Chart {
		c := base
		change(&c)
		return c
	}
	for name, c := range map[string]struct {
		old, now []manifest.Chart
		want     string // words of the changed ones, in order; +N -M
	}{
		"unchanged":    {[]manifest.Chart{base}, []manifest.Chart{base}, "+0 -0 =1"},
		"added":        {[]manifest.Chart{base}, []manifest.Chart{base, other}, "+1 -0 =1"},
		"removed":      {[]manifest.Chart{other, base}, []manifest.Chart{base}, "+0 -1 =1"},
		"version":      {[]manifest.Chart{base}, []manifest.Chart{with(func(c *manifest.Chart) { c.Version = "2" })}, "version +0 -0 =0"},
		"app version":  {[]manifest.Chart{base}, []manifest.Chart{with(func(c *manifest.Chart) { c.AppVersion = "" })}, "appVersion +0 -0 =0"},
		"archive":      {[]manifest.Chart{base}, []manifest.Chart{with(func(c *manifest.Chart) { c.Archive.Digest, c.Manifest.Digest = d("5"), d("6") })}, "archive,manifest +0 -0 =0"},
		"release":      {[]manifest.Chart{base}, []manifest.Chart{with(func(c *manifest.Chart) { c.Release = "r" })}, "release +0 -0 =0"},
		"namespace":    {[]manifest.Chart{base, other}, []manifest.Chart{with(func(c *manifest.Chart) { c.Namespace = "n" }), other}, "namespace +0 -0 =1"},
		"values":       {[]manifest.Chart{base}, []manifest.Chart{with(func(c *manifest.Chart) { c.Values = c.Values[:1] })}, "values +0 -0 =0"},
		"values order": {[]manifest.Chart{base}, []manifest.Chart{with(func(c *manifest.Chart) { c.Values = []manifest.ValuesFile{c.Values[1], c.Values[0]} })}, "values +0 -0 =0"},
		"no values":    {[]manifest.Chart{with(func(c *manifest.Chart) { c.Values = nil })}, []manifest.Chart{with(func(c *manifest.Chart) { c.Values = []manifest.ValuesFile{} })}, "+0 -0 =1"},
		"another chart for a release": {
			[]manifest.Chart{base}, []manifest.Chart{with(func(c *manifest.Chart) { c.Name = "store" })}, "name +0 -0 =0",
		},
		"releases of one chart": {
			[]manifest.Chart{with(func(c *manifest.Chart) { c.Release = "a" }), with(func(c *manifest.Chart) { c.Release = "b" })},
			[]manifest.Chart{with(func(c *manifest.Chart) { c.Release = "b" }), with(func(c *manifest.Chart) { c.Release = "c" })},
			"release +0 -0 =1",
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := manifest.Compare(&manifest.Manifest{Charts: c.old}, &manifest.Manifest{Charts: c.now}).Charts
			var got []string
			for _, x := range r.Changed {
				got = append(got, strings.Join(x.Changes, ","))
			}
			got = append(got, fmt.Sprintf("+%d -%d =%d", len(r.Added), len(r.Removed), r.Unchanged))
			if strings.Join(got, " ") != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func TestCompareBlobsAndTitles(t *testing.T) {
	withBlobs := func(name string, platforms []string, blobs ...manifest.Blob) *manifest.Manifest {
		m := &manifest.Manifest{Name: name, Version: "1.0.0", Channel: "stable", Created: "2026-01-02T03:04:05Z", Platforms: platforms, Blobs: blobs}
		m.Entries = []manifest.Entry{{Name: manifest.EntryOCILayout, Size: 1000}, {Name: manifest.EntryIndex, Size: 1000}}
		for _, b := range blobs {
			e := manifest.Entry{Name: manifest.BlobPrefix + b.Digest[len("sha256:"):], Size: b.Size}
			if b.Encoding != manifest.EncodingStored {
				e.Name, e.Size = e.Name+".zst", b.Size/10
			}
			m.Entries = append(m.Entries, e)
		}
		return m
	}
	blob := func(c string, size int64, encoding string) manifest.Blob {
		return manifest.Blob{Digest: d(c), Size: size, Encoding: encoding}
	}
	const stored, zstd = manifest.EncodingStored, "zstd"
	old := withBlobs("shop", []string{"linux/amd64", "linux/386"}, blob("1", 10, stored), blob("2", 200, stored), blob("3", 3000, zstd))
	now := withBlobs("store", []string{"linux/arm64", "linux/amd64"}, blob("3", 3000, zstd), blob("2", 200, zstd), blob("4", 40000, zstd), blob("5", 5, stored))
	c := manifest.Compare(old, now)
	want := manifest.BlobChanges{New: manifest.Amount{Count: 2, Bytes: 40005, Stored: 4005}, Gone: manifest.Amount{Count: 1, Bytes: 10, Stored: 10}, Kept: manifest.Amount{Count: 2, Bytes: 3200, Stored: 320}}
	if c.Blobs != want {
		t.Errorf("%+v, want %+v", c.Blobs, want)
	}
	if !reflect.DeepEqual(c.Platforms, manifest.PlatformChanges{Added: []string{"linux/arm64"}, Removed: []string{"linux/386"}}) {
		t.Errorf("%+v", c.Platforms)
	}
	if c.Old.Name != "shop" || c.New.Name != "store" || !c.Changed() {
		t.Errorf("%+v", c)
	}
	// Lists are never null, for those who read the JSON.
	raw, err := json.Marshal(manifest.Compare(withBlobs("a", []string{"linux/amd64"}), withBlobs("a", []string{"linux/amd64"})))
	if err != nil || strings.Contains(string(raw), "null") {
		t.Errorf("%s, %v", raw, err)
	}
	// Comparing the other way round exchanges what is new and what is gone.
	back := manifest.Compare(now, old)
	if back.Blobs.New != want.Gone || back.Blobs.Gone != want.New {
		t.Errorf("%+v", back.Blobs)
	}
}
