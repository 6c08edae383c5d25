// Package archive reads and writes the bundle file: a plain tar inside a sequence of small
// zstd frames of raw blocks, as docs/format.md describes it byte by byte.
//
// The rule behind it: the file is a pure function of the manifest, the signature slots and the
// blobs. A writer therefore knows every offset before the first byte of payload moves, and a
// reader never decompresses, un-tars or parses an index: it regenerates every framing byte
// from the manifest and compares. There is exactly one valid encoding.
//
// The package proves that bytes are those that a manifest announces. Whether that manifest is
// to be believed is decided in package verify.
package archive
