#!/usr/bin/env bash
# The whole journey on one machine: pack, carry, refuse what is forged, seed, plan; with
# KUBECONFIG set, install. 'make demo' runs it. It needs Go and nothing else, changes nothing
# outside a temporary directory, and removes that at the end.
#
#   SEALIFT=PATH        the binary to show (default: built for the occasion)
#   KUBECONFIG=PATH     install on this cluster too; its nodes must be able to pull from the
#   DEMO_REGISTRY=HOST  site's registry, which is on this machine's loopback: name another one
#                       for the installation where they cannot
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/sealift-demo.XXXXXX")
vendor_pid='' site_pid=''

# stop PID ends a registry and waits for its end.
stop() { if kill "$1" 2>/dev/null; then wait "$1" || true; fi; }

cleanup() {
	status=$?
	trap - EXIT INT TERM
	for pid in $vendor_pid $site_pid; do stop "$pid"; done
	rm -rf "$work"
	[ "$status" -eq 0 ] || echo "demo: failed with $status" >&2
	exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# --- tools ---------------------------------------------------------------------------------------

export GOFLAGS="${GOFLAGS:--trimpath -buildvcs=false}" CGO_ENABLED=0
mkdir "$work/bin" "$work/home"
if [ -z "${SEALIFT:-}" ]; then
	(cd "$repo" && go build -ldflags '-s -w' -o "$work/bin/sealift" .)
	SEALIFT=$work/bin/sealift
fi
SEALIFT=$(cd "$(dirname "$SEALIFT")" && pwd)/$(basename "$SEALIFT")
(cd "$repo" && go build -o "$work/bin/" ./testdata/demo/images ./testdata/demo/check)
# images builds the program in the images; with an empty build cache most of that is the standard
# library, for two platforms. Compile it here, with the settings that images uses.
for arch in amd64 arm64; do
	(cd "$repo" && GOFLAGS='' GOEXPERIMENT='' GOAMD64=v1 GOARM64=v8.0 GOOS=linux GOARCH=$arch \
		go build -trimpath -buildvcs=false -o "$work/bin/app-$arch" ./testdata/demo/images/app)
done
SECONDS=0 # what was built is not counted
case ${KUBECONFIG:-} in
'' | /* | *:*) ;;
*) KUBECONFIG=$PWD/$KUBECONFIG ;;
esac

# No docker login, no ~/.kube/config of the user and no record of this machine takes part.
sealift() { HOME=$work/home DOCKER_CONFIG=$work/home "$SEALIFT" "$@"; }
check() { "$work/bin/check" -platform "$platform" "$1"; }
export SEALIFT_PROGRESS=none COSIGN_PASSWORD=demo SEALIFT_STATE=$work/state SEALIFT_CONFIG=$work/config.yaml

say() { printf '\n# %s\n' "$*"; }
show() { printf '$ %s\n' "$*"; }
run() { show "$@" && "$@"; }

# refused CODE COMMAND…: the command must fail, with that exit code and no other.
refused() {
	local want=$1 got=0
	shift
	show "$@"
	"$@" 2>&1 || got=$?
	if [ "$got" -ne "$want" ]; then
		echo "demo: exit code $got, want $want" >&2
		return 1
	fi
	show 'echo $?'
	echo "$got"
}

# serve NAME FLAGS…: start an embedded registry on a free port; sets pid and address.
serve() {
	local name=$1 log=$work/$1.log
	shift
	show "sealift serve --store $name/registry --listen 127.0.0.1:0${1:+ $*} &"
	: >"$log" # so that it is there to be read, however slowly the registry starts
	# Not through the function above: $! has to be the registry, not a shell around it.
	HOME=$work/home "$SEALIFT" serve --store "$name/registry" --listen 127.0.0.1:0 "$@" >"$log" 2>&1 &
	pid=$!
	for _ in $(seq 100); do
		address=$(sed -n 's/^serving .* on //p' "$log")
		[ -z "$address" ] || break
		kill -0 "$pid" 2>/dev/null || break
		sleep 0.1
	done
	cat "$log"
	[ -n "$address" ]
}

# flip FILE OFFSET: change one byte.
flip() {
	local byte
	byte=$(od -An -v -tu1 -j "$2" -N 1 "$1" | tr -d ' \n')
	# shellcheck disable=SC2059 # the format is the byte
	printf "\\$(printf '%03o' $(((byte + 1) % 256)))" | dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null
}

case $(go env GOARCH) in
arm64) platform=linux/arm64 other=linux/amd64 ;;
*) platform=linux/amd64 other=linux/arm64 ;;
esac

cd "$work"
mkdir vendor stick site

# --- the vendor's side ---------------------------------------------------------------------------

say "The vendor's side: a registry with images for two platforms, and a chart."
serve vendor
vendor_pid=$pid vendor=$address
(cd "$repo" && "$work/bin/images" -platforms "$platform,$other" "$vendor") >pushed.txt
cat pushed.txt
cp -R "$repo/testdata/demo/chart" vendor/chart

cat >vendor/values.yaml <<END
image: $vendor/demo/app:1.0.0
migrateImage: $vendor/demo/migrate:1.0.0
END
cat >vendor/sealift.yaml <<END
apiVersion: sealift/v1
kind: Bundle
name: shop
version: 1.0.0
platforms: [$platform]
charts:
  - path: chart
    release: shop
    namespace: shop
    values: [values.yaml]
END
run cat vendor/sealift.yaml vendor/values.yaml

say "A key pair. The public half goes to the site, by another way than the bundles."
show 'export COSIGN_PASSWORD=demo'
run sealift keygen --output-prefix vendor/cosign
cp vendor/cosign.pub site/vendor.pub

say "Pack. The images are found by rendering the chart."
run sealift pack -f vendor/sealift.yaml --key vendor/cosign.key -o stick
run sealift inspect stick/shop-1.0.0.tar.zst --key site/vendor.pub

say "The same on disks that are too small for it, with parity. One disk gets lost on the way."
run sealift split stick/shop-1.0.0.tar.zst --volume-size 1MiB --parity volumes=1 -o disks
rm disks/shop-1.0.0.tar.zst.002
refused 13 sealift verify disks --key site/vendor.pub
run sealift repair disks --key site/vendor.pub -o repaired
run sealift verify disks repaired --key site/vendor.pub

say "Three bundles that a site must not take: one byte changed, not signed, signed by somebody else."
cp stick/shop-1.0.0.tar.zst stick/changed.tar.zst
size=$(wc -c <stick/changed.tar.zst)
flip stick/changed.tar.zst $((size / 2))
run sealift pack -f vendor/sealift.yaml --unsigned -o stick/unsigned.tar.zst
sealift keygen --output-prefix vendor/stranger >/dev/null
run sealift pack -f vendor/sealift.yaml --key vendor/stranger.key -o stick/forged.tar.zst

say "And an old one, which the site must not go back to."
sed 's/^version: 1.0.0/version: 0.9.0/' vendor/sealift.yaml >vendor/old.yaml
run sealift pack -f vendor/old.yaml --key vendor/cosign.key -o stick/old.tar.zst

for image in app:1.0.0 migrate:1.0.0; do
	check "$vendor/demo/$image"
done >vendor.txt

say "The vendor's registry ends here. From now on there is only the stick."
stop "$vendor_pid"
vendor_pid=''

# --- the site's side -----------------------------------------------------------------------------

say "The site's side. Whom to trust is pinned once; the fingerprint is compared by phone, not from the stick."
run sealift trust init --key site/vendor.pub --bundles shop

say "Who signed it, and is every byte as signed?"
run sealift verify stick/shop-1.0.0.tar.zst
refused 13 sealift verify stick/changed.tar.zst
refused 11 sealift verify stick/unsigned.tar.zst
refused 12 sealift verify stick/forged.tar.zst

say "Through a pipe, as a data diode gives it."
show 'cat stick/shop-1.0.0.tar.zst | sealift verify -'
# shellcheck disable=SC2002 # a pipe is meant, not a file
cat stick/shop-1.0.0.tar.zst | sealift verify -

say "A registry for the site, as strict as most are: it refuses an index that names absent images."
serve site --sparse-indexes=false
site_pid=$pid site=$address
refused 20 sealift seed stick/shop-1.0.0.tar.zst --registry "$site"

say "So the operator chooses the index that the vendor made, and signed for, of only what travels."
run sealift seed stick/shop-1.0.0.tar.zst --registry "$site" --index derived

say "Once more: nothing is sent."
run sealift seed stick/shop-1.0.0.tar.zst --registry "$site" --index derived |
	tee again.txt
grep -q 'everything is there already' again.txt

say "What was there before cannot come back: version 0.9.0 is the vendor's, but old. The journal tells what happened."
refused 14 sealift seed stick/old.tar.zst --registry "$site"
run sealift journal show

say "Pull the images back, every byte, with another client. The digests are the vendor's."
for image in app:1.0.0 migrate:1.0.0; do
	check "$site/demo/$image"
done >site.txt
cat vendor.txt site.txt
if [ "$(sed "s, $vendor/, ," vendor.txt)" != "$(sed "s, $site/, ," site.txt)" ]; then
	echo 'demo: the images differ' >&2
	exit 1
fi
echo 'the same'

say "What an installation would do. Images point to the site's registry, pinned by digest."
run sealift install stick/shop-1.0.0.tar.zst --registry "$site" --index derived --dry-run

if [ -n "${KUBECONFIG:-}" ]; then
	say "KUBECONFIG is set: install for real."
	run sealift install stick/shop-1.0.0.tar.zst --registry "${DEMO_REGISTRY:-$site}" --index derived
	say "The release shop/shop stays ('helm uninstall shop --namespace shop' removes it)."
fi

say "Done in $SECONDS s, without what had to be built. Nothing of it stays on this machine but Go's build cache."
