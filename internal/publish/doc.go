// Package publish keeps bundles in registries: as OCI artifacts that share their blobs with the
// images there, and from which the very same file comes back (docs/publish.md).
//
// It proves digests and nothing else. Who made a bundle is decided in package verify, of a bundle
// in a registry as of any other.
package publish
