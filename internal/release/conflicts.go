package release

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/sealift/sealift/internal/chart"
)

const (
	// maxAnswer bounds what is read of an answer that is one object: etcd takes 1.5 MiB of it, JSON may be larger.
	maxAnswer = 16 << 20
	// maxWarnings bounds the warnings that are kept of one object.
	maxWarnings = 5
	// maxValue bounds a value that is shown, in bytes.
	maxValue = 80
)

// Trial is what the API server says of an object that would be applied to it.
type Trial struct {
	Object *Object
	// Skipped says why it was not tried; empty where it was.
	Skipped string
	// Conflicts are fields that somebody else owns.
	Conflicts []Conflict
	// Scaled says that the number of replicas is an autoscaler's, which is why it was left out: its name.
	Scaled string
	// Owner is who has an object that is not the release's, in words: another release, or the manager that made it; empty for none.
	Owner string
	// Refused is why the object would be refused, in the words of the API server; empty where it would not.
	Refused string
	// Warnings are what the API server said besides.
	Warnings []string
	// Err is why it is not known.
	Err error
}

// Conflict is a field that somebody else owns (Kubernetes, "Server-Side Apply", conflicts).
type Conflict struct {
	// Field is a path, ".spec.template.spec.containers[name=\"web\"].image".
	Field string
	// Manager is who owns it, as it calls itself.
	Manager string
	// Live is the value that is there, New that which the install would set: as JSON, cut where they are long, empty where there is
	// none. Of Secrets both say nothing.
	Live, New string
}

// TryOptions say how objects are tried.
type TryOptions struct {
	// Tests says that objects of tests are tried too.
	Tests bool
	// Lacking are the rights that the account has not got: what they are needed for is not tried.
	Lacking []Right
}

// Try has the API server apply all objects without keeping them, as Helm would do, with all its admission: nothing is changed and no
// hook is run. Objects whose kind or namespace is not there yet are not tried.
func (i *Inspection) Try(ctx context.Context, o TryOptions) []Trial {
	scalers := i.scalers(ctx)
	var trials []Trial
	for _, object := range i.Objects {
		if object.Role == RoleTest && !o.Tests {
			continue
		}
		trials = append(trials, Trial{Object: object, Skipped: i.untried(object, o.Lacking), Scaled: scalers[object.key()]})
	}
	before := i.before()
	var g errgroup.Group
	g.SetLimit(asking)
	for n := range trials {
		if t := &trials[n]; t.Skipped == "" {
			g.Go(func() error {
				i.try(ctx, t, before)
				return nil
			})
		}
	}
	_ = g.Wait() // none of them fails
	return trials
}

// untried is why an object cannot be tried.
func (i *Inspection) untried(o *Object, lacking []Right) string {
	switch {
	case !o.Served:
		return "its kind is not there yet"
	case !i.has(o):
		return "its namespace is not there yet"
	case o.Name == "":
		return "it gets its name from the cluster"
	case slices.ContainsFunc(lacking, func(r Right) bool {
		return r.Group == o.Kind.Group && r.Resource == o.resource && r.Namespace == o.Namespace && slices.Contains([]string{"get", "create", "patch"}, r.Verb)
	}):
		return "this account lacks a right"
	}
	return ""
}

// objectKey is by what objects are the same.
type objectKey struct {
	schema.GroupKind
	namespace, name string
}

func (o *Object) key() objectKey { return objectKey{o.Kind.GroupKind(), o.Namespace, o.Name} }

// before lists what the releases have now, by what their last revisions say, by release.
func (i *Inspection) before() map[string]map[objectKey]bool {
	had := map[string]map[objectKey]bool{}
	for _, o := range i.Objects {
		in := o.intended
		if _, done := had[o.Release]; done || !in.Upgrade {
			continue
		}
		keys := map[objectKey]bool{}
		had[o.Release] = keys
		s, err := i.cluster.open(i.session.kube.ctx, in.Namespace)
		if err != nil {
			continue
		}
		h, err := s.history(in.Release)
		if err != nil || h.last() == nil {
			continue // what is not known to be the release's has to say so itself
		}
		for _, r := range h {
			if r.Version != h.last().Version && (h.back() == nil || r.Version != h.back().Revision) {
				continue
			}
			objects, err := chart.ClientObjects([]byte(r.Manifest))
			if err != nil {
				continue
			}
			for _, u := range objects {
				k := objectKey{u.GroupVersionKind().GroupKind(), u.GetNamespace(), u.GetName()}
				keys[k] = true
				if k.namespace == "" {
					k.namespace = in.Namespace
					keys[k] = true
				}
			}
		}
	}
	return had
}

// path is the address of an object.
func (o *Object) path(name string) string {
	p := "/apis/" + o.Kind.Group + "/" + o.Kind.Version
	if o.Kind.Group == "" {
		p = "/api/" + o.Kind.Version
	}
	if o.Namespace != "" {
		p += "/namespaces/" + url.PathEscape(o.Namespace)
	}
	p += "/" + o.resource
	if name != "" {
		p += "/" + url.PathEscape(name)
	}
	return p
}

// read reads the answer to a request, bounded.
func readAnswer(ctx context.Context, r *rest.Request) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, inspectTimeout)
	defer cancel()
	body, err := r.Stream(ctx)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	raw, err := io.ReadAll(io.LimitReader(body, maxAnswer+1))
	if err == nil && len(raw) > maxAnswer {
		err = fmt.Errorf("the answer has more than %d bytes", maxAnswer)
	}
	return raw, err
}

// live reads an object; nil where it is not there.
func (i *Inspection) live(ctx context.Context, o *Object) (*unstructured.Unstructured, error) {
	raw, err := readAnswer(ctx, i.session.clientset.Discovery().RESTClient().Get().AbsPath(o.path(o.Name)))
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	u := &unstructured.Unstructured{}
	return u, json.Unmarshal(raw, &u.Object)
}

// try tries one object.
func (i *Inspection) try(ctx context.Context, t *Trial, before map[string]map[objectKey]bool) {
	o := t.Object
	live, err := i.live(ctx, o)
	if err != nil {
		t.Err = err
		return
	}
	tree := o.tree.DeepCopy()
	name := o.Name
	switch {
	case o.Role == RoleObject:
		if live != nil {
			t.Owner = o.foreign(live, before[o.Release][o.key()])
		}
		o.own(tree)
	case live != nil && (o.Role == RoleHook || o.Role == RoleTest || o.Role == RoleJob):
		// The one of the last time is deleted first. One with another name stands for the new one.
		live, name = nil, o.otherName()
		tree.SetName(name)
	}
	if t.Scaled != "" {
		unstructured.RemoveNestedField(tree.Object, "spec", "replicas")
	}
	raw, err := json.Marshal(tree.Object)
	if err != nil {
		t.Err = err
		return
	}
	manager, force := fieldManager, "false"
	if o.Role == RoleDefinition {
		manager, force = userAgent, "true" // as ApplyCRDs does
	}
	heard := &hearing{}
	request := i.session.clientset.Discovery().RESTClient().Patch(types.ApplyPatchType).AbsPath(o.path(name)).
		Param("dryRun", "All").Param("fieldManager", manager).Param("force", force).Param("fieldValidation", "Strict").
		WarningHandlerWithContext(heard).Body(bytes.NewReader(raw))
	_, err = readAnswer(ctx, request)
	t.Warnings = heard.texts
	switch {
	case err == nil:
	case apierrors.IsConflict(err) && apierrors.HasStatusCause(err, metav1.CauseTypeFieldManagerConflict):
		t.Conflicts = conflicts(err, live, tree)
		slices.SortFunc(t.Conflicts, func(a, b Conflict) int { return strings.Compare(a.Field, b.Field) })
	case isRefusal(err):
		t.Refused = o.refusal(err)
	default:
		t.Err = err
	}
}

// isRefusal reports whether the API server has looked at an object and does not want it.
func isRefusal(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return false
	}
	code := status.Status().Code
	return code >= http.StatusBadRequest && code < http.StatusInternalServerError && code != http.StatusTooManyRequests && code != http.StatusUnauthorized ||
		// So are objects called that do not fit the schema of their kind.
		code == http.StatusInternalServerError && status.Status().Reason != metav1.StatusReasonInternalError
}

// refusal is why an object is refused. Texts about a Secret may repeat what is in it.
func (o *Object) refusal(err error) string {
	var status apierrors.APIStatus
	if o.Kind.Group != "" || o.Kind.Kind != "Secret" || !errors.As(err, &status) {
		if text := clean(err.Error()); text != "" {
			return text
		}
		return "it does not say why"
	}
	text := string(status.Status().Reason)
	if d := status.Status().Details; d != nil {
		for _, cause := range d.Causes[:min(len(d.Causes), maxWarnings)] {
			text += ", " + cause.Field
		}
	}
	return clean(text)
}

// otherName is a name that no hook of the release has.
func (o *Object) otherName() string {
	const suffix = "-sealift-dry-run"
	name := o.Name
	if keep := 63 - len(suffix); len(name) > keep {
		name = strings.TrimRight(name[:keep], "-.")
	}
	return name + suffix
}

// own marks an object as Helm does.
func (o *Object) own(tree *unstructured.Unstructured) {
	tree.SetLabels(with(tree.GetLabels(), managedByLabel, managedByHelm))
	tree.SetAnnotations(with(with(tree.GetAnnotations(), nameAnnotation, o.intended.Release), namespaceAnnotation, o.intended.Namespace))
}

// foreign is who has an object that is there, empty for the release itself. Helm takes nothing else, but what the last revision had and
// somebody has taken the marks off.
func (o *Object) foreign(live *unstructured.Unstructured, had bool) string {
	owner, own := ownerOf(live, o.intended.Release, o.intended.Namespace)
	if own || had && live.GetAnnotations()[nameAnnotation] == "" {
		return ""
	}
	return owner
}

// hearing collects the warnings about one object.
type hearing struct {
	mu    sync.Mutex
	texts []string
}

// HandleWarningHeaderWithContext implements rest.WarningHandlerWithContext.
func (h *hearing) HandleWarningHeaderWithContext(_ context.Context, code int, _, text string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if text = clean(text); code == 299 && text != "" && len(h.texts) < maxWarnings && !slices.Contains(h.texts, text) {
		h.texts = append(h.texts, text)
	}
}

// conflicts reads an answer. What Helm itself owns in its old way is no conflict: Helm takes that over.
func conflicts(err error, live, tree *unstructured.Unstructured) []Conflict {
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Details == nil {
		return nil
	}
	secret := tree.GetKind() == "Secret" && tree.GroupVersionKind().Group == ""
	var list []Conflict
	for _, cause := range status.Status().Details.Causes {
		if cause.Type != metav1.CauseTypeFieldManagerConflict || len(list) == maxConflicts {
			continue
		}
		c := Conflict{Field: clean(cause.Field), Manager: managerOf(cause.Message)}
		if c.Manager == fieldManager {
			continue
		}
		path, ok := parseFieldPath(cause.Field)
		if ok {
			c.New = valueAt(tree.Object, path, secret)
			if live != nil {
				c.Live = valueAt(live.Object, path, secret)
			}
		}
		list = append(list, c)
	}
	return list
}

// fieldStep is a step of a path: a field, the element of a list that has these keys, the element with a value, or with an index.
type fieldStep struct {
	field string
	keys  map[string]any
	value *any
	index int
	// element says that it is one of a list.
	element bool
}

// maxFieldPath bounds a path, in bytes.
const maxFieldPath = 4096

// parseFieldPath reads a path as structured-merge-diff writes it: .field, [key="value",other=1], [="value"], [3]. The name of a field is
// written as it is, whatever is in it; one with a dot or a bracket is not found then.
func parseFieldPath(text string) ([]fieldStep, bool) {
	if len(text) > maxFieldPath {
		return nil, false
	}
	var path []fieldStep
	for text != "" {
		if text[0] == '.' {
			end := strings.IndexAny(text[1:], ".[")
			if end < 0 {
				end = len(text) - 1
			}
			path = append(path, fieldStep{field: text[1 : 1+end]})
			text = text[1+end:]
			continue
		}
		if text[0] != '[' {
			return nil, false
		}
		step, rest, ok := parseElement(text[1:])
		if !ok {
			return nil, false
		}
		path, text = append(path, step), rest
	}
	return path, true
}

// parseElement reads what stands between brackets.
func parseElement(text string) (step fieldStep, rest string, ok bool) {
	step.element = true
	for {
		end := strings.IndexAny(text, "=]")
		if end < 0 {
			return step, "", false
		}
		key := text[:end]
		if text[end] == ']' {
			n, err := strconv.Atoi(key)
			step.index = n
			return step, text[end+1:], err == nil && n >= 0 && step.keys == nil
		}
		dec := json.NewDecoder(strings.NewReader(text[end+1:]))
		var v any
		if err := dec.Decode(&v); err != nil {
			return step, "", false
		}
		text = text[end+1+int(dec.InputOffset()):]
		if key == "" {
			step.value = &v
		} else {
			if step.keys == nil {
				step.keys = map[string]any{}
			}
			step.keys[key] = v
		}
		switch {
		case strings.HasPrefix(text, "]"):
			return step, text[1:], true
		case !strings.HasPrefix(text, ","):
			return step, "", false
		}
		text = text[1:]
	}
}

// valueAt is the value at a path as JSON, cut where it is long; empty where there is none.
func valueAt(tree map[string]any, path []fieldStep, secret bool) string {
	at := any(tree)
	for n, step := range path {
		if secret && n == 1 && (path[0].field == "data" || path[0].field == "stringData") {
			return chart.SecretValue
		}
		switch v := at.(type) {
		case map[string]any:
			next, ok := v[step.field]
			if !ok || step.element {
				return ""
			}
			at = next
		case []any:
			n := slices.IndexFunc(v, step.is)
			if step.keys == nil && step.value == nil {
				n = step.index
			}
			if n < 0 || n >= len(v) || !step.element {
				return ""
			}
			at = v[n]
		default:
			return ""
		}
	}
	if secret && len(path) > 0 && (path[0].field == "data" || path[0].field == "stringData") || secret && len(path) == 0 {
		return chart.SecretValue
	}
	raw, err := json.Marshal(at)
	if err != nil {
		return ""
	}
	text := clean(string(raw))
	if len(text) > maxValue {
		text = strings.ToValidUTF8(text[:maxValue], "") + "…"
	}
	return text
}

// is reports whether an element of a list is meant. Keys that have their default may be left out of what is rendered, as the protocol of
// a port.
func (s fieldStep) is(e any) bool {
	same := func(a, b any) bool { return fmt.Sprint(a) == fmt.Sprint(b) }
	if s.value != nil {
		return same(e, *s.value)
	}
	m, ok := e.(map[string]any)
	if !ok || len(s.keys) == 0 {
		return false
	}
	for k, want := range s.keys {
		got, there := m[k]
		if !there && k == "protocol" {
			got = "TCP"
		}
		if !same(got, want) {
			return false
		}
	}
	return true
}

// maxScalers bounds the autoscalers that are listed of one namespace.
const maxScalers = 500

// scalers lists the objects whose replicas belong to an autoscaler, among the objects or in the cluster, with its name.
func (i *Inspection) scalers(ctx context.Context) map[objectKey]string {
	by := map[objectKey]string{}
	add := func(tree map[string]any, kind, namespace, name string) {
		at := func(field string) string {
			text, _, _ := unstructured.NestedString(tree, "spec", "scaleTargetRef", field)
			return text
		}
		target := objectKey{name: at("name"), namespace: namespace}
		gv, err := schema.ParseGroupVersion(at("apiVersion"))
		if err != nil || target.name == "" {
			return
		}
		target.Group, target.Kind = gv.Group, at("kind")
		if kind == "ScaledObject" && target.Kind == "" {
			target.Group, target.Kind = "apps", "Deployment" // KEDA's default
		}
		by[target] = clean(kind + "/" + namespace + "/" + name)
	}
	kinds := []schema.GroupVersionKind{
		{Group: "autoscaling", Version: "v2", Kind: "HorizontalPodAutoscaler"}, {Group: "keda.sh", Version: "v1alpha1", Kind: "ScaledObject"},
	}
	namespaces := map[string]bool{}
	for _, o := range i.Objects {
		if slices.ContainsFunc(kinds, func(k schema.GroupVersionKind) bool { return k.GroupKind() == o.Kind.GroupKind() }) {
			add(o.tree.Object, o.Kind.Kind, o.Namespace, o.Name)
		}
		if _, is, _ := unstructured.NestedFieldNoCopy(o.tree.Object, "spec", "replicas"); is && o.intended.Upgrade && i.has(o) {
			namespaces[o.Namespace] = true
		}
	}
	for _, namespace := range slices.Sorted(maps.Keys(namespaces)) {
		for k, resource := range map[schema.GroupVersionKind]string{kinds[0]: "horizontalpodautoscalers", kinds[1]: "scaledobjects"} {
			o := Object{Kind: k, Namespace: namespace, resource: resource}
			raw, err := readAnswer(ctx, i.session.clientset.Discovery().RESTClient().Get().AbsPath(o.path("")).Param("limit", strconv.Itoa(maxScalers)))
			if err != nil {
				continue // there are none of that kind, or nobody may say: then its fields are seen as conflicts
			}
			list := &unstructured.UnstructuredList{}
			if err := json.Unmarshal(raw, list); err != nil {
				continue
			}
			for n := range list.Items {
				add(list.Items[n].Object, k.Kind, namespace, list.Items[n].GetName())
			}
		}
	}
	return by
}
