package release

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"
)

// leasePrefix and the name of a release make the name of its lease.
const leasePrefix = "sealift-"

const (
	// DefaultLease is how long others watch a lease that nobody renews, where nobody says how long.
	DefaultLease = time.Minute
	// MinLease is the shortest such time: below, a slow API server costs a living holder its lease.
	MinLease = 5 * time.Second
)

// leaseTimes say how long a lease lives; tests have other ones.
type leaseTimes struct {
	// duration is how long others watch a lease that nobody renews before they
	// take it.
	duration time.Duration
	// grace is how long the holder goes on without renewing. With an attempt, it
	// is less than the duration. A restart of the API server fits into it.
	grace time.Duration
	// renewal is the time between renewals, and attempt bounds each of them.
	renewal, attempt time.Duration
	// poll is the time between two looks at a lease that somebody holds.
	poll time.Duration
}

// leaseTimesOf derives all times from the duration; 0 is [DefaultLease], and nothing is less than [MinLease].
func leaseTimesOf(duration time.Duration) leaseTimes {
	if duration <= 0 {
		duration = DefaultLease
	}
	duration = max(duration, MinLease)
	return leaseTimes{duration: duration, grace: duration * 3 / 4, renewal: duration / 6, attempt: duration / 12, poll: duration / 60}
}

// lease is the right to change a release, see the package documentation. It is
// renewed from take until giveBack, whatever becomes of the contexts of the work
// that it protects.
type lease struct {
	client             coordinationclient.LeaseInterface
	release, namespace string
	holder             string // of this process, never the same twice
	bundle             bool   // it is that of a bundle of this name, see Ledger.Hold
	times              leaseTimes
	log                *slog.Logger

	mine   *coordinationv1.Lease // as it was last written; the keeper's while that runs
	keeper *keeper               // since take
}

// keeper renews a lease in the background.
type keeper struct {
	stop  context.CancelFunc
	ended chan struct{} // closed when it has ended
	lost  chan struct{} // closed when it has lost the lease
	cause error         // of the loss; set before
}

// newLease prepares a lease of a release; take takes it.
func (c *Cluster) newLease(ctx context.Context, release, namespace, run string) (*lease, error) {
	// Renewing goes on while what was begun is taken back after a cancellation.
	s, err := c.open(context.WithoutCancel(ctx), namespace)
	if err != nil {
		return nil, err
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown" // it is for people; the run makes the holder unique
	}
	return &lease{
		client: s.clientset.CoordinationV1().Leases(namespace), release: release, namespace: namespace,
		holder: fmt.Sprintf("%s/%d/%s", host, os.Getpid(), run), times: c.lease, log: c.log,
	}, nil
}

func (l *lease) name() string {
	if l.bundle {
		return statePrefix + l.release
	}
	return leasePrefix + l.release
}

// take takes the lease and begins to renew it. If somebody holds it, take
// watches it. Any change says that the holder is alive, or was until a moment
// ago, so that what the caller knows about the release is out of date: a
// *[BusyError]. If nothing changes for the whole duration, by the timers of this
// process, the holder is dead and the lease is taken from it.
func (l *lease) take(ctx context.Context) error {
	var seen *coordinationv1.Lease
	var expired <-chan time.Time
	for {
		now, err := l.client.Get(ctx, l.name(), metav1.GetOptions{})
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case apierrors.IsNotFound(err) && seen != nil:
			return l.busy(seen)
		case apierrors.IsNotFound(err):
			return l.write(ctx, nil)
		case err != nil:
			return l.failed(err)
		case seen != nil && changed(seen, now):
			return l.busy(now)
		case holderOf(now) == "" || holderOf(now) == l.holder:
			return l.write(ctx, now)
		case seen == nil:
			seen = now
			l.log.InfoContext(ctx, "another install holds the release; watching whether it is alive",
				"release", l.release, "namespace", l.namespace, "holder", holderOf(now))
			timer := time.NewTimer(max(l.times.duration, stated(now)))
			defer timer.Stop()
			expired = timer.C
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-expired:
			l.log.WarnContext(ctx, "the install that held the release is dead", "release", l.release, "namespace", l.namespace, "holder", holderOf(now))
			return l.write(ctx, now)
		case <-time.After(l.times.poll):
		}
	}
}

// write puts this process into the lease, which was as given or did not exist,
// and starts the keeper.
func (l *lease) write(ctx context.Context, was *coordinationv1.Lease) error {
	// A cancellation does not cut it off: it would not be known who has the lease.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.times.attempt)
	defer cancel()
	expiry := time.NewTimer(l.times.grace) // from before the request
	now := metav1.NowMicro()               // for people: nothing is concluded from it, only from its changes
	seconds := int32((l.times.duration + time.Second - 1) / time.Second)
	spec := coordinationv1.LeaseSpec{
		HolderIdentity: &l.holder, LeaseDurationSeconds: &seconds, AcquireTime: &now, RenewTime: &now, LeaseTransitions: new(int32),
	}
	var err error
	if was == nil {
		l.mine, err = l.client.Create(ctx, &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Name: l.name()}, Spec: spec,
		}, metav1.CreateOptions{FieldManager: userAgent})
	} else {
		if was.Spec.LeaseTransitions != nil {
			*spec.LeaseTransitions = *was.Spec.LeaseTransitions + 1
		}
		next := was.DeepCopy() // with its version: only this very lease is replaced
		next.Spec = spec
		l.mine, err = l.client.Update(ctx, next, metav1.UpdateOptions{FieldManager: userAgent})
	}
	if apierrors.IsAlreadyExists(err) || apierrors.IsConflict(err) || (apierrors.IsNotFound(err) && was != nil) {
		// Somebody was quicker, if it was not this process, without an answer.
		now, getErr := l.client.Get(ctx, l.name(), metav1.GetOptions{})
		if getErr != nil || holderOf(now) != l.holder {
			expiry.Stop()
			return l.busy(now)
		}
		l.mine, err = now, nil
	}
	if err != nil {
		expiry.Stop()
		return l.failed(err)
	}
	k := &keeper{ended: make(chan struct{}), lost: make(chan struct{})}
	ctx, k.stop = context.WithCancel(context.WithoutCancel(ctx))
	l.keeper = k
	go func() {
		defer close(k.ended)
		l.keep(ctx, k, expiry)
	}()
	return nil
}

// keep renews the lease until ctx ends or the lease is lost, which is when expiry
// fires.
func (l *lease) keep(ctx context.Context, k *keeper, expiry *time.Timer) {
	lose := func(err error) {
		l.log.WarnContext(ctx, "the lease of the release is lost", "release", l.release, "namespace", l.namespace, "error", err)
		k.cause = &LeaseError{Lease: l.name(), Namespace: l.namespace, Lost: true, Err: err}
		close(k.lost)
	}
	tick := time.NewTicker(l.times.renewal)
	defer tick.Stop()
	defer func() { expiry.Stop() }()
	err := errors.New("it was not renewed in time")
	for {
		select {
		case <-ctx.Done():
			return
		case <-expiry.C:
			lose(err)
			return
		case <-tick.C:
		}
		next := time.NewTimer(l.times.grace)
		var gone bool
		gone, err = l.renew(ctx)
		switch {
		case ctx.Err() != nil:
			next.Stop()
			return
		case gone:
			next.Stop()
			lose(err)
			return
		case err != nil:
			next.Stop()
		default:
			expiry.Stop()
			expiry = next
		}
	}
}

// renew renews the lease. gone says that it is somebody else's, or was deleted:
// then others may have held it in the meantime, even if they do not any more.
func (l *lease) renew(ctx context.Context) (gone bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, l.times.attempt)
	defer cancel()
	update := func(was *coordinationv1.Lease) error {
		next := was.DeepCopy()
		now := metav1.NowMicro()
		next.Spec.RenewTime = &now
		written, err := l.client.Update(ctx, next, metav1.UpdateOptions{FieldManager: userAgent})
		if err == nil {
			l.mine = written
		}
		return err
	}
	err = update(l.mine)
	if apierrors.IsConflict(err) {
		// Perhaps by an own renewal whose answer was lost.
		var now *coordinationv1.Lease
		if now, err = l.client.Get(ctx, l.name(), metav1.GetOptions{}); err == nil {
			if holderOf(now) != l.holder || now.UID != l.mine.UID {
				return true, fmt.Errorf("it was taken by %q", holderOf(now))
			}
			err = update(now)
		}
	}
	return apierrors.IsNotFound(err), err
}

// retake makes sure that the lease is held, also after it was lost.
func (l *lease) retake(ctx context.Context) error {
	select {
	case <-l.keeper.lost:
	default:
		return nil
	}
	l.keeper.stop()
	<-l.keeper.ended
	return l.take(ctx)
}

// bind returns a context that ends with the lease, too, its cause being a
// *[LeaseError]. cancel must be called.
func (l *lease) bind(ctx context.Context) (bound context.Context, cancel func()) {
	bound, end := context.WithCancelCause(ctx)
	k := l.keeper
	go func() {
		select {
		case <-k.lost:
			end(k.cause)
		case <-bound.Done():
		}
	}()
	return bound, func() { end(nil) }
}

// giveBack stops renewing the lease and deletes it if it is still this
// process's. Where that fails, others have to watch it until it expires.
func (l *lease) giveBack(ctx context.Context) {
	l.keeper.stop()
	<-l.keeper.ended
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*l.times.attempt)
	defer cancel()
	var err error
	for range 3 { // a renewal that was given up may still arrive
		var now *coordinationv1.Lease
		now, err = l.client.Get(ctx, l.name(), metav1.GetOptions{})
		if err == nil && holderOf(now) != l.holder {
			return
		}
		if err == nil {
			err = l.client.Delete(ctx, l.name(), metav1.DeleteOptions{
				Preconditions: &metav1.Preconditions{UID: &now.UID, ResourceVersion: &now.ResourceVersion},
			})
		}
		if !apierrors.IsConflict(err) {
			break
		}
	}
	if err != nil && !apierrors.IsNotFound(err) {
		l.log.WarnContext(ctx, "the lease of the release could not be given back", "release", l.release, "namespace", l.namespace, "error", err)
	}
}

func (l *lease) busy(by *coordinationv1.Lease) error {
	if l.bundle {
		return &BusyError{Bundle: l.release, Namespace: l.namespace, Holder: clean(holderOf(by))}
	}
	return &BusyError{Release: l.release, Namespace: l.namespace, Holder: clean(holderOf(by))}
}

func (l *lease) failed(err error) error {
	// Nobody has the right to create anything in a namespace that is going.
	forbidden := apierrors.IsForbidden(err) && !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause)
	return &LeaseError{Lease: l.name(), Namespace: l.namespace, Forbidden: forbidden, Err: forbid(err)}
}

// leaseHolder is who holds the lease of a release, dead or alive; "" where
// nobody does or that cannot be found out.
func (s *session) leaseHolder(ctx context.Context, release, namespace string) string {
	l, err := s.clientset.CoordinationV1().Leases(namespace).Get(ctx, leasePrefix+release, metav1.GetOptions{})
	if err != nil {
		return ""
	}
	return clean(holderOf(l))
}

func holderOf(l *coordinationv1.Lease) string {
	if l == nil || l.Spec.HolderIdentity == nil {
		return ""
	}
	return *l.Spec.HolderIdentity
}

// stated is the duration that the holder of a lease gave it.
func stated(l *coordinationv1.Lease) time.Duration {
	if l.Spec.LeaseDurationSeconds == nil {
		return 0
	}
	return time.Duration(*l.Spec.LeaseDurationSeconds) * time.Second
}

// changed says that somebody wrote a lease between two looks at it.
func changed(a, b *coordinationv1.Lease) bool {
	return a.UID != b.UID || holderOf(a) != holderOf(b) || !a.Spec.RenewTime.Equal(b.Spec.RenewTime)
}
