package chart

import (
	"bytes"
	"cmp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// What became of an object.
const (
	ObjectAdded   = "added"
	ObjectRemoved = "removed"
	ObjectChanged = "changed"
)

// SecretValue stands for the values of Secrets, which are never shown.
const SecretValue = "(secret)"

const (
	// maxFields bounds the changes that are shown of one object.
	maxFields = 200
	// maxShown bounds a value that is shown, and maxShownPath its path, in bytes.
	maxShown     = 160
	maxShownPath = 320
)

// ObjectChange is an object that only one of two streams has, or that differs.
type ObjectChange struct {
	// Action is ObjectAdded, ObjectRemoved or ObjectChanged.
	Action string `json:"action"`
	// Object is "KIND/NAMESPACE/NAME", or "KIND/NAME" where it is in no namespace.
	Object string `json:"object"`
	// APIVersion is the newer one where it differs.
	APIVersion string `json:"apiVersion"`
	// Fields that differ, in the order of the newer object; nil for objects that only one stream has.
	Fields []FieldChange `json:"fields,omitempty"`
	// More is how many fields differ beyond those.
	More int `json:"more,omitempty"`
}

// FieldChange is a field that differs. Old and New are cut where they are long, and empty where the
// field is not there; a text that is empty, has white space at an end, or would look like something
// else is quoted. Of the content of Secrets both are SecretValue.
type FieldChange struct {
	// Path is as that of an ImageUse; elements of a list in which all have a name of their own are
	// called by it: "spec.template.spec.containers[web].image".
	Path string `json:"path"`
	Old  string `json:"old"`
	New  string `json:"new"`
}

// CompareObjects says what changes from one stream of rendered documents to another one. Objects are
// the same where group, kind, namespace and name are; namespace is that of objects that name none. It
// is assumed for kinds that Kubernetes itself does not have, too: only a cluster could tell.
//
// What is added or differs comes in the order of now, what is removed after it in that of old. Values
// that templates draw at random, such as generated passwords and certificates, differ each time that a
// chart is rendered; nothing tells them from others.
//
// Errors are *[ManifestError].
func CompareObjects(old, now []byte, namespace string) ([]ObjectChange, error) {
	before, err := readObjects(old, namespace)
	if err != nil {
		return nil, err
	}
	after, err := readObjects(now, namespace)
	if err != nil {
		return nil, err
	}
	had := make(map[objectKey]*object, len(before))
	for _, o := range before {
		had[o.key] = o
	}
	changes := []ObjectChange{}
	for _, o := range after {
		was := had[o.key]
		if was == nil {
			changes = append(changes, o.change(ObjectAdded))
			continue
		}
		was.found = true
		c := o.change(ObjectChanged)
		w := fieldWalker{change: &c, secret: isSecret(was.tree) || isSecret(o.tree)}
		w.compare(was.tree, o.tree, "")
		if len(c.Fields) > 0 {
			changes = append(changes, c)
		}
	}
	for _, o := range before {
		if !o.found {
			changes = append(changes, o.change(ObjectRemoved))
		}
	}
	return changes, nil
}

// objectKey is by what objects of two streams belong together.
type objectKey struct {
	schema.GroupKind
	namespace, name string
	// again counts what else the stream has under the same key.
	again int
}

type object struct {
	key   objectKey
	tree  *yaml.Node
	found bool
}

func readObjects(docs []byte, namespace string) ([]*object, error) {
	s, err := parseStream(docs)
	if err != nil {
		return nil, err
	}
	var objects []*object
	seen := map[objectKey]int{}
	for _, doc := range s.docs {
		err := doc.objects(func(n *yaml.Node) error {
			o := &object{key: keyOf(n, namespace), tree: n}
			seen[o.key]++
			o.key.again = seen[o.key]
			objects = append(objects, o)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return objects, nil
}

func keyOf(n *yaml.Node, namespace string) objectKey {
	group, _, grouped := strings.Cut(text(field(n, "apiVersion")), "/")
	if !grouped {
		group = "" // "v1"
	}
	meta := field(n, "metadata")
	k := objectKey{
		GroupKind: schema.GroupKind{Group: group, Kind: text(field(n, "kind"))},
		namespace: cmp.Or(text(field(meta, "namespace")), namespace),
		name:      text(field(meta, "name")),
	}
	if k.name == "" {
		k.name = text(field(meta, "generateName"))
	}
	if builtinScopes[k.GroupKind] == scopeCluster {
		k.namespace = ""
	}
	return k
}

func (o *object) change(action string) ObjectChange {
	name := o.key.name
	if o.key.namespace != "" {
		name = o.key.namespace + "/" + name
	}
	return ObjectChange{Action: action, Object: cut(o.key.Kind+"/"+name, maxShownPath), APIVersion: cut(text(field(o.tree, "apiVersion")), maxShown)}
}

// isSecret reports whether the object is a Secret. The items of a SecretList need not say so.
func isSecret(n *yaml.Node) bool {
	kind := text(field(n, "kind"))
	return kind == "Secret" || kind == ""
}

// fieldWalker collects the fields in which two objects differ.
type fieldWalker struct {
	change *ObjectChange
	secret bool
}

// compare compares two values at path; nil is one that is not there.
func (w *fieldWalker) compare(old, now *yaml.Node, path string) {
	switch {
	case old != nil && now != nil && equal(old, now):
	case old != nil && now != nil && old.Kind == yaml.MappingNode && now.Kind == yaml.MappingNode:
		w.mappings(old, now, path)
	case old != nil && now != nil && old.Kind == yaml.SequenceNode && now.Kind == yaml.SequenceNode:
		w.lists(old, now, path)
	default:
		w.add(old, now, path)
	}
}

func (w *fieldWalker) mappings(old, now *yaml.Node, path string) {
	// The last one counts of a key that is there twice.
	before, after := lastValues(old), lastValues(now)
	for _, key := range keys(now) {
		if was, value := before[key], after[key]; value != was {
			w.compare(was, value, w.join(path, key))
		}
	}
	for _, key := range keys(old) {
		if after[key] == nil {
			w.compare(before[key], nil, w.join(path, key))
		}
	}
}

// join is as that of images, for paths that are shown only.
func (w *fieldWalker) join(path, key string) string {
	if len(path) > maxShownPath {
		return path
	}
	return join(path, cut(key, maxShownPath))
}

func lastValues(n *yaml.Node) map[string]*yaml.Node {
	values := make(map[string]*yaml.Node, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		values[keyText(n.Content[i])] = n.Content[i+1]
	}
	return values
}

// keys are the keys of a mapping in their order, each once.
func keys(n *yaml.Node) []string {
	var list []string
	seen := make(map[string]bool, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		if key := keyText(n.Content[i]); !seen[key] {
			seen[key] = true
			list = append(list, key)
		}
	}
	return list
}

// keyText is a key, which YAML lets be more than a text.
func keyText(n *yaml.Node) string {
	if n.Kind == yaml.ScalarNode {
		return n.Value
	}
	return shown(n)
}

func (w *fieldWalker) lists(old, now *yaml.Node, path string) {
	before, named := names(old)
	after, alsoNamed := names(now)
	if named && alsoNamed && sameOrder(before, after) {
		w.named(old, now, before, after, path)
		return
	}
	for i := range max(len(old.Content), len(now.Content)) {
		var was, value *yaml.Node
		if i < len(old.Content) {
			was = old.Content[i]
		}
		if i < len(now.Content) {
			value = now.Content[i]
		}
		w.compare(was, value, path+"["+strconv.Itoa(i)+"]")
	}
}

// named compares lists element by element, by their names.
func (w *fieldWalker) named(old, now *yaml.Node, before, after []string, path string) {
	at := make(map[string]*yaml.Node, len(before))
	for i, name := range before {
		at[name] = old.Content[i]
	}
	for i, name := range after {
		w.compare(at[name], now.Content[i], path+"["+cut(name, maxShown)+"]")
		delete(at, name)
	}
	for _, name := range before {
		if gone := at[name]; gone != nil {
			w.compare(gone, nil, path+"["+cut(name, maxShown)+"]")
		}
	}
}

// names are those of the elements of a list, if each has one of its own.
func names(list *yaml.Node) ([]string, bool) {
	all := make([]string, 0, len(list.Content))
	seen := make(map[string]bool, len(list.Content))
	for _, item := range list.Content {
		name := text(field(item, "name"))
		if name == "" || seen[name] {
			return nil, false
		}
		seen[name] = true
		all = append(all, name)
	}
	return all, true
}

// sameOrder reports whether the names that both lists have come in the same order in both: that of
// init containers, and of environment variables, means something.
func sameOrder(a, b []string) bool {
	common := func(list, other []string) []string {
		has := make(map[string]bool, len(other))
		for _, s := range other {
			has[s] = true
		}
		return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return !has[s] })
	}
	return slices.Equal(common(a, b), common(b, a))
}

// add notes that the value at path differs.
func (w *fieldWalker) add(old, now *yaml.Node, path string) {
	if w.secret && within(path, "data", "stringData") {
		w.addSecret(old, now, path)
		return
	}
	c := FieldChange{Path: path}
	if old != nil {
		c.Old = shown(old)
	}
	if now != nil {
		c.New = shown(now)
	}
	w.append(c)
}

// addSecret notes that something of a Secret differs, and shows no more than the names of what it holds.
func (w *fieldWalker) addSecret(old, now *yaml.Node, path string) {
	if path == "data" || path == "stringData" {
		before, after := &yaml.Node{Kind: yaml.MappingNode}, &yaml.Node{Kind: yaml.MappingNode}
		if old != nil && old.Kind == yaml.MappingNode {
			before = old
		}
		if now != nil && now.Kind == yaml.MappingNode {
			after = now
		}
		if len(before.Content)+len(after.Content) > 0 {
			w.mappings(before, after, path)
			return
		}
	}
	c := FieldChange{Path: path}
	if old != nil {
		c.Old = SecretValue
	}
	if now != nil {
		c.New = SecretValue
	}
	w.append(c)
}

// within reports whether path is that of one of the keys of an object, or of what is in it.
func within(path string, keys ...string) bool {
	return slices.ContainsFunc(keys, func(key string) bool {
		rest, ok := strings.CutPrefix(path, key)
		return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
	})
}

func (w *fieldWalker) append(c FieldChange) {
	if len(w.change.Fields) == maxFields {
		w.change.More++
		return
	}
	c.Path = cut(c.Path, maxShownPath)
	w.change.Fields = append(w.change.Fields, c)
}

// shown is a value in one line, cut where it is long.
func shown(n *yaml.Node) string {
	var b strings.Builder
	writeFlow(&b, n, 0)
	return cut(b.String(), maxShown)
}

// writeFlow writes a value as YAML has it in one line, until it is too long to be shown. Texts that
// could be taken for something else are quoted.
func writeFlow(b *strings.Builder, n *yaml.Node, depth int) {
	if b.Len() > maxShown {
		return
	}
	switch n.Kind {
	case yaml.MappingNode:
		b.WriteByte('{')
		for i := 0; i+1 < len(n.Content) && b.Len() <= maxShown; i += 2 {
			if i > 0 {
				b.WriteString(", ")
			}
			writeFlow(b, n.Content[i], depth+1)
			b.WriteString(": ")
			writeFlow(b, n.Content[i+1], depth+1)
		}
		b.WriteByte('}')
	case yaml.SequenceNode:
		b.WriteByte('[')
		for i, item := range n.Content {
			if b.Len() > maxShown {
				return
			}
			if i > 0 {
				b.WriteString(", ")
			}
			writeFlow(b, item, depth+1)
		}
		b.WriteByte(']')
	case yaml.ScalarNode:
		b.WriteString(scalarShown(n, depth > 0))
	default: // aliases were resolved before
	}
}

func scalarShown(n *yaml.Node, inside bool) string {
	if isNull(n) {
		return "null"
	}
	value := cut(n.Value, maxShown+utf8.UTFMax)
	if n.ShortTag() != "!!str" {
		return value
	}
	special := "\n\t\r"
	if inside {
		special += "{}[],:\""
	}
	// A text that YAML reads as something else where it has no quotes.
	plain := yaml.Node{Kind: yaml.ScalarNode, Value: value}
	if value == "" || strings.TrimSpace(value) != value || strings.ContainsAny(value, special) || value == SecretValue || plain.ShortTag() != "!!str" {
		return strconv.Quote(value)
	}
	return value
}

// cut shortens s to at most limit bytes and an ellipsis, at the end of a character.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	end := limit
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + "…"
}

// OnlyIn are the objects of old that now has not, compared as by [CompareObjects]. Errors are *[ManifestError].
func OnlyIn(old, now []byte, namespace string) ([]byte, error) {
	before, err := readObjects(old, namespace)
	if err != nil {
		return nil, err
	}
	after, err := readObjects(now, namespace)
	if err != nil {
		return nil, err
	}
	has := make(map[objectKey]bool, len(after))
	for _, o := range after {
		has[o.key] = true
	}
	var out bytes.Buffer
	for _, o := range before {
		if has[o.key] {
			continue
		}
		text, err := encode(o.tree)
		if err != nil {
			return nil, &ManifestError{Line: o.tree.Line, Err: err}
		}
		out.WriteString("---\n")
		out.Write(text)
	}
	return out.Bytes(), nil
}
