// Package release installs, upgrades and takes back Helm releases on a cluster.
// Together with internal/chart it is the only door to Helm and to client-go.
//
// # Cancellation
//
// Helm's own RunWithContext returns when its context ends while its work goes
// on in the background. Here, when [Cluster.Apply] or [Cluster.Revert] returns,
// nothing of it is still running: the work runs on the caller's goroutine, waits
// end with the context, requests that read are cut off, requests that write run
// to their (bounded) end, and no new ones go out except those that put into the
// release record that the operation failed. So the way back can start at once.
//
// # What goes back
//
// Apply never rolls back by itself; the caller decides, with [Cluster.Revert],
// because it knows about the other releases of the bundle. A revision that was
// deployed is always kept in the history. A way back forces conflicts of
// server-side apply, a way forward never does.
//
// # What is touched
//
// The cluster of the kubeconfig, and nothing else: no Helm directories, no
// environment, no discovery cache on disk, no proxy that the kubeconfig does not
// name. client-go's logging is process-wide; [Connect] sends it to the logger.
package release
