// Package install is the isolated side: it seeds a registry from a bundle and installs the
// bundle's releases on a cluster.
//
// Everything here takes a *verify.Bundle, so that content whose origin is not proven cannot
// be seeded or installed even by mistake. Nothing is dialled but the registry and the cluster
// that the caller names.
package install
