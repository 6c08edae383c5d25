// Package bundle is the connected side: it reads the spec, resolves what it asks for to
// digests, finds the images of charts by rendering them, and packs all of it into one bundle
// file.
//
// The flow is LoadSpec, Resolve, Pack. Resolve fetches only what it needs to know sizes and
// digests (image manifests, indexes, configs); the manifest of the bundle is complete, and
// signed, before the first layer moves. Pack then fetches each unique blob once and writes it
// once, into its final place.
package bundle
