package release

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	typedv1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/sealift/sealift/internal/ledger"
)

// DefaultRecordNamespace is where a cluster keeps the states of bundles.
const DefaultRecordNamespace = "sealift"

const (
	// statePrefix begins the names of the Secrets and Leases of states, valuesSuffix ends that of the Secret beside it. Names
	// of bundles have no dots, so that no two bundles meet.
	statePrefix  = "sealift."
	valuesSuffix = ".values"
	// stateKey is the member of a Secret's data that has the state, stateType the type of such a Secret and of the one
	// beside it, and recordLabel says whose it is.
	stateKey    = "state.json.gz"
	stateType   = "sealift/state"
	recordLabel = "sealift/record"
	valuesLabel = "sealift/values"
	// maxBundles bounds the states that are listed, listPage what is asked for at once.
	maxBundles = 10000
	listPage   = 20
	// writePatience is how long a write is repeated that gets no answer, or one that says to try again.
	writePatience = 30 * time.Second
)

// Ledger is the door to the states of bundles (see package ledger) that a cluster keeps in one namespace: for each
// bundle a Secret "sealift.NAME", and one beside it, "sealift.NAME.values", for what the site has said.
type Ledger struct {
	cluster   *Cluster
	namespace string
}

// Ledger is the door to the states in a namespace.
func (c *Cluster) Ledger(namespace string) *Ledger { return &Ledger{c, namespace} }

// Namespace is where the states are.
func (l *Ledger) Namespace() string { return l.namespace }

// ConflictError says that a state has been changed since it was read.
type ConflictError struct{ Bundle string }

func (e *ConflictError) Error() string {
	return fmt.Sprintf("the state of bundle %q was changed by somebody else", e.Bundle)
}

// refused tells a want of rights, credentials that are not taken, and a cluster that does not answer, from other errors.
func (l *Ledger) refused(verb, doing string, err error) error {
	if apierrors.IsForbidden(err) && !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		err = &ForbiddenError{Verb: verb, Resource: "secrets", Namespace: l.namespace, Err: err}
	}
	if apierrors.IsUnauthorized(err) {
		err = &CredentialsError{Server: l.cluster.server, Expired: l.cluster.expired(time.Now())}
	}
	if away := (*url.Error)(nil); errors.As(err, &away) {
		err = &UnreachableError{Server: l.cluster.server, Err: err}
	}
	return fmt.Errorf("%s: %w", doing, err)
}

func (l *Ledger) secrets(ctx context.Context) (typedv1.SecretInterface, *session, error) {
	s, err := l.cluster.open(ctx, l.namespace)
	if err != nil {
		return nil, nil, err
	}
	return s.clientset.CoreV1().Secrets(l.namespace), s, nil
}

// Bundles lists the bundles that have a state, sorted. Errors are *[ForbiddenError] among others.
func (l *Ledger) Bundles(ctx context.Context) ([]string, error) {
	secrets, _, err := l.secrets(ctx)
	if err != nil {
		return nil, err
	}
	names := []string{}
	o := metav1.ListOptions{LabelSelector: recordLabel, Limit: listPage}
	for {
		list, err := secrets.List(ctx, o)
		if err != nil {
			return nil, l.refused("list", "listing the states of bundles", err)
		}
		for i := range list.Items {
			name, ours := strings.CutPrefix(list.Items[i].Name, statePrefix)
			if ours && name == list.Items[i].Labels[recordLabel] {
				names = append(names, name)
			}
		}
		if len(names) > maxBundles {
			return nil, fmt.Errorf("listing the states of bundles: namespace %q has more than %d", l.namespace, maxBundles)
		}
		if o.Continue = list.Continue; o.Continue == "" {
			slices.Sort(names)
			return names, nil
		}
	}
}

// Read returns the state of a bundle, and the version of it that Write asks for: nil and "" where there is none. Errors are
// *[ForbiddenError] and *ledger.StateError among others.
func (l *Ledger) Read(ctx context.Context, bundle string) (*ledger.State, string, error) {
	secrets, _, err := l.secrets(ctx)
	if err != nil {
		return nil, "", err
	}
	secret, err := secrets.Get(ctx, statePrefix+bundle, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, "", nil
	}
	doing := fmt.Sprintf("reading the state of bundle %q in namespace %q", bundle, l.namespace)
	if err != nil {
		return nil, "", l.refused("get", doing, err)
	}
	raw, err := unpack(secret.Data[stateKey], ledger.MaxBytes)
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", doing, &ledger.StateError{Err: err})
	}
	s, err := ledger.Decode(raw)
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", doing, err)
	}
	if s.Name != bundle {
		return nil, "", fmt.Errorf("%s: %w", doing, &ledger.StateError{Err: fmt.Errorf("it is that of bundle %q", s.Name)})
	}
	return s, secret.ResourceVersion, nil
}

// pack compresses, the same bytes for the same content.
func pack(raw []byte) ([]byte, error) {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	_, err = w.Write(raw)
	// What is left comes out when it is closed.
	err = firstError(err, w.Close())
	return b.Bytes(), err
}

// unpack reads what pack made, of at most limit bytes.
func unpack(packed []byte, limit int) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(io.LimitReader(r, int64(limit)+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > limit {
		return nil, fmt.Errorf("it has more than %d bytes", limit)
	}
	return raw, r.Close()
}

// Write replaces the state that had the given version ("": there was none; the namespace is created where it is missing) and
// returns the new version. Serial is set. A write without an answer is repeated, and is no conflict with itself. Errors are
// *[ConflictError], *[ForbiddenError] and *ledger.TooLargeError among others.
func (l *Ledger) Write(ctx context.Context, s *ledger.State, version string) (string, error) {
	next := *s
	next.Serial++
	raw, err := ledger.Encode(&next)
	if err != nil {
		return "", err
	}
	packed, err := pack(raw)
	if err != nil {
		return "", err
	}
	if len(packed) > maxRecord {
		return "", &ledger.TooLargeError{Bundle: s.Name, Size: len(packed), Limit: maxRecord}
	}
	version, err = l.put(ctx, s.Name, statePrefix+s.Name, recordLabel, version, func(*corev1.Secret) map[string][]byte {
		return map[string][]byte{stateKey: packed}
	})
	if err != nil {
		return "", err
	}
	s.MediaType, s.Serial = ledger.MediaType, next.Serial
	return version, nil
}

// put writes a Secret that had the given version, "" for one that was not there, and returns the new one. A conflict with a
// Secret that has just what was to be written is none: it was an earlier attempt, without an answer.
func (l *Ledger) put(ctx context.Context, bundle, name, label, version string, data func(was *corev1.Secret) map[string][]byte) (string, error) {
	secrets, s, err := l.secrets(ctx)
	if err != nil {
		return "", err
	}
	want := data(nil)
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{label: bundle}, ResourceVersion: version},
		Type:       stateType, Data: want,
	}
	doing := fmt.Sprintf("writing the state of bundle %q in namespace %q", bundle, l.namespace)
	patience := time.NewTimer(writePatience)
	defer patience.Stop()
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		var written *corev1.Secret
		verb := "update"
		if version == "" {
			verb = "create"
			if err = s.ensureNamespace(ctx, l.namespace); err == nil {
				written, err = secrets.Create(ctx, secret, metav1.CreateOptions{FieldManager: userAgent})
			}
		} else {
			written, err = secrets.Update(ctx, secret, metav1.UpdateOptions{FieldManager: userAgent})
		}
		if err == nil {
			return written.ResourceVersion, nil
		}
		if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || (apierrors.IsNotFound(err) && version != "") {
			now, getErr := secrets.Get(ctx, name, metav1.GetOptions{})
			switch {
			case getErr == nil && maps.EqualFunc(now.Data, want, bytes.Equal):
				return now.ResourceVersion, nil
			case getErr == nil || apierrors.IsNotFound(getErr):
				return "", &ConflictError{Bundle: bundle}
			}
			err = getErr // nothing is known yet
		}
		if !again(err) {
			return "", l.refused(verb, doing, err)
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("%s: %w: %w", doing, context.Cause(ctx), err)
		case <-patience.C:
			return "", fmt.Errorf("%s: %w", doing, err)
		case <-time.After(wait):
		}
	}
}

// again says that a request which failed so may succeed later. What has no status got no answer.
func again(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return !errors.Is(err, context.Canceled)
	}
	return apierrors.IsServerTimeout(err) || apierrors.IsTimeout(err) || apierrors.IsTooManyRequests(err) ||
		apierrors.IsServiceUnavailable(err) || apierrors.IsInternalError(err)
}

// Forget deletes the state of a bundle that has the given version, and what is kept beside it. Errors are *[ConflictError]
// and *[ForbiddenError] among others.
func (l *Ledger) Forget(ctx context.Context, bundle, version string) error {
	secrets, _, err := l.secrets(ctx)
	if err != nil {
		return err
	}
	doing := fmt.Sprintf("deleting the state of bundle %q in namespace %q", bundle, l.namespace)
	err = secrets.Delete(ctx, statePrefix+bundle, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: &version}})
	if apierrors.IsConflict(err) {
		return &ConflictError{Bundle: bundle}
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return l.refused("delete", doing, err)
	}
	err = secrets.Delete(ctx, statePrefix+bundle+valuesSuffix, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return l.refused("delete", doing, err)
	}
	return nil
}

// ReadValues returns what a site has said, by its ID; nil where it is not there.
func (l *Ledger) ReadValues(ctx context.Context, bundle, id string) ([]byte, error) {
	secrets, _, err := l.secrets(ctx)
	if err != nil {
		return nil, err
	}
	doing := fmt.Sprintf("reading the values %q of bundle %q in namespace %q", id, bundle, l.namespace)
	secret, err := secrets.Get(ctx, statePrefix+bundle+valuesSuffix, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, l.refused("get", doing, err)
	}
	packed, ok := secret.Data[id]
	if !ok {
		return nil, nil
	}
	raw, err := unpack(packed, ledger.MaxBytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	return raw, nil
}

// WriteValues keeps what a site has said. It does not change what is there under an ID. Errors are *[ConflictError],
// *[ForbiddenError] and *ledger.TooLargeError among others.
func (l *Ledger) WriteValues(ctx context.Context, bundle, id string, content []byte) error {
	if err := ledger.CheckID(id); err != nil {
		return err
	}
	if len(content) > ledger.MaxBytes {
		return &ledger.TooLargeError{Bundle: bundle, Size: len(content), Limit: ledger.MaxBytes}
	}
	packed, err := pack(content)
	if err != nil {
		return err
	}
	return l.changeValues(ctx, bundle, func(data map[string][]byte) bool {
		if _, there := data[id]; there {
			return false
		}
		data[id] = packed
		return true
	})
}

// DropValues deletes what is kept under other IDs than those in keep.
func (l *Ledger) DropValues(ctx context.Context, bundle string, keep []string) error {
	return l.changeValues(ctx, bundle, func(data map[string][]byte) bool {
		before := len(data)
		maps.DeleteFunc(data, func(id string, _ []byte) bool { return !slices.Contains(keep, id) })
		return len(data) != before
	})
}

// changeValues changes what is beside a state; change says whether it did something. What others wrote meanwhile is
// read again: they are held off by the lease, so that this is rare.
func (l *Ledger) changeValues(ctx context.Context, bundle string, change func(data map[string][]byte) bool) error {
	secrets, _, err := l.secrets(ctx)
	if err != nil {
		return err
	}
	name := statePrefix + bundle + valuesSuffix
	for range 3 {
		version, data := "", map[string][]byte{}
		secret, err := secrets.Get(ctx, name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
		case err != nil:
			return l.refused("get", fmt.Sprintf("reading the values of bundle %q in namespace %q", bundle, l.namespace), err)
		default:
			version = secret.ResourceVersion
			maps.Copy(data, secret.Data)
		}
		if !change(data) {
			return nil
		}
		size := 0
		for _, d := range data {
			size += len(d)
		}
		if size > maxRecord {
			return &ledger.TooLargeError{Bundle: bundle, Size: size, Limit: maxRecord}
		}
		_, err = l.put(ctx, bundle, name, valuesLabel, version, func(*corev1.Secret) map[string][]byte { return data })
		if is := (*ConflictError)(nil); !errors.As(err, &is) {
			return err
		}
	}
	return &ConflictError{Bundle: bundle}
}

// Hold is the right to change a bundle, protected by a lease "sealift.NAME" as releases are. It is renewed from [Ledger.Hold]
// until End, whatever becomes of the contexts of the work that it protects.
type Hold struct{ lease *lease }

// Hold takes the lease of a bundle, in the namespace of the states, which is created where it is missing; duration is how
// long others watch it unrenewed before they take it, 0 for the default. Errors are *[BusyError], whose Bundle is set, and
// *[LeaseError].
func (l *Ledger) Hold(ctx context.Context, bundle string, duration time.Duration) (*Hold, error) {
	s, err := l.cluster.open(ctx, l.namespace)
	if err != nil {
		return nil, err
	}
	if err := s.ensureNamespace(ctx, l.namespace); err != nil {
		return nil, l.refused("create", "preparing the namespace of the states of bundles", err)
	}
	run := make([]byte, 8)
	_, _ = rand.Read(run) // never fails
	h := &Hold{}
	if h.lease, err = l.cluster.newLease(ctx, bundle, l.namespace, hex.EncodeToString(run)); err != nil {
		return nil, err
	}
	h.lease.bundle = true
	if duration > 0 {
		h.lease.times = leaseTimesOf(duration)
	}
	if err := h.lease.take(ctx); err != nil {
		return nil, err
	}
	return h, nil
}

// leaseOf reads the lease of a bundle; nil for none.
func (l *Ledger) leaseOf(ctx context.Context, bundle string) (*coordinationv1.Lease, error) {
	s, err := l.cluster.open(ctx, l.namespace)
	if err != nil {
		return nil, err
	}
	now, err := s.clientset.CoordinationV1().Leases(l.namespace).Get(ctx, statePrefix+bundle, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the lease %q in namespace %q: %w", statePrefix+bundle, l.namespace, err)
	}
	return now, nil
}

// Bind ends the context it returns when the lease is lost: its cause is a *[LeaseError] then. cancel must be called.
func (h *Hold) Bind(ctx context.Context) (bound context.Context, cancel context.CancelFunc) {
	return h.lease.bind(ctx)
}

// Retake takes a lease again that was lost; it does nothing where it was not. Errors are those of [Ledger.Hold].
func (h *Hold) Retake(ctx context.Context) error { return h.lease.retake(ctx) }

// End gives the lease back. It does so, too, after ctx has ended.
func (h *Hold) End(ctx context.Context) { h.lease.giveBack(ctx) }

// Holder is who holds the lease of a bundle, dead or alive; "" for nobody.
func (l *Ledger) Holder(ctx context.Context, bundle string) (string, error) {
	now, err := l.leaseOf(ctx, bundle)
	return clean(holderOf(now)), err
}

// Watch looks at the lease of a bundle long enough to see a renewal: alive says that there was a sign of its holder.
func (l *Ledger) Watch(ctx context.Context, bundle string) (holder string, alive bool, err error) {
	first, err := l.leaseOf(ctx, bundle)
	if err != nil || holderOf(first) == "" {
		return "", false, err
	}
	times := l.cluster.lease
	if d := stated(first); d > 0 {
		times = leaseTimesOf(min(d, 10*time.Minute))
	}
	enough := time.NewTimer(times.renewal + times.attempt)
	defer enough.Stop()
	for {
		now, err := l.leaseOf(ctx, bundle)
		switch {
		case err != nil:
			return clean(holderOf(first)), false, err
		case now == nil || changed(first, now):
			return clean(holderOf(first)), true, nil
		}
		select {
		case <-ctx.Done():
			return clean(holderOf(first)), false, ctx.Err()
		case <-enough.C:
			return clean(holderOf(first)), false, nil
		case <-time.After(times.poll):
		}
	}
}

// UID is the identity of the cluster: the UID of its namespace kube-system.
func (c *Cluster) UID(ctx context.Context) (string, error) {
	s, err := c.open(ctx, metav1.NamespaceSystem)
	if err != nil {
		return "", err
	}
	ns, err := s.clientset.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
	if apierrors.IsForbidden(err) {
		return "", &ForbiddenError{Verb: "get", Resource: "namespaces", Namespace: metav1.NamespaceSystem, Err: err}
	}
	if err != nil {
		return "", fmt.Errorf("asking for the identity of the cluster: %w", err)
	}
	return string(ns.UID), nil
}
