// Package chart reads Helm charts, renders them, and finds and rewrites the
// images in what they render. Together with internal/release it is the only
// door to Helm.
//
// # What travels
//
// A [Chart] is its archive: the exact bytes that go into a bundle. The bytes of
// a .tgz are never changed, so a digest or a provenance file that somebody
// recorded stays valid. A chart directory is packaged here, in a way that
// depends on nothing but the files (see [Load]).
//
// # Nothing leaves the process
//
// Rendering is offline: no cluster, no network, no home directory, no
// environment. Where Helm would reach out (remote references of a
// values.schema.json, DNS look-ups of templates), this package does not; see
// [Chart.CheckValues] for what a remote schema means.
//
// # One walker
//
// [FindImages] on the connected side and [RewriteImages] on the isolated side
// walk the same nodes by the same rules, so that what was not packed cannot be
// referred to after rewriting, and the other way round. Rewriting changes the
// bytes of the rewritten scalars and no others wherever that is possible; the
// result is read again and compared before it is returned.
package chart
