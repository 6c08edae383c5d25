// Package e2e proves the whole journey across a true air gap, on real parts.
//
// It has no code but tests, behind the build tag e2e. They need Linux, root, overlayfs and
// namespaces; prepare.sh gets the rest, once for a machine:
//
//	internal/e2e/prepare.sh
//	go test -tags e2e -count=1 -v ./internal/e2e/
//
// Each test takes one to two minutes, TestLife seven. The first time, prepare.sh builds Kubernetes from source, which takes about ten
// minutes of one core, and helm and cosign at the versions that the product has as libraries (some minutes; the modules
// come from the Go module proxy). From Debian it installs containerd, runc, docker-registry, etcd, podman, skopeo, CNI
// plugins, iproute2 and openssl.
//
// # The two sides
//
// The vendor has a network namespace with loopback only: a docker-registry on 127.0.0.1:5555 holds
// images that are built for the test from testdata/demo. The site has another (site.sh):
// docker-registry on 127.0.0.1:5000, containerd, etcd, and a Kubernetes whose kubelet runs real
// pods. Neither has a route to anywhere. The only thing that they share is the directory into which
// the bundles and the public key are copied, as if on a disk that somebody carried.
//
// # What it proves
//
//   - A bundle packed on one side is everything that the other needs: verify, seed and install work
//     there, for a chart with a Deployment, a Service and a hook Job, and even the cluster's own
//     pause image comes out of the bundle.
//   - A registry that refuses sparse image indexes gets the derived index, by the operator's choice,
//     and a second seed sends nothing.
//   - Pods and hooks run from the site's registry, pinned by digest; a dry run changes nothing.
//   - Of two upgrades or first installations at once, one is done, and the other changes nothing.
//   - An upgrade that fails (pods that never get ready, a hook that fails) or is interrupted leaves the old
//     version running and the release deployed; a first installation that fails leaves nothing in
//     the way of the next one. Claims, and the data behind them, stay in both cases.
//   - containerd and podman pull the images by their original names, digests unchanged.
//   - Without a registry (load_test.go): from a read-only, noexec disk the images go straight into the
//     node's containerd, and pods run from the vendor's own names, by tag and by digest.
//   - What sealift serves, a bundle in place or a store, with TLS and without, with users and without (clients_test.go),
//     is a registry to skopeo, podman, containerd, helm and cosign: by tag, by digest and by platform, by its own
//     address and, through what "sealift mirrors" writes, by the original names, under which pods run, too. What it
//     does not have is asked for nowhere else. A store takes what they push, from those who have the password.
//   - TestLife is the life of what is installed. An installer is killed with SIGKILL after each of its first ten writes, and what it
//     left is taken back, or gone on with; an API server that is away for a while does no harm either (life_kill_test.go,
//     life_operations_test.go). Of three releases the third fails, and all go back (life_fail_test.go). What Helm by itself does
//     wrong is done right (life_traps_test.go): claims and definitions stay, fields and numbers of replicas of others are not
//     taken without being asked for, hooks end before anything goes back, releases of others are refused, and the rights that are
//     printed suffice. A client that asks all the time sees no failed request through blue, green and canary
//     (life_rollout_test.go). Plans are followed exactly, secrets get into nothing that is printed or kept, receipts are proven by
//     cosign, and old versions leave the registry.
//   - Nothing in the site, in all that time, tried to reach an address that it has no route to.
//
// # Where it cannot run
//
// It skips with the reason where a site cannot be built. With CI set in the environment it fails
// instead, unless the kernel itself lacks what it takes. In the same way, what is about a client that is missing is
// skipped, or fails.
package e2e
