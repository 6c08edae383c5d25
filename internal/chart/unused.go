package chart

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	chartv2 "helm.sh/helm/v4/pkg/chart/v2"
)

// UnusedImages lists the images that the values of the chart name and that nothing uses: possibly
// ones that are missing. The values are the chart's own, overlaid with the given ones, and those of
// all sub-charts by their alias, disabled ones too. An image in values is
//
//   - a mapping with repository (and registry), and with tag or digest, or under a key that ends in
//     "image";
//   - a mapping with image and tag or digest; under a key that ends in "image", with name and tag
//     or digest;
//   - a string under a key that ends in "image".
//
// An empty tag is the appVersion of the chart whose values these are. used says whether a rendered
// object, or whoever else, uses a reference, in whatever spelling; it is asked for every reference
// that a template may make of the parts: with the registry, with that of global.imageRegistry and
// the like, with one that is said further up, with "v" before the appVersion.
//
// The list is in the order of the paths. An error is a *[LoadError].
func (c *Chart) UnusedImages(values map[string]any, used func(reference string) bool) ([]Unused, error) {
	ch, err := c.HelmChart()
	if err != nil {
		return nil, err
	}
	values = overlay(ch.Values, values, 0)
	u := unusedImages{used: used}
	u.tags, _ = values["tags"].(map[string]any)
	u.chart(ch, values, nil, nil)
	slices.SortStableFunc(u.list, func(a, b Unused) int { return strings.Compare(a.Path, b.Path) })
	return u.list, nil
}

// maxUnused bounds the list.
const maxUnused = 10_000

type unusedImages struct {
	used func(string) bool
	tags map[string]any // of the root's values: what they say of the tags of Chart.yaml
	list []Unused
}

// valuesLevel is a mapping on the way to an image, with its place in the values of the root.
type valuesLevel struct {
	values map[string]any
	path   []string
}

// unusedChart is the chart whose values are looked at.
type unusedChart struct {
	appVersion string
	global     map[string]any
	// off are the conditions that keep the chart out, nearest first.
	off []string
}

func (u *unusedImages) chart(ch *chartv2.Chart, values map[string]any, path, off []string) {
	global, _ := values["global"].(map[string]any)
	c := unusedChart{appVersion: ch.AppVersion(), global: global, off: off}
	subs := map[string]*chartv2.Chart{}
	dependencies := map[string]*chartv2.Dependency{}
	var wanted []*chartv2.Dependency
	if ch.Metadata != nil {
		wanted = ch.Metadata.Dependencies
	}
	for _, sub := range ch.Dependencies() {
		listed := false
		for _, d := range wanted {
			if d == nil || d.Name != sub.Name() {
				continue
			}
			listed = true
			key := d.Name
			if d.Alias != "" {
				key = d.Alias
			}
			if subs[key] == nil {
				subs[key], dependencies[key] = sub, d
			}
		}
		if !listed {
			subs[sub.Name()] = sub
		}
	}
	u.mapping(c, values, []valuesLevel{{values, path}}, func(key string) bool { return subs[key] != nil || key == "global" })
	for _, key := range slices.Sorted(maps.Keys(subs)) {
		given, _ := values[key].(map[string]any)
		subValues := overlay(subs[key].Values, given, 0)
		if len(global) > 0 {
			own, _ := subValues["global"].(map[string]any)
			subValues["global"] = overlay(own, global, 0)
		}
		u.chart(subs[key], subValues, append(slices.Clip(path), key), append(u.conditions(dependencies[key], values, path), off...))
	}
}

// conditions are the paths of the condition and the tags of a dependency that are not on.
func (u *unusedImages) conditions(d *chartv2.Dependency, values map[string]any, path []string) []string {
	if d == nil {
		return nil
	}
	var off []string
	for one := range strings.SplitSeq(d.Condition, ",") {
		keys := strings.Split(strings.TrimSpace(one), ".")
		if keys[0] == "" {
			continue
		}
		var v any = values
		for _, key := range keys {
			m, _ := v.(map[string]any)
			v = m[key]
		}
		if on, ok := v.(bool); ok && on {
			return nil // the first that is there decides
		}
		off = append(off, valuesPath(append(slices.Clip(path), keys...)))
	}
	for _, tag := range d.Tags {
		if u.tags[tag] == false {
			off = append(off, valuesPath([]string{"tags", tag}))
		}
	}
	return off
}

// mapping looks at a mapping and all below it, but for the keys of other charts.
func (u *unusedImages) mapping(c unusedChart, m map[string]any, levels []valuesLevel, other func(string) bool) {
	if len(levels) > maxDepth || len(u.list) >= maxUnused {
		return
	}
	path := levels[len(levels)-1].path
	key := ""
	if len(path) > 0 && len(levels) > 1 {
		key = path[len(path)-1]
	}
	image, isImage := valuesImage(m, saysImage(key))
	if isImage {
		u.image(c, image, levels)
	}
	for _, key := range slices.Sorted(maps.Keys(m)) {
		if _, part := m[key].(string); other != nil && other(key) || isImage && part {
			continue
		}
		at := append(slices.Clip(path), key)
		u.value(c, m[key], key, append(slices.Clip(levels), valuesLevel{nil, at}))
	}
}

func (u *unusedImages) value(c unusedChart, v any, key string, levels []valuesLevel) {
	last := len(levels) - 1
	switch v := v.(type) {
	case map[string]any:
		levels[last].values = v
		u.mapping(c, v, levels, nil)
	case []any:
		if len(levels) > maxDepth {
			return
		}
		for i, item := range v {
			at := slices.Clone(levels[last].path)
			at[len(at)-1] += "[" + strconv.Itoa(i) + "]"
			u.value(c, item, "", append(slices.Clip(levels), valuesLevel{nil, at}))
		}
	case string:
		if ref, ok := plausible(strings.TrimSpace(v)); saysImage(key) && ok && (ref.named || ref.host != "" || strings.Contains(v, "/")) {
			u.image(c, valueParts{repository: strings.TrimSpace(v), whole: true}, levels)
		}
	}
}

// valueParts are parts of a reference in values.
type valueParts struct {
	registry, repository, tag, digest string
	name                              string // after the repository, perhaps
	whole                             bool   // repository is all
	key                               string // of the repository, where that says more than the mapping
}

// valuesImage reads a mapping that holds an image.
func valuesImage(m map[string]any, named bool) (valueParts, bool) {
	_, hasTag := m["tag"]
	_, hasDigest := m["digest"]
	p := valueParts{
		registry: cmp.Or(valueText(m["registry"]), valueText(m["defaultRegistry"])), tag: valueText(m["tag"]),
		digest: cmp.Or(valueText(m["digest"]), valueText(m["sha"])),
	}
	if !hasTag && named {
		p.tag = valueText(m["version"])
		hasTag = p.tag != ""
	}
	switch repository, image, name := valueText(m["repository"]), valueText(m["image"]), valueText(m["name"]); {
	case repository != "" && (named || hasTag || hasDigest):
		p.repository = repository
		if named && splitName(repository, name) {
			p.name = name
		}
	case image != "" && (hasTag || hasDigest):
		p.repository, p.key = image, "image"
	case name != "" && named && (hasTag || hasDigest):
		p.repository = name
	default:
		return p, false
	}
	ref, ok := plausible(p.repository)
	if slices.Contains(codeHosts, ref.host) || !named && (m["branch"] != nil || m["revision"] != nil || m["url"] != nil) {
		return p, false // of sources
	}
	if ok && ref.named {
		p.whole = true
	}
	return p, ok
}

// codeHosts have repositories that are none of images.
var codeHosts = []string{"github.com", "gitlab.com", "bitbucket.org", "dev.azure.com", "codeberg.org"}

// valueText is a string or number of values, as templates write it.
func valueText(v any) string {
	switch v := v.(type) {
	case string:
		return strings.TrimSpace(v)
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	case int, int64, uint64:
		return fmt.Sprint(v)
	default:
		return ""
	}
}

// image reports an image that is not used.
func (u *unusedImages) image(c unusedChart, p valueParts, levels []valuesLevel) {
	spellings := p.references(registriesAbove(c, levels), c.appVersion)
	if len(spellings) == 0 || len(u.list) >= maxUnused || slices.ContainsFunc(spellings, u.used) {
		return
	}
	path := slices.Clip(levels[len(levels)-1].path)
	switch {
	case p.key != "":
		path = append(path, p.key)
	case len(path) == 0:
		path = append(path, "repository")
	}
	u.list = append(u.list, Unused{
		Reference: spellings[0],
		Path:      valuesPath(path),
		Switch:    switches(levels, c.off),
	})
}

// aboveRegistries are registries that hold for images elsewhere in the values.
type aboveRegistries struct {
	// global replaces the registry of an image, others are for those that have none.
	global string
	others []string
}

// registriesAbove are those of the globals and of the mappings on the way to an image, nearest first.
func registriesAbove(c unusedChart, levels []valuesLevel) aboveRegistries {
	above := aboveRegistries{global: valueText(c.global["imageRegistry"])}
	look := func(m map[string]any) {
		image, _ := m["image"].(map[string]any)
		for _, v := range []any{m["imageRegistry"], m["registry"], m["defaultRegistry"], image["registry"], image["defaultRegistry"], m["hub"]} {
			if s := valueText(v); s != "" && !slices.Contains(above.others, s) {
				above.others = append(above.others, s)
			}
		}
	}
	for _, level := range slices.Backward(levels) {
		look(level.values)
	}
	look(c.global)
	return above
}

// references are what templates may make of the parts, the most usual one first.
func (p valueParts) references(above aboveRegistries, appVersion string) []string {
	if p.whole {
		return []string{p.repository}
	}
	var registries []string
	if above.global != "" {
		registries = append(registries, above.global)
	}
	if ref, _ := parseImage(p.repository); p.registry == "" && ref.host == "" {
		registries = append(registries, above.others...)
	} else if p.registry != "" {
		registries = append(registries, p.registry)
	}
	registries = append(registries, "")
	tags := []string{p.tag}
	if p.tag == "" && appVersion != "" {
		tags = []string{appVersion, "v" + appVersion}
	}
	var names []string
	for _, registry := range registries {
		name := p.repository
		if registry != "" {
			name = strings.TrimSuffix(registry, "/") + "/" + name
		}
		if p.name != "" {
			names = append(names, name+"/"+p.name)
		}
		names = append(names, name)
	}
	var all []string
	for _, name := range names {
		for _, tag := range tags {
			reference := name
			if tag != "" {
				reference += ":" + tag
			}
			if p.digest != "" {
				digest := "@sha256:" + strings.TrimPrefix(p.digest, "sha256:")
				all = appendImage(all, reference+digest)
				all = appendImage(all, name+digest)
				continue
			}
			all = appendImage(all, reference)
		}
	}
	return all
}

// appendImage appends what is a reference and not there yet.
func appendImage(all []string, reference string) []string {
	if _, ok := parseImage(reference); !ok || slices.Contains(all, reference) {
		return all
	}
	return append(all, reference)
}

// switchNames are values that turn something on.
var switchNames = []string{"enabled", "enable", "create", "install", "deploy", "active"}

// switches are the paths of what is off on the way to an image, nearest first, and then what keeps
// its chart out.
func switches(levels []valuesLevel, off []string) []string {
	var all []string
	add := func(path []string, keys ...string) {
		if at := valuesPath(append(slices.Clip(path), keys...)); !slices.Contains(all, at) {
			all = append(all, at)
		}
	}
	for i := len(levels) - 1; i >= 0; i-- {
		level := levels[i]
		for _, name := range switchNames {
			if level.values[name] == false {
				add(level.path, name)
			}
		}
		if i+1 >= len(levels) {
			continue
		}
		// metricsImage beside metricsEnabled, beside metrics with its own switch, or beside a list.
		child := levels[i+1].path
		stem := strings.TrimRight(trimImage(child[len(child)-1]), "-_.")
		if stem == "" {
			continue
		}
		for _, key := range slices.Sorted(maps.Keys(level.values)) {
			switch v := level.values[key].(type) {
			case bool:
				if !v && strings.HasPrefix(key, stem) && slices.Contains(switchNames, strings.ToLower(strings.TrimLeft(key[len(stem):], "-_"))) {
					add(level.path, key)
				}
			case map[string]any:
				for _, name := range switchNames {
					if key == stem && v[name] == false {
						add(level.path, key, name)
					}
				}
			case []any:
				if len(v) == 0 && (key == stem || key == stem+"s") {
					add(level.path, key)
				}
			}
		}
	}
	for _, path := range off {
		if !slices.Contains(all, path) {
			all = append(all, path)
		}
	}
	return all
}

// trimImage is the name of an image without the word image; empty where it is nothing else.
func trimImage(key string) string {
	if len(key) < len("image") || !strings.EqualFold(key[len(key)-len("image"):], "image") {
		return ""
	}
	return key[:len(key)-len("image")]
}

// valuesPath writes a path of values as people write it after --set.
func valuesPath(keys []string) string {
	escaped := make([]string, len(keys))
	for i, key := range keys {
		escaped[i] = strings.ReplaceAll(key, ".", `\.`)
	}
	return strings.Join(escaped, ".")
}

// overlay lays values over others as Helm does: mappings merge, null takes away, anything else
// replaces. Neither is changed.
func overlay(under, over map[string]any, depth int) map[string]any {
	out := make(map[string]any, len(under)+len(over))
	maps.Copy(out, under)
	for key, v := range over {
		below, ok := out[key].(map[string]any)
		above, isMap := v.(map[string]any)
		switch {
		case v == nil:
			delete(out, key)
		case ok && isMap && depth < maxDepth:
			out[key] = overlay(below, above, depth+1)
		default:
			out[key] = v
		}
	}
	return out
}
