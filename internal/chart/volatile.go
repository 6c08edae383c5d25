package chart

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// What stands in place of values that are not the same each time that a chart is rendered, or that would tell something
// about a secret.
const (
	// RandomValue is for what templates draw at random: generated names and passwords, certificates, and the time.
	RandomValue = "(random)"
	// ChecksumValue is for annotations with the checksum of something else: of a Secret it would help to guess what that holds.
	ChecksumValue = "(checksum)"
)

// Settled is what several renderings of a chart have in common, without anything that tells about secrets.
type Settled struct {
	// Docs are the documents, with RandomValue, SecretValue or ChecksumValue for all that is left out, and Hidden for what
	// Secrets hold.
	Docs []byte
	// Digest is "sha256:…" of what Docs mean: neither the order of objects and keys counts, nor how something is written.
	Digest string
	// left are words by the objects, as "KIND/NAMESPACE/NAME", and the paths that they stand at.
	left map[string]map[string]string
}

// Left is a field whose value was left out.
type Left struct {
	Object string `json:"object"` // "KIND/NAMESPACE/NAME"
	Path   string `json:"path"`
	// Why is RandomValue, SecretValue or ChecksumValue.
	Why string `json:"why"`
}

// Settle compares docs with what the same chart gave for the same values again, and with what it gave where only secrets were
// different (nil: not known). What differs the first time is random; what differs only the second time is a secret, or
// made from one. namespace is that of objects that name none.
//
// Of a text with several lines only those are left out that differ, but for certificates and the like. Errors are *[ManifestError].
func Settle(docs, again, otherSecrets []byte, namespace string) (*Settled, error) {
	s, err := parseStream(docs)
	if err != nil {
		return nil, err
	}
	r := &settler{lines: newLineIndex(docs), left: map[string]map[string]string{}}
	if r.random, err = newCounterparts(again, namespace); err != nil {
		return nil, err
	}
	if otherSecrets != nil {
		if r.secret, err = newCounterparts(otherSecrets, namespace); err != nil {
			return nil, err
		}
	}
	mine, err := readKeys(s, namespace)
	if err != nil {
		return nil, err
	}
	r.random.pair(mine)
	if r.secret != nil {
		r.secret.pair(mine)
	}
	at := 0
	for _, doc := range s.docs {
		r.doc = doc
		err := doc.objects(func(n *yaml.Node) error {
			r.settle(mine[at], n)
			at++
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	out, err := s.text()
	if err != nil {
		return nil, err
	}
	digest, err := DigestObjects(out, namespace)
	if err != nil {
		return nil, err
	}
	return &Settled{Docs: out, Digest: digest, left: r.left}, nil
}

// Left lists the fields that were left out, in the order of objects and paths.
func (s *Settled) Left() []Left {
	list := []Left{}
	for object, fields := range s.left {
		for path, why := range fields {
			list = append(list, Left{Object: s.Name(object), Path: cut(path, maxShownPath), Why: why})
		}
	}
	slices.SortFunc(list, func(a, b Left) int { return cmp.Or(cmp.Compare(a.Object, b.Object), cmp.Compare(a.Path, b.Path)) })
	return list
}

// Name is how an object is called that is shown, "KIND/NAMESPACE/NAME": with RandomValue for a name that is drawn at random.
func (s *Settled) Name(object string) string {
	if s.left[object]["metadata.name"] != RandomValue {
		return object
	}
	return object[:strings.LastIndexByte(object, '/')+1] + RandomValue
}

// Volatile reports whether all fields that a change is about were left out: each rendering changes them.
func (s *Settled) Volatile(c *ObjectChange) bool {
	if c.Action != ObjectChanged || c.More > 0 {
		return false
	}
	for _, f := range c.Fields {
		if s.why(c, f.Path) == "" {
			return false
		}
	}
	return true
}

// secretName is what fields are called that hold secrets, wherever they are.
var secretName = regexp.MustCompile(`(?i)(passw(or)?d|passphrase|secret|token|credentials?|api[-_]?key|private[-_]?key|access[-_]?key)("?\])?(\.value)?$`)

// Hide takes out of changes what was left out of the rendering, and what is called like a secret.
func (s *Settled) Hide(changes []ObjectChange) []ObjectChange {
	out := make([]ObjectChange, 0, len(changes))
	for _, c := range changes {
		c.Fields = slices.Clone(c.Fields)
		for i := range c.Fields {
			f := &c.Fields[i]
			word := s.why(&c, f.Path)
			if word == "" && secretName.MatchString(f.Path) {
				word = SecretValue
			}
			if word == "" {
				continue
			}
			if f.Old != "" {
				f.Old = word
			}
			if f.New != "" {
				f.New = word
			}
		}
		out = append(out, c)
	}
	return out
}

// why is the word for a path of an object, or of something that is in it or around it.
func (s *Settled) why(c *ObjectChange, path string) string {
	for left, word := range s.left[c.Object] {
		if left == "" || within(path, left) || within(left, path) {
			return word
		}
	}
	return ""
}

func (k objectKey) shown() string {
	name := k.name
	if k.namespace != "" {
		name = k.namespace + "/" + name
	}
	return cut(k.Kind+"/"+name, maxShownPath)
}

// readKeys are the keys of the objects of a stream, in their order.
func readKeys(s *stream, namespace string) ([]objectKey, error) {
	var list []objectKey
	seen := map[objectKey]int{}
	for _, doc := range s.docs {
		err := doc.objects(func(n *yaml.Node) error {
			k := keyOf(n, namespace)
			seen[k]++
			k.again = seen[k]
			list = append(list, k)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return list, nil
}

// counterparts are the objects of another rendering.
type counterparts struct {
	objects []*object
	byKey   map[objectKey]*object
}

func newCounterparts(docs []byte, namespace string) (*counterparts, error) {
	objects, err := readObjects(docs, namespace)
	if err != nil {
		return nil, err
	}
	c := &counterparts{objects: objects, byKey: map[objectKey]*object{}}
	for _, o := range objects {
		c.byKey[o.key] = o
	}
	return c, nil
}

// pair finds counterparts of objects whose names are not the same: by their order among those of the same kind and namespace.
func (c *counterparts) pair(mine []objectKey) {
	class := func(k objectKey) objectKey { k.name, k.again = "", 0; return k }
	spare := map[objectKey][]*object{}
	has := map[objectKey]bool{}
	for _, k := range mine {
		has[k] = true
	}
	for _, o := range c.objects {
		if !has[o.key] {
			spare[class(o.key)] = append(spare[class(o.key)], o)
		}
	}
	for _, k := range mine {
		if c.byKey[k] != nil || len(spare[class(k)]) == 0 {
			continue
		}
		c.byKey[k] = spare[class(k)][0]
		spare[class(k)] = spare[class(k)][1:]
	}
}

func (c *counterparts) find(k objectKey) *yaml.Node {
	if c == nil || c.byKey[k] == nil {
		return nil
	}
	return c.byKey[k].tree
}

// settler walks through the objects of a stream and those of other renderings at the same time.
type settler struct {
	lines          *lineIndex
	random, secret *counterparts
	left           map[string]map[string]string

	doc *document
	key objectKey
}

func (r *settler) settle(key objectKey, n *yaml.Node) {
	r.key = key
	if key.Kind == "Secret" && key.Group == "" {
		for _, content := range []string{"data", "stringData"} {
			r.doc.hide(r.lines, field(n, content))
		}
	}
	other := r.random.find(key)
	if other == nil {
		// An object that is not always there: nothing of it can be relied on.
		r.replace(n, RandomValue, "")
		return
	}
	r.walk(n, other, r.secret.find(key), "")
}

// walk leaves out of n what random or secret, where that is known, have otherwise at the same place.
func (r *settler) walk(n, random, secret *yaml.Node, path string) {
	if r.key.Kind == "Secret" && r.key.Group == "" && within(path, "data", "stringData") {
		return // hidden
	}
	if secret != nil && equal(n, secret) {
		secret = nil // decides nothing more
	}
	if equal(n, random) && secret == nil {
		r.checksums(n, path)
		return
	}
	switch n.Kind {
	case yaml.MappingNode:
		if sameKeys(n, random) && (secret == nil || sameKeys(n, secret)) {
			had, secrets := lastValues(random), map[string]*yaml.Node{}
			if secret != nil {
				secrets = lastValues(secret)
			}
			for i := 0; i+1 < len(n.Content); i += 2 {
				key := keyText(n.Content[i])
				if !r.checksum(key, n.Content[i+1], path) {
					r.walk(n.Content[i+1], had[key], secrets[key], join(path, key))
				}
			}
			return
		}
	case yaml.SequenceNode:
		if random.Kind == n.Kind && len(random.Content) == len(n.Content) && (secret == nil || secret.Kind == n.Kind && len(secret.Content) == len(n.Content)) {
			called, named := names(n)
			for i, item := range n.Content {
				at := joinIndex(path, i)
				if named {
					at = path + "[" + cut(called[i], maxShown) + "]"
				}
				var s *yaml.Node
				if secret != nil {
					s = secret.Content[i]
				}
				r.walk(item, random.Content[i], s, at)
			}
			return
		}
	case yaml.ScalarNode:
		r.scalar(n, random, secret, path)
		return
	default: // aliases were resolved before
	}
	word := RandomValue
	if equal(n, random) {
		word = SecretValue
	}
	r.replace(n, word, path)
}

func sameKeys(a, b *yaml.Node) bool {
	if b == nil || a.Kind != yaml.MappingNode || b.Kind != yaml.MappingNode {
		return false
	}
	x, y := keys(a), keys(b)
	slices.Sort(x)
	slices.Sort(y)
	return slices.Equal(x, y)
}

// scalar leaves a value out, or the lines of it that differ.
func (r *settler) scalar(n, random, secret *yaml.Node, path string) {
	text, isRandom := splitOff(n, random, RandomValue)
	if secret != nil {
		// Judged by the value itself: a line may be both, and is then called random.
		other, _ := splitOff(n, secret, SecretValue)
		text = overlaid(text, other, n.Value)
	}
	word := SecretValue
	if isRandom {
		word = RandomValue
	}
	r.note(path, word)
	r.doc.setScalar(r.lines, n, text)
}

// splitOff is the text of n with word for what b has otherwise.
func splitOff(n, b *yaml.Node, word string) (text string, differs bool) {
	if equal(n, b) {
		return n.Value, false
	}
	mine, other := strings.Split(n.Value, "\n"), []string(nil)
	if b.Kind == yaml.ScalarNode {
		other = strings.Split(b.Value, "\n")
	}
	// The number of lines of a certificate is as random as what is in them.
	if len(mine) < 2 || len(mine) != len(other) || strings.Contains(n.Value, "-----BEGIN") {
		return word, true
	}
	for i := range mine {
		if mine[i] != other[i] {
			mine[i] = word
		}
	}
	return strings.Join(mine, "\n"), true
}

// overlaid is a with what b has otherwise than the text that both were made from.
func overlaid(a, b, from string) string {
	x, y, z := strings.Split(a, "\n"), strings.Split(b, "\n"), strings.Split(from, "\n")
	if len(x) != len(z) {
		return a
	}
	if len(y) != len(z) {
		return b
	}
	for i := range x {
		if x[i] == z[i] {
			x[i] = y[i]
		}
	}
	return strings.Join(x, "\n")
}

// checksumKey are annotations that hold checksums, checksum what these look like.
var (
	checksumKey = regexp.MustCompile(`(?i)(^|[/._-])(checksum|sha256|sha1|md5|hash)([/._-]|$)`)
	checksum    = regexp.MustCompile(`^(sha256:)?[0-9a-f]{32,128}$`)
)

// checksums leaves the annotations out that hold checksums, anywhere in n.
func (r *settler) checksums(n *yaml.Node, path string) {
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := keyText(n.Content[i]), n.Content[i+1]
			if !r.checksum(key, value, path) {
				r.checksums(value, join(path, key))
			}
		}
	case yaml.SequenceNode:
		called, named := names(n)
		for i, item := range n.Content {
			at := joinIndex(path, i)
			if named {
				at = path + "[" + cut(called[i], maxShown) + "]"
			}
			r.checksums(item, at)
		}
	default:
	}
}

// checksum leaves out value, which is under key of what is at path, if it is an annotation with a checksum.
func (r *settler) checksum(key string, value *yaml.Node, path string) bool {
	if !strings.HasSuffix(path, "metadata.annotations") || value.Kind != yaml.ScalarNode || !checksumKey.MatchString(key) || !checksum.MatchString(value.Value) {
		return false
	}
	r.note(join(path, key), ChecksumValue)
	r.doc.setScalar(r.lines, value, ChecksumValue)
	return true
}

func (r *settler) note(path, word string) {
	object := r.key.shown()
	if r.left[object] == nil {
		r.left[object] = map[string]string{}
	}
	r.left[object][path] = word
}

// replace leaves all of n out. Of an object kind, namespace and name stay where they are certain.
func (r *settler) replace(n *yaml.Node, word, path string) {
	r.note(path, word)
	if path != "" {
		*n = *str(word)
		r.doc.changed, r.doc.reencode = true, true
		return
	}
	kept := []*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if key := n.Content[i].Value; key == "apiVersion" || key == "kind" {
			kept = append(kept, n.Content[i], n.Content[i+1])
		}
	}
	kept = append(kept, str("content"), str(word))
	n.Content = kept
	r.doc.changed, r.doc.reencode = true, true
}

// DigestObjects is "sha256:…" of what rendered documents mean: the order of objects and of keys does not count, nor how
// something is written. namespace is that of objects that name none. It is over all that is in the documents: what is to
// be printed must hold no secrets (see [Settle]). Errors are *[ManifestError].
func DigestObjects(docs []byte, namespace string) (string, error) {
	objects, err := readObjects(docs, namespace)
	if err != nil {
		return "", err
	}
	// Names that are random are alike; what is in them decides then.
	texts := make([]string, 0, len(objects))
	for _, o := range objects {
		var b strings.Builder
		fmt.Fprintf(&b, "%q %q %q\n", o.key.Group, o.key.Kind, o.key.namespace)
		writeCanonical(&b, o.tree)
		texts = append(texts, b.String())
	}
	slices.Sort(texts)
	h := sha256.New()
	for _, t := range texts {
		_, _ = fmt.Fprintf(h, "%d\n", len(t)) // never fails, as below
		_, _ = io.WriteString(h, t)           // never fails
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}

// writeCanonical writes what a value means, the same for all ways to write it.
func writeCanonical(b *strings.Builder, n *yaml.Node) {
	switch n.Kind {
	case yaml.MappingNode:
		values, list := lastValues(n), keys(n)
		slices.Sort(list)
		b.WriteByte('{')
		for _, key := range list {
			writeText(b, key)
			b.WriteByte(':')
			writeCanonical(b, values[key])
			b.WriteByte(',')
		}
		b.WriteByte('}')
	case yaml.SequenceNode:
		b.WriteByte('[')
		for _, item := range n.Content {
			writeCanonical(b, item)
			b.WriteByte(',')
		}
		b.WriteByte(']')
	case yaml.ScalarNode:
		switch {
		case isNull(n):
			b.WriteString("null")
		case n.ShortTag() == "!!str":
			writeText(b, n.Value)
		default:
			b.WriteString(n.ShortTag())
			writeText(b, n.Value)
		}
	default: // aliases were resolved before
	}
}

func writeText(b *strings.Builder, s string) {
	text, err := json.Marshal(s)
	if err != nil {
		text = []byte(fmt.Sprintf("%q", s)) // cannot happen: strings always marshal
	}
	b.Write(text)
}
