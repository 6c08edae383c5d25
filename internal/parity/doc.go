// Package parity makes and uses parity files: Reed-Solomon parity over a bundle file, as
// docs/parity.md describes it byte by byte. With them, a bundle is whole again after sectors
// have died or a volume was lost.
//
// The code is interleaved over the whole file: what is lost together is spread over all
// stripes, so that it does not matter where the file is cut into volumes and where damage lies.
//
// The package repairs damage, it does not prove anything: its checksums find what media and
// transports do to bytes, not what people do. What it restores is to be verified against the
// signed manifest as if it had been read.
package parity
