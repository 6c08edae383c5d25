// Package ledger says what a cluster knows about a bundle: what is installed, how it came there, and
// the transaction that is open, step by step.
//
// A [State] is one document in the cluster for each bundle; package release keeps it in a Secret and
// changes it by compare-and-swap. It is written before each step is taken, and after it, so that
// whoever finds it, after a kill at any instant, knows which steps may have been begun.
//
// The package is pure: no cluster, no files, no clock. No value that may be a secret is ever in a
// State; what a site says is kept apart (see [State.Values]).
package ledger
