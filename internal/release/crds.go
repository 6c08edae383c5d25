package release

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	utiljson "k8s.io/apimachinery/pkg/util/json"
)

const (
	crdGroup = "apiextensions.k8s.io"
	crdKind  = "CustomResourceDefinition"

	// wasLabel marks the Secrets with what was there before, wasType is their type, wasKey the member that holds a part, and
	// wasParts, of the first Secret, how many parts there are. Each part has a Secret of its own: a Secret takes 1 MiB.
	wasLabel = "sealift/was"
	wasType  = "sealift/was"
	wasKey   = "crds.json.gz"
	wasParts = "parts"
	wasPart  = 900 << 10
	// maxWas bounds the former definitions in bytes of JSON, maxWasParts their parts.
	maxWas      = 64 << 20
	maxWasParts = 64
)

var crdResource = schema.GroupVersionResource{Group: crdGroup, Version: "v1", Resource: "customresourcedefinitions"}

// crdsWas is what was there before definitions were applied.
type crdsWas struct {
	// Were are the definitions that are changed, as they were; New the names of those that there were none of.
	Were []map[string]any `json:"were"`
	New  []string         `json:"new"`
}

// crdChange is a definition and what is there of it.
type crdChange struct {
	want, live *unstructured.Unstructured // live is nil where there is none
}

// ApplyCRDs applies custom resource definitions (documents of kind CustomResourceDefinition of apiextensions.k8s.io/v1, no
// others) by server-side apply as "sealift", taking over what others have set, and waits until the cluster serves them, in each
// case at most for the timeout of the Cluster. Those that are as they are to be are not touched. It returns the names of those
// that were changed, with the Helm release that has it, where another one does: "NAME (of release NAMESPACE/NAME)".
//
// If any is changed, the former ones are first kept in the Secret of the given name in the namespace, and in more, with a
// number added to the name, where one is too small, for [Cluster.RestoreCRDs]. What such a Secret holds already stays: it
// is what was there before this was begun the first time. The namespace must exist.
//
// Before anything is changed, all of them are looked at: a version that is stored, or that is served and of a definition of another
// release, must not go, nor may a definition that is being deleted be applied. Errors are then *[CRDError].
func (c *Cluster) ApplyCRDs(ctx context.Context, namespace, secret string, docs []byte) (changed []string, err error) {
	wanted, err := readObjects(docs)
	if err != nil {
		return nil, fmt.Errorf("reading custom resource definitions: %w", err)
	}
	s, err := c.open(ctx, namespace)
	if err != nil {
		return nil, err
	}
	changes, err := s.crdChanges(ctx, wanted)
	if err != nil {
		return nil, err
	}
	if len(changes) > 0 {
		was := crdsWas{Were: []map[string]any{}, New: []string{}}
		for _, ch := range changes {
			if ch.live == nil {
				was.New = append(was.New, ch.want.GetName())
			} else {
				was.Were = append(was.Were, former(ch.live))
			}
		}
		if err := s.saveWas(ctx, namespace, secret, was); err != nil {
			return nil, fmt.Errorf("keeping the former custom resource definitions in secret %q in namespace %q: %w", secret, namespace, err)
		}
	}
	for _, ch := range changes {
		if err := s.applyCRD(ctx, ch); err != nil {
			return changed, err
		}
		name := ch.want.GetName()
		if owner := crdOwner(ch.live); owner != "" {
			name = clean(name + " (of release " + owner + ")")
		}
		changed = append(changed, name)
	}
	// Those that were not changed may have been by a run that was killed before it had waited.
	return changed, s.established(ctx, c.timeout, wanted)
}

// crdChanges looks at all definitions and returns those that are to be changed.
func (s *session) crdChanges(ctx context.Context, wanted []*unstructured.Unstructured) ([]crdChange, error) {
	var changes []crdChange
	for _, want := range wanted {
		name := clean(want.GetName())
		if want.GetKind() != crdKind || want.GetAPIVersion() != crdGroup+"/v1" || name == "" {
			return nil, &CRDError{Name: name, Err: fmt.Errorf("it is a %s of %q, want a %s of \"%s/v1\" with a name",
				clean(want.GetKind()), clean(want.GetAPIVersion()), crdKind, crdGroup)}
		}
		unstructured.RemoveNestedField(want.Object, "status")
		live, err := s.dynamic.Resource(crdResource).Get(ctx, want.GetName(), metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			changes = append(changes, crdChange{want: want})
			continue
		}
		if err != nil {
			return nil, &CRDError{Name: name, Err: forbid(err)}
		}
		ch := crdChange{want, live}
		if err := ch.allowed(); err != nil {
			return nil, &CRDError{Name: name, Owner: crdOwner(live), Err: err}
		}
		then, err := s.patchCRD(ctx, want, true)
		if err != nil {
			return nil, &CRDError{Name: name, Owner: crdOwner(live), Err: forbid(err)}
		}
		if !sameCRD(live, then) {
			changes = append(changes, ch)
		}
	}
	return changes, nil
}

// allowed says why a definition must not take the place of the live one.
func (ch crdChange) allowed() error {
	if ch.live.GetDeletionTimestamp() != nil {
		return errors.New("it is being deleted")
	}
	stored, _, _ := unstructured.NestedStringSlice(ch.live.Object, "status", "storedVersions")
	now := crdVersions(ch.want)
	for _, v := range stored {
		if _, ok := now[v]; !ok {
			return fmt.Errorf("version %q, in which objects may be stored, is not in the new one", clean(v))
		}
	}
	was := crdVersions(ch.live)
	for _, v := range slices.Sorted(maps.Keys(was)) {
		switch {
		case !was[v] || now[v]:
		case slices.Contains(stored, v):
			return fmt.Errorf("version %q, in which objects may be stored, would not be served any more", clean(v))
		case crdOwner(ch.live) != "":
			return fmt.Errorf("version %q, which another release may use, would not be served any more", clean(v))
		}
	}
	return nil
}

// crdVersions are the versions of a definition, and whether each is served.
func crdVersions(u *unstructured.Unstructured) map[string]bool {
	versions, _, _ := unstructured.NestedSlice(u.Object, "spec", "versions")
	out := map[string]bool{}
	for _, v := range versions {
		if m, ok := v.(map[string]any); ok {
			if name, ok := m["name"].(string); ok {
				out[name], _ = m["served"].(bool)
			}
		}
	}
	return out
}

// crdOwner is the Helm release "NAMESPACE/NAME" that has a definition; empty for none.
func crdOwner(u *unstructured.Unstructured) string {
	if u == nil || u.GetAnnotations()[nameAnnotation] == "" {
		return ""
	}
	return clean(u.GetAnnotations()[namespaceAnnotation] + "/" + u.GetAnnotations()[nameAnnotation])
}

// sameCRD compares what can be said of a definition.
func sameCRD(a, b *unstructured.Unstructured) bool {
	return reflect.DeepEqual(a.Object["spec"], b.Object["spec"]) && reflect.DeepEqual(a.GetLabels(), b.GetLabels()) &&
		reflect.DeepEqual(a.GetAnnotations(), b.GetAnnotations())
}

// former is what is kept of a definition: what can be applied again.
func former(live *unstructured.Unstructured) map[string]any {
	u := &unstructured.Unstructured{Object: map[string]any{"apiVersion": live.GetAPIVersion(), "kind": live.GetKind(), "spec": live.Object["spec"]}}
	u.SetName(live.GetName())
	u.SetLabels(live.GetLabels())
	u.SetAnnotations(live.GetAnnotations())
	return u.Object
}

// applyCRD applies a definition. What Helm has set of it, which it does once and never again, becomes ours, so that what the new one does
// not have any more goes. Where a chart has the definition among its templates, it stays Helm's.
func (s *session) applyCRD(ctx context.Context, ch crdChange) error {
	if ch.live != nil && crdOwner(ch.live) == "" {
		if err := s.inherit(ctx, ch.live); err != nil {
			return &CRDError{Name: clean(ch.want.GetName()), Err: forbid(err)}
		}
	}
	if _, err := s.patchCRD(ctx, ch.want, false); err != nil {
		return &CRDError{Name: clean(ch.want.GetName()), Owner: crdOwner(ch.live), Err: forbid(err)}
	}
	return nil
}

// inherit makes the fields of the manager "helm" those of "sealift", unless that has some already.
func (s *session) inherit(ctx context.Context, live *unstructured.Unstructured) error {
	fields := live.GetManagedFields()
	at := -1
	for i, f := range fields {
		switch {
		case f.Manager == userAgent && f.Operation == metav1.ManagedFieldsOperationApply:
			return nil
		case f.Manager == fieldManager && f.Subresource == "":
			at = i
		}
	}
	if at < 0 {
		return nil
	}
	path := "/metadata/managedFields/" + strconv.Itoa(at)
	patch, err := json.Marshal([]map[string]any{
		{"op": "test", "path": "/metadata/resourceVersion", "value": live.GetResourceVersion()},
		{"op": "replace", "path": path + "/manager", "value": userAgent},
		{"op": "replace", "path": path + "/operation", "value": string(metav1.ManagedFieldsOperationApply)},
	})
	if err != nil {
		return err
	}
	_, err = s.dynamic.Resource(crdResource).Patch(ctx, live.GetName(), types.JSONPatchType, patch, metav1.PatchOptions{FieldManager: userAgent})
	return err
}

func (s *session) patchCRD(ctx context.Context, want *unstructured.Unstructured, dryRun bool) (*unstructured.Unstructured, error) {
	data, err := json.Marshal(want.Object)
	if err != nil {
		return nil, err
	}
	force := true
	o := metav1.PatchOptions{FieldManager: userAgent, Force: &force}
	if dryRun {
		o.DryRun = []string{metav1.DryRunAll}
	}
	return s.dynamic.Resource(crdResource).Patch(ctx, want.GetName(), types.ApplyPatchType, data, o)
}

// established waits until the cluster serves definitions.
func (s *session) established(ctx context.Context, timeout time.Duration, wanted []*unstructured.Unstructured) error {
	for _, want := range wanted {
		last := "it is not served yet"
		err := poll(ctx, timeout, func() (bool, error) {
			live, err := s.dynamic.Resource(crdResource).Get(ctx, want.GetName(), metav1.GetOptions{})
			if err != nil {
				return false, forbid(err)
			}
			conditions, _, _ := unstructured.NestedSlice(live.Object, "status", "conditions")
			established := false
			for _, condition := range conditions {
				m, _ := condition.(map[string]any)
				switch {
				case m["type"] == "Established":
					established = m["status"] == "True"
				case m["type"] == "NamesAccepted" && m["status"] == "False":
					message, _ := m["message"].(string)
					last = clean(message)
				}
			}
			return established && s.serves(live), nil
		})
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("%s: %w", last, err)
		}
		if err != nil {
			return &CRDError{Name: clean(want.GetName()), Err: err}
		}
	}
	return nil
}

// serves says whether the cluster tells of the resource in all versions that are served.
func (s *session) serves(live *unstructured.Unstructured) bool {
	group, _, _ := unstructured.NestedString(live.Object, "spec", "group")
	plural, _, _ := unstructured.NestedString(live.Object, "spec", "names", "plural")
	for version, served := range crdVersions(live) {
		if !served {
			continue
		}
		list, err := s.clientset.Discovery().ServerResourcesForGroupVersion(group + "/" + version)
		if err != nil || !slices.ContainsFunc(list.APIResources, func(r metav1.APIResource) bool { return r.Name == plural }) {
			return false
		}
	}
	return true
}

// RestoreCRDs applies the definitions that [Cluster.ApplyCRDs] kept, and waits as that does. Those that there were none of
// stay: definitions are never deleted. Where there is no such Secret, nothing was changed, and nothing is done. It may be repeated.
//
// A version in which objects may have been stored since cannot go: such a definition stays, the others go back, and the error is
// a *[CRDError] that says so.
func (c *Cluster) RestoreCRDs(ctx context.Context, namespace, secret string) error {
	s, err := c.open(ctx, namespace)
	if err != nil {
		return err
	}
	was, err := s.readWas(ctx, namespace, secret)
	if err != nil {
		return fmt.Errorf("reading the former custom resource definitions from secret %q in namespace %q: %w", secret, namespace, err)
	}
	if was == nil {
		return nil
	}
	wanted := make([]*unstructured.Unstructured, 0, len(was.Were))
	for _, object := range was.Were {
		wanted = append(wanted, &unstructured.Unstructured{Object: object})
	}
	var all []*unstructured.Unstructured
	var stay []error
	for _, want := range wanted {
		live, err := s.dynamic.Resource(crdResource).Get(ctx, want.GetName(), metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			// Somebody has deleted it, and all its objects: an empty one in its place helps nobody, but the former release that
			// is put back needs it.
			live, err = nil, nil
		}
		if err != nil {
			return &CRDError{Name: clean(want.GetName()), Err: forbid(err)}
		}
		if e := newlyStored(live, want); e != nil {
			stay = append(stay, e)
			continue
		}
		all = append(all, want)
		if live != nil && sameCRD(live, want) {
			continue
		}
		if err := s.applyCRD(ctx, crdChange{want, live}); err != nil {
			return err
		}
	}
	if err := s.established(ctx, c.timeout, all); err != nil {
		return err
	}
	return errors.Join(stay...)
}

// newlyStored says which version, in which objects may be stored, a former definition does not have; nil for none.
func newlyStored(live, former *unstructured.Unstructured) error {
	if live == nil {
		return nil
	}
	stored, _, _ := unstructured.NestedStringSlice(live.Object, "status", "storedVersions")
	had := crdVersions(former)
	for _, v := range stored {
		if _, ok := had[v]; !ok {
			return &CRDError{
				Name: clean(former.GetName()), Owner: crdOwner(live), Kept: true,
				Err: fmt.Errorf("version %q, in which objects may be stored since, is not in the former one", clean(v)),
			}
		}
	}
	return nil
}

// DropWas deletes what [Cluster.ApplyCRDs] kept, if anything.
func (c *Cluster) DropWas(ctx context.Context, namespace, secret string) error {
	s, err := c.open(ctx, namespace)
	if err != nil {
		return err
	}
	secrets := s.clientset.CoreV1().Secrets(namespace)
	first, err := secrets.Get(ctx, secret, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	parts := 0
	if err == nil {
		parts, err = partsOf(first)
	}
	for i := parts - 1; i >= 0 && err == nil; i-- { // the first last: until then it can be repeated
		if err = secrets.Delete(ctx, partName(secret, i), metav1.DeleteOptions{}); apierrors.IsNotFound(err) {
			err = nil
		}
	}
	if err != nil {
		return fmt.Errorf("deleting secret %q in namespace %q: %w", secret, namespace, forbid(err))
	}
	return nil
}

func partName(secret string, i int) string {
	if i == 0 {
		return secret
	}
	return secret + "-" + strconv.Itoa(i)
}

// partsOf is the number of Secrets that what was there before is spread over.
func partsOf(first *corev1.Secret) (int, error) {
	if first.Labels[wasLabel] == "" {
		return 0, errors.New("it is not of Sealift's making")
	}
	n, err := strconv.Atoi(string(first.Data[wasParts]))
	if err != nil || n < 1 || n > maxWasParts {
		return 0, fmt.Errorf("it says %q parts, want 1 to %d", clean(string(first.Data[wasParts])), maxWasParts)
	}
	return n, nil
}

// saveWas keeps what was there before, unless something is kept already. The first Secret is written last: it says that
// all are there.
func (s *session) saveWas(ctx context.Context, namespace, secret string, was crdsWas) error {
	secrets := s.clientset.CoreV1().Secrets(namespace)
	first, err := secrets.Get(ctx, secret, metav1.GetOptions{})
	if err == nil {
		_, err = partsOf(first)
		return err
	}
	if !apierrors.IsNotFound(err) {
		return forbid(err)
	}
	var packed bytes.Buffer
	zw := gzip.NewWriter(&packed)
	err = json.NewEncoder(zw).Encode(was)
	if err = firstError(err, zw.Close()); err != nil {
		return err
	}
	parts := slices.Collect(slices.Chunk(packed.Bytes(), wasPart))
	if len(parts) > maxWasParts {
		return fmt.Errorf("they have %d bytes compressed, want at most %d", packed.Len(), maxWasParts*wasPart)
	}
	for i, part := range slices.Backward(parts) {
		data := map[string][]byte{wasKey: part}
		if i == 0 {
			data[wasParts] = []byte(strconv.Itoa(len(parts)))
		}
		object := &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: partName(secret, i), Namespace: namespace, Labels: map[string]string{wasLabel: "crds"}},
			Type:       wasType, Data: data,
		}
		_, err := secrets.Create(ctx, object, metav1.CreateOptions{FieldManager: userAgent})
		if apierrors.IsAlreadyExists(err) && i > 0 {
			_, err = secrets.Update(ctx, object, metav1.UpdateOptions{FieldManager: userAgent}) // left behind by a run that was killed
		}
		if err != nil {
			return forbid(err)
		}
	}
	return nil
}

// readWas reads what is kept; nil for nothing.
func (s *session) readWas(ctx context.Context, namespace, secret string) (*crdsWas, error) {
	secrets := s.clientset.CoreV1().Secrets(namespace)
	first, err := secrets.Get(ctx, secret, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, forbid(err)
	}
	n, err := partsOf(first)
	if err != nil {
		return nil, err
	}
	packed := slices.Clone(first.Data[wasKey])
	for i := 1; i < n; i++ {
		part, err := secrets.Get(ctx, partName(secret, i), metav1.GetOptions{})
		if err != nil {
			return nil, forbid(err)
		}
		packed = append(packed, part.Data[wasKey]...)
	}
	return parseWas(packed)
}

// parseWas reads what saveWas wrote, out of a Secret that others may have written.
func parseWas(packed []byte) (*crdsWas, error) {
	zr, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(io.LimitReader(zr, maxWas+1))
	if err = firstError(err, zr.Close()); err != nil {
		return nil, err
	}
	if len(raw) > maxWas {
		return nil, fmt.Errorf("there are more than %d bytes", maxWas)
	}
	var stored struct {
		Were []json.RawMessage `json:"were"`
		New  []string          `json:"new"`
	}
	if err := json.Unmarshal(raw, &stored); err != nil {
		return nil, err
	}
	was := &crdsWas{Were: []map[string]any{}, New: stored.New}
	for i, object := range stored.Were {
		u := &unstructured.Unstructured{}
		if err := utiljson.Unmarshal(object, &u.Object); err != nil { // integers stay what they are
			return nil, err
		}
		was.Were = append(was.Were, u.Object)
		if u.GetKind() != crdKind || u.GetAPIVersion() != crdGroup+"/v1" || u.GetName() == "" {
			return nil, fmt.Errorf("object %d is no %s with a name", i+1, crdKind)
		}
	}
	return was, nil
}
