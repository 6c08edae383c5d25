package release

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"reflect"
	"slices"
	"sort"
	"strings"

	releaseutil "helm.sh/helm/v4/pkg/release/v1/util"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cli-runtime/pkg/resource"
	"sigs.k8s.io/yaml"
)

const (
	// maxFields bounds the fields of one object that are named, maxManagers those that are named for one of them.
	maxFields, maxManagers = 20, 8
	// maxShown bounds a value that is shown, in bytes.
	maxShown = 120
	// maxNesting bounds how deep an object is compared. The API server takes no more.
	maxNesting = 100
)

// Drift is an object that is not as a revision has it.
type Drift struct {
	// Object is "KIND/NAMESPACE/NAME".
	Object string `json:"object"`
	// Missing says that it is not there at all.
	Missing bool `json:"missing,omitempty"`
	// Fields are what differs, at most 20 of them; More counts the others.
	Fields []DriftField `json:"fields"`
	More   int          `json:"more,omitempty"`
}

// DriftField is a field that differs.
type DriftField struct {
	// Path is "spec.template.spec.containers[name=app].image".
	Path string `json:"path"`
	// Recorded and Live are what the revision says and what is there: for images, numbers and the like. Other texts are not shown, since
	// a secret may be among them: then both are empty.
	Recorded string `json:"recorded,omitempty"`
	Live     string `json:"live,omitempty"`
	// Managers are who has set the field, as the cluster remembers.
	Managers []string `json:"managers,omitempty"`
}

// drift compares an object with what a revision recorded of it; nil where they agree. The cluster is asked what applying the record
// would change (a dry run), so that its defaults, and what others have added, count for nothing. That takes the right to patch; who has
// it not gets a comparison of the recorded fields alone, which the result says.
func (x *examination) drift(ctx context.Context, info *resource.Info, recorded, live *unstructured.Unstructured) (*Drift, error) {
	wanted, err := x.dryRun(info, recorded)
	var fields []difference
	switch {
	case err == nil:
		fields = compareApplied(contentOf(wanted), contentOf(live))
	case ctx.Err() != nil || isNoAnswer(err):
		return nil, err
	default:
		why := clean(err.Error())
		if apierrors.IsForbidden(err) {
			why = "the account may not ask for it, which takes the right to patch"
		}
		x.unread["what applying the record again would change, so that only its fields were compared: "+why]++
		fields = compareRecorded(contentOf(recorded), contentOf(live))
	}
	d := &Drift{Fields: []DriftField{}}
	for _, f := range fields {
		if f.path.String() == "spec.replicas" && x.autoscaled(ctx, live) {
			continue
		}
		if len(d.Fields) == maxFields {
			d.More++
			continue
		}
		field := DriftField{Path: clean(f.path.String()), Managers: managersOf(live, f.path)}
		if live.GetKind() != "Secret" && f.path.harmless(f.wanted, f.got) {
			field.Recorded, field.Live = shownValue(f.wanted), shownValue(f.got)
		}
		d.Fields = append(d.Fields, field)
	}
	if len(d.Fields) == 0 {
		return nil, nil //nolint:nilnil // no drift, and nothing failed
	}
	return d, nil
}

// dryRun asks the cluster what the object would be, were the recorded one applied as Helm does it.
func (x *examination) dryRun(info *resource.Info, recorded *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	apply := recorded.DeepCopy()
	apply.SetNamespace(info.Namespace)
	// Helm puts these on what it applies, not into what it records.
	labels, annotations := apply.GetLabels(), apply.GetAnnotations()
	if labels == nil {
		labels = map[string]string{}
	}
	if annotations == nil {
		annotations = map[string]string{}
	}
	labels["app.kubernetes.io/managed-by"] = "Helm"
	annotations["meta.helm.sh/release-name"], annotations["meta.helm.sh/release-namespace"] = x.release, x.namespace
	apply.SetLabels(labels)
	apply.SetAnnotations(annotations)
	raw, err := json.Marshal(apply)
	if err != nil {
		return nil, fmt.Errorf("comparing %s: %w", info.Name, err)
	}
	force := true
	got, err := resource.NewHelper(info.Client, info.Mapping).DryRun(true).WithFieldManager(fieldManager).
		Patch(info.Namespace, info.Name, types.ApplyPatchType, raw, &metav1.PatchOptions{Force: &force})
	if err != nil {
		return nil, err
	}
	return asUnstructured(got)
}

// autoscaled reports whether an autoscaler decides how many replicas there are.
func (x *examination) autoscaled(ctx context.Context, u *unstructured.Unstructured) bool {
	namespace := u.GetNamespace()
	scaled, asked := x.scaled[namespace]
	if !asked {
		scaled = map[string]bool{}
		list, err := x.clientset.AutoscalingV2().HorizontalPodAutoscalers(namespace).List(ctx, metav1.ListOptions{Limit: maxListed})
		if err != nil {
			x.unreadable("the autoscalers of namespace "+namespace, err)
		} else {
			for i := range list.Items {
				ref := list.Items[i].Spec.ScaleTargetRef
				scaled[ref.Kind+"/"+ref.Name] = true
			}
		}
		x.scaled[namespace] = scaled
	}
	return scaled[u.GetKind()+"/"+u.GetName()]
}

// contentOf is what of an object is compared: not what the cluster itself says about it.
func contentOf(u *unstructured.Unstructured) map[string]any {
	o := u.DeepCopy().Object
	delete(o, "status")
	if m, ok := o["metadata"].(map[string]any); ok {
		for _, key := range []string{"managedFields", "resourceVersion", "generation", "creationTimestamp", "uid", "selfLink", "namespace"} {
			delete(m, key)
		}
	}
	if data, ok := o["stringData"].(map[string]any); ok && u.GetKind() == "Secret" {
		// The cluster keeps it as data.
		all, _ := o["data"].(map[string]any)
		if all == nil {
			all = map[string]any{}
		}
		for k, v := range data {
			if text, ok := v.(string); ok {
				all[k] = base64.StdEncoding.EncodeToString([]byte(text))
			}
		}
		o["data"] = all
		delete(o, "stringData")
	}
	return o
}

// pathStep leads from a value to one in it: to the member of a map, or to the element of a list.
type pathStep struct {
	key     string
	index   int
	element map[string]any // of a list whose elements have names; else nil
	list    bool
}

// objectPath leads to a field.
type objectPath []pathStep

func (p objectPath) String() string {
	var b strings.Builder
	for _, s := range p {
		switch {
		case s.list && s.element != nil:
			fmt.Fprintf(&b, "[name=%v]", s.element["name"])
		case s.list:
			fmt.Fprintf(&b, "[%d]", s.index)
		case strings.ContainsAny(s.key, ".[]"):
			fmt.Fprintf(&b, "[%s]", s.key)
		default:
			if b.Len() > 0 {
				b.WriteByte('.')
			}
			b.WriteString(s.key)
		}
	}
	return b.String()
}

// with is the path that goes on; it shares nothing with p.
func (p objectPath) with(s pathStep) objectPath { return append(slices.Clip(p), s) }

// harmless reports whether values at a path may be shown. A secret that a site has said may have got anywhere where a chart puts
// texts; it is none of what is named here.
func (p objectPath) harmless(values ...any) bool {
	last := ""
	within := func(key string) bool { return slices.ContainsFunc(p, func(s pathStep) bool { return s.key == key }) }
	if len(p) > 0 {
		last = p[len(p)-1].key
	}
	if within("data") || within("env") || within("args") || within("command") || within("annotations") {
		return false
	}
	texts := last == "image" || last == "imagePullPolicy" || within("resources") || within("ports") || last == "type" ||
		last == "serviceAccountName" || last == "storageClassName"
	for _, v := range values {
		switch v.(type) {
		case nil, bool, int64, float64, int:
		case string:
			if !texts {
				return false
			}
		default:
			return false
		}
	}
	return true
}

func shownValue(v any) string {
	if v == nil {
		return "nothing"
	}
	text := clean(fmt.Sprint(v))
	if len(text) > maxShown {
		text = strings.ToValidUTF8(text[:maxShown], "") + "…"
	}
	return text
}

// difference is a field in which two objects differ; nil is for nothing.
type difference struct {
	path        objectPath
	wanted, got any
}

// compareApplied compares what would be with what is.
func compareApplied(wanted, got map[string]any) []difference {
	var found []difference
	compareMaps(nil, wanted, got, false, &found)
	return found
}

// compareRecorded compares what is recorded with what is: only fields that are recorded count.
func compareRecorded(recorded, got map[string]any) []difference {
	var found []difference
	compareMaps(nil, recorded, got, true, &found)
	return found
}

func compareMaps(at objectPath, wanted, got map[string]any, recordedOnly bool, found *[]difference) {
	keys := map[string]bool{}
	for k := range wanted {
		keys[k] = true
	}
	for k := range got {
		if !recordedOnly {
			keys[k] = true
		}
	}
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		if recordedOnly && isNothing(wanted[k]) {
			continue // the cluster leaves out what is nothing
		}
		compareValues(at.with(pathStep{key: k}), wanted[k], got[k], recordedOnly, found)
	}
}

func compareValues(at objectPath, wanted, got any, recordedOnly bool, found *[]difference) {
	if len(at) > maxNesting {
		return
	}
	switch w := wanted.(type) {
	case map[string]any:
		if g, ok := got.(map[string]any); ok {
			compareMaps(at, w, g, recordedOnly, found)
			return
		}
	case []any:
		if g, ok := got.([]any); ok && compareLists(at, w, g, recordedOnly, found) {
			return
		}
	}
	if !sameValue(wanted, got) {
		*found = append(*found, difference{at, wanted, got})
	}
}

// compareLists compares element by element, by their names where all have one; false where the lists have to be compared as a whole.
func compareLists(at objectPath, wanted, got []any, recordedOnly bool, found *[]difference) bool {
	w, named := byName(wanted)
	g, too := byName(got)
	if named && too {
		names := slices.Sorted(maps.Keys(w))
		for name := range g {
			if _, ok := w[name]; !ok && !recordedOnly {
				names = append(names, name)
			}
		}
		sort.Strings(names)
		for _, name := range names {
			element := g[name]
			if element == nil {
				element = w[name]
			}
			next := at.with(pathStep{list: true, element: element})
			if w[name] == nil || g[name] == nil {
				*found = append(*found, difference{next, orNil(w[name]), orNil(g[name])})
				continue
			}
			compareMaps(next, w[name], g[name], recordedOnly, found)
		}
		return true
	}
	if len(wanted) != len(got) {
		return false
	}
	for i := range wanted {
		element, _ := got[i].(map[string]any)
		if element["name"] == nil {
			element = nil
		}
		compareValues(at.with(pathStep{list: true, index: i, element: element}), wanted[i], got[i], recordedOnly, found)
	}
	return true
}

func orNil(m map[string]any) any {
	if m == nil {
		return nil
	}
	return m
}

// byName maps the elements of a list by their names; false where not all have one of their own.
func byName(list []any) (map[string]map[string]any, bool) {
	names := map[string]map[string]any{}
	for _, e := range list {
		m, ok := e.(map[string]any)
		if !ok {
			return nil, false
		}
		name, ok := m["name"].(string)
		if !ok || names[name] != nil {
			return nil, false
		}
		names[name] = m
	}
	return names, len(list) > 0
}

func isNothing(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case map[string]any:
		return len(v) == 0
	case []any:
		return len(v) == 0
	case string:
		return v == ""
	case bool:
		return !v
	case int64:
		return v == 0
	case float64:
		return v == 0
	}
	return false
}

// sameValue reports whether two values mean the same: a quantity may be written in several ways.
func sameValue(a, b any) bool {
	if reflect.DeepEqual(a, b) {
		return true
	}
	switch a.(type) {
	case nil, map[string]any, []any, bool:
		return false
	}
	switch b.(type) {
	case nil, map[string]any, []any, bool:
		return false
	}
	x, y := fmt.Sprint(a), fmt.Sprint(b)
	if x == y {
		return true
	}
	p, err := apiresource.ParseQuantity(x)
	if err != nil {
		return false
	}
	q, err := apiresource.ParseQuantity(y)
	return err == nil && p.Cmp(q) == 0
}

// managersOf are who has set the field at a path of an object, as its managedFields say (fields v1 of server-side apply).
func managersOf(u *unstructured.Unstructured, p objectPath) []string {
	var names []string
	for _, entry := range u.GetManagedFields() {
		if entry.FieldsV1 == nil || entry.Subresource == "status" {
			continue
		}
		var fields map[string]any
		if json.Unmarshal(entry.FieldsV1.GetRawBytes(), &fields) != nil || !ownsField(fields, p) {
			continue
		}
		name := clean(entry.Manager)
		if entry.Subresource != "" {
			name += " (" + clean(entry.Subresource) + ")"
		}
		if !slices.Contains(names, name) && len(names) < maxManagers {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// ownsField reports whether a set of fields holds the one at a path, a part of it, or the whole that it is in.
func ownsField(fields map[string]any, p objectPath) bool {
	for _, s := range p {
		if len(fields) == 0 {
			return true // a leaf: all below it
		}
		next, ok := fields["f:"+s.key].(map[string]any)
		if s.list {
			next, ok = elementOf(fields, s)
		}
		if !ok {
			return false
		}
		fields = next
	}
	return true
}

// elementOf finds the element of a list in a set of fields, which names it by the values of its keys, "k:{…}".
func elementOf(fields map[string]any, s pathStep) (map[string]any, bool) {
	for name, value := range fields {
		next, ok := value.(map[string]any)
		raw, keyed := strings.CutPrefix(name, "k:")
		if !ok || !keyed || s.element == nil {
			continue
		}
		var key map[string]any
		if json.Unmarshal([]byte(raw), &key) != nil {
			continue
		}
		matches := true
		for k, v := range key {
			matches = matches && fmt.Sprint(s.element[k]) == fmt.Sprint(v)
		}
		if matches {
			return next, true
		}
	}
	return nil, false
}

// recordedDocuments are the documents of what Helm has recorded, in their order.
func recordedDocuments(recorded string) []string {
	split := releaseutil.SplitManifests(recorded)
	names := slices.Collect(maps.Keys(split))
	sort.Sort(releaseutil.BySplitManifestsOrder(names))
	docs := make([]string, 0, len(names))
	for _, name := range names {
		docs = append(docs, split[name])
	}
	return docs
}

// objectOf names the object of a document that the cluster cannot make sense of.
func documentName(doc, namespace string) string {
	var o metav1.PartialObjectMetadata
	if yaml.Unmarshal([]byte(doc), &o) != nil || o.Name == "" {
		return "an object that cannot be read"
	}
	if o.Namespace != "" {
		namespace = o.Namespace
	}
	return objectName(o.Kind, namespace, o.Name)
}

func isUnknownKind(err error) bool {
	var kind *meta.NoKindMatchError
	var res *meta.NoResourceMatchError
	return errors.As(err, &kind) || errors.As(err, &res)
}

// isNoAnswer reports whether a request got no answer.
func isNoAnswer(err error) bool {
	var u *url.Error
	var n net.Error
	var answer apierrors.APIStatus
	return !errors.As(err, &answer) && (errors.As(err, &u) || errors.As(err, &n))
}
