package chart

import (
	"cmp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// parts are the scalars of a mapping that make a reference.
type parts struct {
	registry, repository, tag, digest *yaml.Node
}

// reference puts the parts together.
func (p *parts) reference() string {
	s := partText(p.repository)
	if registry := partText(p.registry); registry != "" {
		s = strings.TrimSuffix(registry, "/") + "/" + strings.TrimPrefix(s, "/")
	}
	if tag := partText(p.tag); tag != "" {
		if strings.HasPrefix(tag, "sha256:") {
			s += "@" + tag
		} else {
			s += ":" + tag
		}
	}
	if digest := partText(p.digest); digest != "" {
		if !strings.Contains(digest, ":") {
			digest = "sha256:" + digest
		}
		s += "@" + digest
	}
	return s
}

// digestPrefix writes a digest as the part has it: with or without its algorithm.
func (p *parts) digestPrefix(digest string) string {
	if p.digest != nil && !strings.Contains(p.digest.Value, ":") {
		return strings.TrimPrefix(digest, "sha256:")
	}
	return digest
}

// partText is the text of a scalar that is a part of a reference: tags may be numbers.
func partText(n *yaml.Node) string {
	if n == nil || isNull(n) {
		return ""
	}
	return strings.TrimSpace(text(n))
}

// part returns the first of some fields of a mapping that is a scalar and not empty.
func part(n *yaml.Node, keys ...string) *yaml.Node {
	for _, key := range keys {
		if v := field(n, key); partText(v) != "" {
			return v
		}
	}
	return nil
}

// assemble reports what a mapping has in parts.
func (w *imageWalker) assemble(n *yaml.Node, p place) {
	if w.istio(n, p) || w.dockerImage(n, p) {
		return
	}
	for i := 0; i+1 < len(n.Content) && len(w.fields) > 0; i += 2 {
		if rule := w.fields[n.Content[i+1]]; rule != nil && len(rule.tags) > 0 {
			w.completed(n, n.Content[i].Value, n.Content[i+1], rule, p)
		}
	}
	named := saysImage(p.key) && !p.item
	q := parts{registry: part(n, "registry"), tag: part(n, "tag"), digest: part(n, "digest", "sha")}
	if named && q.tag == nil && q.digest == nil {
		q.tag = part(n, "version")
	}
	path, probable := p.path, p.values || !named
	repository, image := part(n, "repository"), part(n, "image")
	switch version := part(n, "version", "tag"); {
	case repository != nil && image != nil && version != nil && !strings.Contains(image.Value, "/") && bare(image):
		// As the NVIDIA operators have it. The image cannot be set without guessing where it is cut.
		image := parts{registry: repository, repository: image, tag: version}
		w.join(&image, hit{Find: Find{Way: WayParts, Probable: w.group != "nvidia.com" || p.values, Path: p.path}})
		return
	case named && repository != nil && splitName(partText(repository), partText(part(n, "name"))):
		// As k8ssandra has it. Nothing can be set without guessing where the name is cut.
		q.repository = &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: partText(repository) + "/" + partText(part(n, "name"))}
		if q.tag != nil || q.digest != nil {
			w.used[repository], w.used[part(n, "name")] = true, true
			w.join(&q, hit{Find: Find{Way: WayParts, Probable: true, Path: path}})
		}
		return
	case p.hub != nil && repository == nil && q.registry == nil && q.digest == nil && bare(image) && !strings.Contains(image.Value, "/"):
		if _, ok := plausible(image.Value); ok {
			// The hub is that of other images, too: nothing can be set for one of them.
			q = parts{registry: p.hub.registry, repository: image, tag: p.hub.tag}
			w.join(&q, hit{Find: Find{Way: WayParts, Probable: true, Path: join(p.path, "image")}})
		}
		return
	case p.item && p.key == "images" && part(n, "newName", "newTag") != nil:
		q = parts{repository: part(n, "newName", "name"), tag: part(n, "newTag"), digest: part(n, "digest")}
		probable = w.group != "kustomize.toolkit.fluxcd.io" || p.values
	case repository != nil && (named || q.tag != nil || q.digest != nil):
		q.repository = repository
		probable = probable || q.tag == nil && q.digest == nil
	case bare(image) && !w.used[image] && (q.tag != nil || q.digest != nil):
		q.repository, path = image, join(p.path, "image")
	case named && part(n, "name") != nil && (q.tag != nil || q.digest != nil):
		q.repository = part(n, "name")
	default:
		return
	}
	w.join(&q, hit{Find: Find{Way: WayParts, Probable: probable, Path: path}, parts: &q})
}

// hubOf is what a mapping with hub and tag, and variant, says of the images below it; what it does not
// say is that of the mappings above.
func hubOf(n *yaml.Node, above *parts) *parts {
	hub, tag := part(n, "hub"), part(n, "tag")
	if above != nil {
		hub, tag = cmp.Or(hub, above.registry), cmp.Or(tag, above.tag)
	}
	if hub == nil || tag == nil {
		return above
	}
	// As Istio does: "1.24.1" and "distroless" are "1.24.1-distroless".
	if variant := partText(part(n, "variant")); variant != "" && variant != "default" && !strings.HasSuffix(partText(tag), "-"+variant) {
		tag = &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: partText(tag) + "-" + variant}
	}
	return &parts{registry: hub, tag: tag}
}

// dockerImage reports what objects of OpenShift import or build upon, as
// {kind: DockerImage, name: REF}.
func (w *imageWalker) dockerImage(n *yaml.Node, p place) bool {
	name := part(n, "name")
	if name == nil || text(field(n, "kind")) != "DockerImage" || p.key == "to" {
		return false
	}
	p.path, w.used[name] = join(p.path, "name"), true
	return w.whole(name, p, WayField, false)
}

// completed reports a known field that other fields beside it complete.
func (w *imageWalker) completed(n *yaml.Node, key string, value *yaml.Node, rule *knownField, p place) {
	if key == "baseImage" && part(n, "image") != nil {
		w.used[value] = true // image wins
		return
	}
	q := parts{repository: value, tag: part(n, rule.tags...), digest: part(n, rule.digests...)}
	if !bare(value) || q.tag == nil && q.digest == nil {
		return
	}
	if q.digest != nil {
		q.tag = nil // as the operator does
	}
	w.join(&q, hit{Find: Find{Way: WayParts, Path: join(p.path, key)}, parts: &q})
}

// join reports what parts make together, and says whether that is a reference.
func (w *imageWalker) join(q *parts, h hit) bool {
	h.Reference, h.Object = q.reference(), w.object
	if _, ok := plausible(h.Reference); !ok {
		return false
	}
	for _, part := range []*yaml.Node{q.registry, q.repository, q.tag, q.digest} {
		if part != nil {
			w.used[part] = true
		}
	}
	w.report(h)
	return true
}

// splitName says that the name of an image is in two parts: repository "k8ssandra" and name "medusa".
func splitName(repository, name string) bool {
	return name != "" && !strings.ContainsAny(name, "/:@ ") && repository != name && !strings.HasSuffix(repository, "/"+name)
}

// bare says that a scalar is a reference without tag and digest.
func bare(n *yaml.Node) bool {
	ref, ok := parseImage(partText(n))
	return ok && !ref.named
}

// istioImages are what the control plane of Istio is made of by its hub and tag.
var istioImages = []string{"pilot", "proxyv2"}

// istio reports the images of hub and tag of an IstioOperator.
func (w *imageWalker) istio(n *yaml.Node, p place) bool {
	hub, tag := part(n, "hub"), part(n, "tag")
	if w.depth > 0 || w.group != "install.istio.io" || p.path != "spec" || hub == nil || tag == nil {
		return false
	}
	for _, name := range istioImages {
		reference := partText(hub) + "/" + name + ":" + partText(tag)
		if _, ok := parseImage(reference); ok {
			w.report(hit{Find: Find{reference, WayField, false, w.object, "spec.hub"}})
		}
	}
	w.used[hub], w.used[tag] = true, true
	return true
}
