#!/usr/bin/env bash
# Makes a machine ready for the end-to-end tier: Debian packages, the programs of Kubernetes, helm and cosign.
#
#   prepare.sh             all of it
#   prepare.sh packages    only the packages (needs root and apt-get where one is missing)
#   prepare.sh cluster     only Kubernetes, built from ./cluster by the go command
#   prepare.sh clients     only helm and cosign, at the versions that the product has as libraries
#
# The built programs stay in ${SEALIFT_E2E_CACHE:-${XDG_CACHE_HOME:-~/.cache}/sealift-e2e}, in VERSION, helm-VERSION
# and cosign-VERSION. A second run finds them there and builds nothing.
set -euo pipefail
# Not the flags of the product: Kubernetes is to be built as it is meant.
export GOFLAGS="-trimpath -buildvcs=false"
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# A program that the site runs, and the Debian package it comes in.
programs=(
  containerd:containerd
  runc:runc
  docker-registry:docker-registry
  etcd:etcd-server
  ip:iproute2
  nsenter:util-linux
  openssl:openssl
  podman:podman
  skopeo:skopeo
  /usr/lib/cni/bridge:containernetworking-plugins
)

missing_packages() {
  local pair
  for pair in "${programs[@]}"; do
    command -v "${pair%%:*}" >/dev/null || echo "${pair##*:}"
  done | sort -u
}

packages() {
  PATH=$PATH:/usr/sbin:/sbin
  local -a missing
  mapfile -t missing < <(missing_packages)
  [ ${#missing[@]} -gt 0 ] || return 0
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "prepare.sh: missing: ${missing[*]}; install them (these are Debian's names)" >&2
    exit 1
  fi
  # Installing must not start containerd, etcd and a registry as services of this machine.
  if [ ! -e /usr/sbin/policy-rc.d ]; then
    printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
    chmod +x /usr/sbin/policy-rc.d
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt-get -qq update
  apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null
  mapfile -t missing < <(missing_packages)
  [ ${#missing[@]} -eq 0 ] || { echo "prepare.sh: still missing: ${missing[*]}" >&2; exit 1; }
}

# begin GO_MOD MODULE PREFIX begins to build what a go.mod requires: it sets version, bin and partial, an empty
# directory that is to become bin. Where that is in the cache already it ends the subshell.
begin() {
  export GOWORK=off CGO_ENABLED=0
  version=$(sed -n "s|^.*$2 \(v[0-9.]*\).*$|\1|p" "$1" | head -n 1)
  cache=${SEALIFT_E2E_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sealift-e2e}
  bin=$cache/$3$version
  mkdir -p "$cache"
  exec 9>"$cache/lock"
  flock 9 # two runs at once build once
  [ ! -d "$bin" ] || exit 0
  partial=$(mktemp -d "$cache/partial.XXXXXX")
  trap 'rm -rf "$partial"' EXIT
}

clients() {
  cosign
  helm
}

cosign() (
  cd "$here/../interop/cosign"
  begin go.mod github.com/sigstore/cosign/v2 cosign-
  echo "building cosign $version into $bin (once; some minutes of one core)" >&2
  go build -o "$partial/cosign" -ldflags "-s -w" .
  mv "$partial" "$bin"
)

helm() (
  begin "$here/../../go.mod" helm.sh/helm/v4 helm-
  echo "building Helm $version into $bin (once; some minutes of one core)" >&2
  cd "$partial" # away from every go.mod: Helm is built with its own
  GOBIN=$partial go install -ldflags "-s -w" "helm.sh/helm/v4/cmd/helm@$version"
  mv "$partial" "$bin"
)

cluster() (
  cd "$here/cluster"
  begin go.mod k8s.io/kubernetes ""
  echo "building Kubernetes $version into $bin (once; about ten minutes of one core)" >&2
  minor=${version#v1.}
  stamp=k8s.io/component-base/version
  # The tool directives of go.mod name the programs.
  go build -trimpath -o "$partial/" \
    -ldflags "-s -w -X $stamp.gitVersion=$version -X $stamp.gitMajor=1 -X $stamp.gitMinor=${minor%%.*}" tool
  mv "$partial" "$bin"
)

case ${1:-all} in
  all) packages; cluster; clients ;;
  packages | cluster | clients) "$1" ;;
  *) sed -n '2,11s/^# \{0,1\}//p' "$0" >&2; exit 1 ;;
esac
