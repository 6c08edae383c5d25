// Package release installs, upgrades and takes back Helm releases on a cluster.
// Together with internal/chart it is the only door to Helm and to client-go.
//
// # One at a time
//
// Who changes a release holds its Lease (coordination.k8s.io/v1), named
// sealift-RELEASE, in the namespace of the release: [Cluster.Begin] takes it
// before the first change, it is renewed six times a minute while the release is
// changed or taken back, and [Operation.End] deletes it. There is no way on
// without it: that it cannot be taken is an error.
//
// Of two that begin at once, one gets the lease. The other watches it: when it
// is renewed or given back, its holder is alive, or was until a moment ago, and
// the other gives up with a *[BusyError] instead of working on a release that is
// not what it was when the plan was made. A holder that was killed gives no sign
// for a minute; then the lease is taken from it. No clocks are compared for
// that: who watches measures, from its own first look, how long nothing changes.
// A holder that could not renew the lease for 45 seconds stops its work by
// itself, and takes the lease again before it takes anything back.
//
// A lease does not hinder who does not ask for it, such as the helm command, nor
// a holder that was suspended with a request under way. So records are told
// apart as well: each that is created bears the label sealift/run, with the run
// that created it. Who creates the record of a revision, of which there can be
// one only, may go on; to lose that, too, is a *[BusyError], with nothing begun.
// An operation works on the history that it saw at its beginning, confirms and
// takes back only what it made itself, and refuses with an *[OvertakenError]
// where a revision of somebody else has appeared.
//
// # Cancellation
//
// Helm's own RunWithContext returns when its context ends while its work goes
// on in the background. Here, when [Operation.Apply] or [Operation.Revert] returns,
// nothing of it is still running: the work runs on the caller's goroutine, waits
// end with the context, requests that read are cut off, requests that write run
// to their (bounded) end, and no new ones go out except those that put into the
// release record that the operation failed. So the way back can start at once.
//
// # What goes back
//
// Apply never rolls back by itself; the caller decides, with [Operation.Revert],
// because it knows about the other releases of the bundle. A revision that was
// deployed is always kept in the history. A way back forces conflicts of
// server-side apply, a way forward does only where it is told to.
//
// What a killed install has left behind is taken back by [Cluster.Recover].
//
// # What is never deleted
//
// Claims, volumes, namespaces and custom resource definitions, neither by an
// upgrade or a way back that drops them nor by an uninstall, whether they bear
// Helm's annotation or not. Helm does not get to see them where it deletes; with
// [Cluster.ProtectData], Helm by itself keeps them, too. The definitions in
// crds/ of a chart are not Helm's business at all: [Cluster.ApplyCRDs] applies
// new versions of them, and keeps the former ones for [Cluster.RestoreCRDs].
//
// # What is touched
//
// The cluster of the kubeconfig, and nothing else: no Helm directories, no
// environment, no discovery cache on disk, no proxy that the kubeconfig does not
// name. client-go's logging is process-wide; [Connect] sends it to the logger.
package release
