package chart

import (
	"strings"

	"go.yaml.in/yaml/v3"
)

// sibling is a setting that may be a part of a reference, apart from the other parts.
type sibling struct {
	name  string
	value *yaml.Node
	// owner is the scalar that the value is in; that of an argument has its option, too.
	owner *yaml.Node
	path  string
}

// siblings reports images whose parts are settings of their own in a mapping: imageRepository and
// imageTag, agentImage and agentVersion.
func (w *imageWalker) siblings(n *yaml.Node, p place) {
	var all []sibling
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind == yaml.ScalarNode && value.Kind == yaml.ScalarNode && !w.used[value] && !isNull(value) {
			all = append(all, sibling{key.Value, value, value, join(p.path, key.Value)})
		}
	}
	way := WayParts
	if p.data {
		way = WayConfig
	}
	w.together(all, way)
}

// listed does the same for the variables, or the arguments, of a container, and for parameters with
// name and value.
func (w *imageWalker) listed(n *yaml.Node, p place) {
	environment := isEnvironment(p.key) || p.key == "parameters"
	if !environment && !isArguments(p.key) {
		return
	}
	var all []sibling
	for i, item := range n.Content {
		at := joinIndex(p.path, i)
		if environment {
			if name, value := field(item, "name"), field(item, "value"); isText(name) && value != nil && value.Kind == yaml.ScalarNode && !isNull(value) {
				all = append(all, sibling{name.Value, value, value, join(at, "value")})
			}
			continue
		}
		if flag, s, ok := strings.Cut(text(item), "="); ok && isFlag(flag) && isText(item) {
			value := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}
			all = append(all, sibling{flag, value, item, at})
		}
	}
	w.together(all, WayParts)
}

// The endings of names, in small letters and without separators, of what is a name of an image, and
// of what completes it.
var (
	repositoryEndings = []string{"imagerepository", "imagerepo", "imagename", "image", "repository"}
	tagNames          = []string{"imagetag", "imageversion", "tag", "version"}
)

// together reports the images that settings make together. Which of them do is told by their names
// only, so they are probable.
func (w *imageWalker) together(all []sibling, way Way) {
	if len(all) < 2 {
		return
	}
	named := make(map[string]*sibling, len(all))
	names := make([]string, len(all))
	for i := range all {
		names[i] = plainName(all[i].name)
		if named[names[i]] == nil {
			named[names[i]] = &all[i]
		}
	}
	first := func(stem string, endings ...string) *sibling {
		for _, ending := range endings {
			if s := named[stem+ending]; s != nil && partText(s.value) != "" {
				return s
			}
		}
		return nil
	}
	for i := range all {
		stem, ending := cutEnding(names[i], repositoryEndings)
		if ending == "" || stem == "" && !strings.HasPrefix(ending, "imager") {
			continue // a mapping that is an image itself
		}
		if !bare(all[i].value) || w.used[all[i].owner] {
			continue
		}
		tag := first(stem, tagNames...)
		if ending == "repository" {
			tag = first(stem, "tag")
		} else if tag == nil && names[i] == "controllerimage" {
			tag = first("linkerd", "version")
		}
		digest := first(stem, "imagedigest", "digest")
		q := parts{repository: all[i].value}
		used := []*sibling{&all[i]}
		set := func(s *sibling, n **yaml.Node) {
			if s != nil && !w.used[s.owner] {
				*n, used = s.value, append(used, s)
			}
		}
		set(tag, &q.tag)
		set(digest, &q.digest)
		if q.tag == nil && q.digest == nil {
			continue
		}
		if ref, ok := parseImage(partText(q.repository)); ok && ref.host == "" {
			set(first(stem, "imageregistry", "registry"), &q.registry)
		}
		h := hit{Find: Find{Way: way, Probable: true, Path: all[i].path}, parts: &q}
		for _, s := range used {
			if s.value != s.owner {
				h.parts = nil // the parts are no scalars of the document
			}
		}
		if w.join(&q, h) {
			for _, s := range used {
				w.used[s.owner] = true
			}
		}
	}
}

// plainName is a name in small letters, without what separates its words.
func plainName(s string) string {
	return strings.ToLower(strings.Map(func(r rune) rune {
		if r == '-' || r == '_' || r == '.' || r == ' ' {
			return -1
		}
		return r
	}, s))
}

func cutEnding(name string, endings []string) (stem, ending string) {
	for _, ending := range endings {
		if stem, ok := strings.CutSuffix(name, ending); ok {
			return stem, ending
		}
	}
	return name, ""
}
