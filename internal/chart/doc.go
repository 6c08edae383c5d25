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
// [FindImages] and [Discover] on the connected side and [RewriteImages] on the
// isolated side walk the same nodes by the same rules. FindImages has the images
// by their place only, Discover all that may be one, with the way and whether
// it is certain; RewriteImages asks about what both find and can be set. So what
// was not packed cannot be referred to after rewriting, and the other way round.
// What the walker does not see, the chart's own declarations and the values that
// nothing uses, is in [Chart.Declared] and [Chart.UnusedImages].
//
// Rewriting changes the bytes of the rewritten scalars and no others wherever
// that is possible; the result is read again and compared before it is returned.
package chart
