package chart

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Discover lists the places of rendered documents that name images, in the order of the
// documents. docs/image-discovery.md has the ways and what each finds.
//
// Certain are images by their place (see [FindImages]), known fields of custom resources, and
// complete references, with registry and with tag or digest, where a name says that there is an
// image. All else that looks like one is probable. hosts are registries, host or host:port, that
// are seen elsewhere: a text that neither place nor name call an image is a find only if it is a
// complete reference of one of these or of a well known public registry. hosts may be nil.
//
// A reference is listed once for each place. Errors are *[ManifestError].
func Discover(docs []byte, hosts map[string]bool) ([]Find, error) {
	s, err := parseStream(docs)
	if err != nil {
		return nil, err
	}
	var finds []Find
	type key struct{ object, path, reference string }
	seen := map[key]int{}
	scan := newScan(func(host string) bool { return hosts[host] || isPublicHost(host) })
	for _, doc := range s.docs {
		err := doc.images(scan, func(h hit) error {
			k := key{h.Object, h.Path, h.Reference}
			i, again := seen[k]
			switch {
			case !again:
				seen[k] = len(finds)
				finds = append(finds, h.Find)
			case finds[i].Probable && !h.Probable:
				finds[i] = h.Find
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return finds, nil
}

// hit is a find and the text that names it.
type hit struct {
	Find
	// node.Value[start:end] is the reference, and for images by their place the white space
	// around it. node is nil where the reference is not in the document's own text.
	node       *yaml.Node
	start, end int
	// parts are what WayParts is made of.
	parts *parts
}

// scan is what the walks through one stream share.
type scan struct {
	// placesOnly leaves out all but images by their place.
	placesOnly bool
	known      func(host string) bool
	// bytes and nodes are what may still be read of documents inside of texts.
	bytes, nodes int
}

const (
	// maxInner bounds a text that is read as YAML, maxInnerTotal all of a stream. What is larger
	// is read word by word.
	maxInner      = 1 << 20
	maxInnerTotal = 16 << 20
	// maxInnerNodes bounds the nodes that aliases inside of texts may add.
	maxInnerNodes = 50_000
	// maxInnerDepth bounds documents inside of texts inside of documents.
	maxInnerDepth = 3
)

func newScan(known func(host string) bool) *scan {
	return &scan{known: known, bytes: maxInnerTotal, nodes: maxInnerNodes}
}

// images calls f for every image of the document.
func (d *document) images(s *scan, f func(hit) error) error {
	return d.objectImages(s, func(_ *yaml.Node, h hit) error { return f(h) })
}

// objectImages is images with the object that holds each.
func (d *document) objectImages(s *scan, f func(*yaml.Node, hit) error) error {
	return d.objects(func(object *yaml.Node) error {
		w := newImageWalker(s, object, func(h hit) error { return f(object, h) })
		return w.walk(object, place{})
	})
}

// imageWalker is the one walker behind Discover, FindImages and RewriteImages.
type imageWalker struct {
	*scan
	object string
	group  string
	kind   string
	// custom says that the object is none of Kubernetes itself, and its fields may be anything.
	custom bool
	fields map[*yaml.Node]*knownField
	used   map[*yaml.Node]bool // scalars that are part of a find already
	depth  int                 // of documents inside of texts
	f      func(hit) error
	err    error // the first of f
}

func newImageWalker(s *scan, object *yaml.Node, f func(hit) error) *imageWalker {
	group, _, ok := strings.Cut(text(field(object, "apiVersion")), "/")
	if !ok {
		group = ""
	}
	w := &imageWalker{
		scan: s, object: objectName(object), group: group, kind: text(field(object, "kind")),
		custom: !slices.Contains(builtinGroups, group), used: map[*yaml.Node]bool{}, f: f,
	}
	if !s.placesOnly && w.custom {
		w.fields = findFields(group, w.kind, object)
	}
	return w
}

// builtinGroups are the API groups of Kubernetes itself.
var builtinGroups = []string{
	"", "apps", "batch", "autoscaling", "policy", "extensions", "admissionregistration.k8s.io", "apiextensions.k8s.io",
	"apiregistration.k8s.io", "authentication.k8s.io", "authorization.k8s.io", "certificates.k8s.io", "coordination.k8s.io",
	"discovery.k8s.io", "events.k8s.io", "flowcontrol.apiserver.k8s.io", "internal.apiserver.k8s.io", "networking.k8s.io",
	"node.k8s.io", "rbac.authorization.k8s.io", "resource.k8s.io", "scheduling.k8s.io", "storage.k8s.io", "storagemigration.k8s.io",
}

// place is where in an object a node is.
type place struct {
	path string
	// key is the name that leads here: of an item, that of its list.
	key string
	// item says that this is an item of a list called key.
	item bool
	// volume says that this is the image of an image volume.
	volume bool
	// values says that this is below values of another chart, which may not be used.
	values bool
	// data says that this is what a ConfigMap or Secret holds, encoded that it is in base64.
	data, encoded bool
	// notes says that this is below annotations.
	notes bool
	// schema says that this is below a CustomResourceDefinition, fallback below a default in it.
	schema, fallback bool
	// hub is what completes the names of images below it, as Istio has it; nil where there is none.
	hub *parts
}

// skippedKeys lead to what is never an image: names, and what compares with names.
var skippedKeys = []string{
	"apiVersion", "kind", "labels", "matchLabels", "matchExpressions", "selector", "nodeSelector", "labelSelector", "podSelector",
	"generateName", "namespace", "finalizers", "ownerReferences", "managedFields", "imagePullSecrets", "imagePullPolicy",
	"topologySpreadConstraints", "affinity", "tolerations",
	// Prose, and what policies compare images with.
	"description", "imageReferences", "skipImageReferences", "exemptImages",
}

// walk goes through a node in the order of the text.
func (w *imageWalker) walk(n *yaml.Node, p place) error {
	switch n.Kind {
	case yaml.MappingNode:
		if !w.placesOnly && !p.schema && w.custom && !p.notes {
			p.hub = hubOf(n, p.hub)
			w.assemble(n, p)
		}
		if !w.placesOnly && !p.schema && (w.custom || p.data && !p.encoded || isEnvironment(p.key) && !p.item) {
			w.siblings(n, p)
		}
		environment := !w.placesOnly && p.item && isEnvironment(p.key) && isText(field(n, "name"))
		for i := 0; i+1 < len(n.Content) && w.err == nil; i += 2 {
			key, value := n.Content[i], n.Content[i+1]
			if key.Kind == yaml.ScalarNode && isText(value) && w.byPlace(key.Value, value, p) {
				continue
			}
			at := w.child(p, key.Value)
			switch {
			case w.placesOnly:
			case slices.Contains(skippedKeys, key.Value) && !p.data && !p.notes:
				// Lists of containers may be anywhere, even here.
				if value.Kind == yaml.ScalarNode {
					continue
				}
				only := *w
				quiet := *w.scan
				quiet.placesOnly = true
				only.scan = &quiet
				if err := only.walk(value, at); err != nil {
					return err
				}
				continue
			case w.used[value] && value.Kind == yaml.ScalarNode:
				continue
			case environment && key.Value == "value" && isText(value):
				w.environment(text(field(n, "name")), value, at)
				continue
			case isEnvironment(p.key) && !p.item && isText(value):
				w.environment(key.Value, value, at)
				continue
			}
			if err := w.walk(value, at); err != nil {
				return err
			}
		}
	case yaml.SequenceNode:
		p.volume, p.item = false, !p.item
		if !w.placesOnly && !p.schema && p.item {
			w.listed(n, p)
		}
		for i, item := range n.Content {
			if w.err != nil {
				break
			}
			at := p
			at.path = joinIndex(p.path, i)
			if !p.item {
				at.key = "" // a list in a list has no name
			}
			if w.used[item] && item.Kind == yaml.ScalarNode {
				continue
			}
			if isText(item) && !w.placesOnly && isArguments(p.key) && !p.schema {
				w.argument(n.Content[:i], item, at)
				continue
			}
			if err := w.walk(item, at); err != nil {
				return err
			}
		}
	case yaml.ScalarNode:
		if !w.placesOnly && isText(n) && !w.used[n] {
			w.scalar(n, p)
		}
	default: // aliases were resolved before
	}
	return w.err
}

// child is the place of a value of a mapping.
func (w *imageWalker) child(p place, key string) place {
	at := p
	at.path, at.key, at.item = join(p.path, key), key, false
	at.volume = key == "image" && p.item && p.key == "volumes"
	at.values = p.values || w.custom && (key == "values" || key == "valuesObject" || key == "valuesContent")
	at.notes = p.notes || key == "annotations" && strings.HasSuffix(p.path, "metadata")
	at.fallback = p.fallback || p.schema && key == "default"
	if p.path == "" && w.group == "" {
		switch {
		case w.kind == "ConfigMap" && key == "data", w.kind == "Secret" && key == "stringData":
			at.data = true
		case w.kind == "ConfigMap" && key == "binaryData", w.kind == "Secret" && key == "data":
			at.data, at.encoded = true, true
		}
	}
	if p.path == "" && w.kind == "CustomResourceDefinition" && key == "spec" {
		at.schema = true
	}
	return at
}

// byPlace reports images by their place and says whether value is one.
func (w *imageWalker) byPlace(key string, value *yaml.Node, p place) bool {
	var way Way
	switch {
	case p.item && key == "image" && (p.key == "containers" || p.key == "initContainers" || p.key == "ephemeralContainers"):
		way = WayContainer
	case p.volume && key == "reference":
		way = WayVolume
	default:
		return false
	}
	reference := strings.TrimSpace(value.Value)
	switch {
	case reference == "", reference == injectedImage:
	case w.custom && (isOpen(reference) || strings.ContainsAny(reference, "*?!|<>")):
		// A template's, or what a policy compares images with.
	default:
		w.report(hit{
			Find: Find{Reference: reference, Way: way, Object: w.object, Path: join(p.path, key)},
			node: value, end: len(value.Value),
		})
	}
	return true
}

// injectedImage stands in the containers of Istio's gateways until its webhook sets the image.
const injectedImage = "auto"

// isOpen says that a text has something left for a template of later.
func isOpen(s string) bool {
	return strings.Contains(s, "{{") || strings.Contains(s, "${") || strings.Contains(s, "$(")
}

func (w *imageWalker) report(h hit) {
	if w.err == nil {
		w.err = w.f(h)
	}
}

// scalar handles a string that is no image by its place.
func (w *imageWalker) scalar(n *yaml.Node, p place) {
	rule := w.fields[n]
	switch {
	case rule != nil:
		w.whole(n, p, WayField, false)
	case p.data:
		w.data(n, p)
	case p.notes:
		w.text(n, p, WayAnnotation)
	case p.schema:
		if p.fallback {
			w.words(n, p, WayText, false)
		}
	case p.key == "name" && w.depth == 0, w.isTarget(p):
	case isArguments(p.key):
		w.words(n, p, WayArgument, false)
	case w.custom && (saysImage(p.key) || p.key == "images" || strings.HasSuffix(p.key, "Images")):
		if !w.whole(n, p, WayImageKey, true) {
			w.text(n, p, WayText)
		}
	default:
		w.text(n, p, WayText)
	}
}

// isTarget says that a field names where something is pushed to, looked for, or compared with, but
// not run.
func (w *imageWalker) isTarget(p place) bool {
	return strings.HasSuffix(p.path, "output.image") || slices.Contains(comparingGroups, w.group) ||
		w.group == "monitoring.coreos.com" && w.kind == "PrometheusRule"
}

// comparingGroups are API groups whose objects look for images, or say which may run.
var comparingGroups = []string{"image.toolkit.fluxcd.io", "constraints.gatekeeper.sh", "templates.gatekeeper.sh", "policy.sigstore.dev"}

// whole reports a string that names one image. Where its place only suggests so, what is
// incomplete is only probable, and so is all but the field "image" itself.
func (w *imageWalker) whole(n *yaml.Node, p place, way Way, suggested bool) bool {
	start, end := trimmed(n.Value)
	s := n.Value[start:end]
	ref, ok := parseImage(s)
	if suggested {
		ref, ok = plausible(s)
	}
	if !ok {
		return false
	}
	probable := suggested
	switch way {
	case WayImageKey:
		probable = p.key != "image" || p.item || p.values || !ref.complete()
	case WayEnvironment, WayArgument:
		probable = !ref.complete()
	case WayConfig:
		// A ConfigMap is often the environment of a container.
		probable = w.kind != "ConfigMap" || !ref.complete()
	default:
	}
	w.report(hit{Find{s, way, probable, w.object, p.path}, n, start, end, nil})
	return true
}

func trimmed(s string) (start, end int) {
	start = len(s) - len(strings.TrimLeft(s, " \t\r\n"))
	return start, start + len(strings.TrimSpace(s))
}

func isEnvironment(key string) bool {
	return key == "env" || key == "envVars" || key == "environment" || strings.HasSuffix(key, "Env") || strings.HasSuffix(key, "EnvVars")
}

// environment handles a variable.
func (w *imageWalker) environment(name string, value *yaml.Node, p place) {
	ref, fits := plausible(strings.TrimSpace(value.Value))
	said := saysImage(name) || strings.HasPrefix(name, "RELATED_IMAGE_") ||
		mentionsImage(name) && fits && ref.named && strings.Contains(value.Value, "/")
	if said && w.whole(value, p, WayEnvironment, true) {
		return
	}
	w.words(value, p, WayEnvironment, saysImages(name))
}

func isArguments(key string) bool {
	return key == "args" || key == "command" || key == "arguments" || strings.HasSuffix(key, "Args") || strings.HasSuffix(key, "Arguments")
}

// argument handles a string of a list of arguments, after those before it.
func (w *imageWalker) argument(before []*yaml.Node, n *yaml.Node, p place) {
	s := n.Value
	flag, value, ok := strings.Cut(s, "=")
	switch {
	case ok && isFlag(flag):
		ref, fits := plausible(value)
		said := mentionsImage(flag) || saysImage(flag)
		if said && fits && (ref.complete() || saysImage(flag)) {
			w.report(hit{Find{value, WayArgument, !ref.complete(), w.object, p.path}, n, len(flag) + 1, len(s), nil})
			return
		}
	case len(before) > 0:
		flag = text(before[len(before)-1])
		ref, fits := plausible(s)
		said := isFlag(flag) && (mentionsImage(flag) || saysImage(flag))
		if said && fits && (ref.complete() || saysImage(flag)) {
			w.report(hit{Find{s, WayArgument, !ref.complete(), w.object, p.path}, n, 0, len(s), nil})
			return
		}
	}
	w.words(n, p, WayArgument, isFlag(flag) && saysImages(flag))
}

// isFlag says that s is the name of an option, with its dashes.
func isFlag(s string) bool {
	return strings.HasPrefix(s, "-") && !strings.ContainsAny(s, "= \t\n/")
}
