#!/usr/bin/env bash
# An isolated site on one machine: a registry, containerd, etcd, and Kubernetes with a real kubelet,
# in namespaces of their own. Its network namespace has no way out, and its address 127.0.0.1 is its
# own, not the machine's.
#
#   site.sh check             say what keeps a site from running here; exit 3 if the kernel lacks it,
#                             1 if it can be put right
#   site.sh up NAME [OWNER]   start a site; with OWNER, a process id, it goes when that process ends
#   site.sh exec NAME CMD...  run a command in all namespaces of a site
#   site.sh down NAME         stop a site; nothing remains
#   site.sh sweep             stop the sites whose owner is gone (`up` does that first)
#
# For NAME, the site is in /run/sealift-e2e/NAME (admin.kubeconfig, containerd.sock, certs.d, log/),
# and /run/netns holds two network namespaces: NAME with the site (registry 127.0.0.1:5000, API
# server 127.0.0.1:6443), and NAME-vendor, empty and with loopback only, for the other side.
# Run there what needs only the network:
#
#   nsenter --net=/run/netns/NAME kubectl --kubeconfig /run/sealift-e2e/NAME/admin.kubeconfig get pods -A
#
# How it cleans up: all processes of a site live in one process namespace, whose death kills them,
# and all their mounts in one mount namespace, which ends with them. What they write goes to a /run,
# /var/lib and /var/log of their own, in memory, and what a kubelet sets in /proc/sys to files. Of a
# site that was killed there remain the directory above, the names in /run/netns and empty control
# groups named after it. Nothing else on the machine is touched.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PATH=$PATH:/usr/sbin:/sbin

sites=/run/sealift-e2e
registry=127.0.0.1:5000  # the site's
vendor=127.0.0.1:5555    # the vendor's: the host in the images' original names
pause=$vendor/pause:3.10 # comes with a bundle, as any other image
node_ip=10.99.0.1        # a kubelet does not take a loopback address

die() { echo "site.sh: $*" >&2; exit 1; }

# --- what a site needs ---

check() {
  kernel() { echo "this kernel lacks $*"; exit 3; }
  [ "$(id -u)" = 0 ] || { echo "root is needed"; exit 1; }
  local program kind reply
  for program in containerd runc docker-registry etcd ip nsenter unshare openssl /usr/lib/cni/bridge; do
    command -v "$program" >/dev/null || { echo "$program is missing; run internal/e2e/prepare.sh"; exit 1; }
  done
  for program in kube-apiserver kube-controller-manager kube-scheduler kubelet kubectl; do
    [ -x "$(cluster_bin)/$program" ] || { echo "$program is missing; run internal/e2e/prepare.sh"; exit 1; }
  done

  for kind in net mnt pid; do
    [ -e /proc/self/ns/$kind ] || kernel "$kind namespaces"
  done
  modprobe -q overlay 2>/dev/null || true
  grep -qw overlay /proc/filesystems || kernel "overlayfs"
  [ -n "$(cgroup_roots)" ] || { echo "no control groups are mounted in /sys/fs/cgroup"; exit 1; }
  reply=$(unshare --net --mount --pid --fork --mount-proc true 2>&1) || { echo "namespaces are not permitted: $reply"; exit 1; }
  reply=$(LC_ALL=C unshare --net sh -c 'ip link add name probe0 type veth peer name probe1 && ip link add name probe2 type bridge' 2>&1) ||
    case $reply in
      *"Unknown device type"* | *"not supported"*) kernel "veth or bridge devices: $reply" ;;
      *) echo "network devices are not permitted: $reply"; exit 1 ;;
    esac
}

# cluster_bin prints the directory where prepare.sh leaves the programs of Kubernetes.
cluster_bin() {
  local version
  version=$(sed -n 's|^.*k8s.io/kubernetes \(v[0-9.]*\).*$|\1|p' "$here/cluster/go.mod")
  echo "${SEALIFT_E2E_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sealift-e2e}/$version"
}

# --- processes that may have ended, and whose id may belong to another by now ---

started() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }     # when process $1 started
remember() { echo "$1 $(started "$1")" >"$2"; }                                # ... is written to file $2
alive() {                                                                      # does the process in file $1 run?
  local pid start
  read -r pid start <"$1" 2>/dev/null && [ -n "$start" ] && [ "$(started "$pid")" = "$start" ]
}

# --- control groups: every mounted hierarchy of version 1, or the one of version 2 ---

cgroup_roots() {
  if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    echo /sys/fs/cgroup
  else
    dirname /sys/fs/cgroup/*/cgroup.procs
  fi
}

make_cgroups() {
  local root controller
  for root in $(cgroup_roots); do
    mkdir -p "$root/$1"
    for controller in $(cat "$root/cgroup.controllers" 2>/dev/null); do # version 2 only
      echo "+$controller" >"$root/cgroup.subtree_control" 2>/dev/null || true
    done
  done
}

remove_cgroups() {
  local root
  for root in $(cgroup_roots); do
    [ ! -d "$root/$1" ] || find "$root/$1" -depth -type d -exec rmdir {} + 2>/dev/null || return 1
  done
}

# --- up and down ---

up() {
  local name=${1:?NAME is missing} owner=${2:-} S=$sites/$1 P=$sites/$1/pki
  check >&2
  sweep
  [ ! -e "$S" ] || die "there is a site $name; stop it first: $0 down $name"
  mkdir -p "$S"/{pki,log,certs.d,cni.d,sysctl}
  chmod 700 "$sites" "$S"
  trap '[ $? = 0 ] || { tail -n 15 "$S"/log/*.log; down "$name"; } >&2' EXIT
  if [ -n "$owner" ]; then
    remember "$owner" "$S/owner"
    # Goes with its owner, however that one ends.
    setsid bash -c 'tail --pid="$1" -f /dev/null; exec "$2" down "$3"' - "$owner" "$here/site.sh" "$name" </dev/null >/dev/null 2>&1 &
  fi

  ip netns add "$name-vendor"
  ip -n "$name-vendor" link set lo up
  ip netns add "$name"
  ip -n "$name" link set lo up
  ip -n "$name" link add node0 type veth peer name node1 # both ends inside
  ip -n "$name" addr add "$node_ip/24" dev node0
  ip -n "$name" link set node0 up
  ip -n "$name" link set node1 up
  make_cgroups "$name"
  certificates
  configuration

  setsid nsenter --net="/run/netns/$name" unshare --mount --pid --fork --kill-child --mount-proc \
    "$here/site.sh" init "$name" </dev/null >"$S/log/init.log" 2>&1 &
  remember $! "$S/pid"
  local deadline=$((SECONDS + 120))
  until [ -e "$S/ready" ]; do
    alive "$S/pid" || die "the site did not start"
    [ $SECONDS -lt $deadline ] || die "the site is not ready after two minutes"
    sleep 0.1
  done
}

down() {
  local name=${1:?NAME is missing} S=$sites/$1 pid _ ns deadline=$((SECONDS + 30))
  if [ -e "$S/pid" ] && alive "$S/pid"; then
    read -r pid _ <"$S/pid"
    kill -KILL "$pid" # and with it the site's first process, and with that one all the others
  fi
  for ns in "$name" "$name-vendor"; do
    [ -e "/run/netns/$ns" ] || continue
    while pid=$(ip netns pids "$ns" 2>/dev/null) && [ -n "$pid" ] && [ $SECONDS -lt $deadline ]; do
      # shellcheck disable=SC2086 # a list
      kill -KILL $pid 2>/dev/null || true
      sleep 0.05
    done
    ip netns del "$ns"
  done
  until remove_cgroups "$name" || [ $SECONDS -ge $deadline ]; do sleep 0.05; done
  rm -rf "$S"
  rmdir "$sites" 2>/dev/null || true
}

sweep() {
  local owner
  for owner in "$sites"/*/owner; do
    [ ! -e "$owner" ] || alive "$owner" || down "$(basename "$(dirname "$owner")")"
  done
}

run_inside() {
  local name=${1:?NAME is missing} pid _
  shift
  read -r pid _ <"$sites/$name/pid" || die "there is no site $name"
  exec nsenter --mount="/proc/$pid/ns/mnt" --net="/proc/$pid/ns/net" --pid="/proc/$pid/ns/pid_for_children" "$@"
}

# --- files of a site ---

certificates() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=site \
    -keyout "$P/ca.key" -out "$P/ca.crt" 2>/dev/null
  openssl ecparam -name prime256v1 -genkey -noout -out "$P/accounts.key"
  openssl ec -in "$P/accounts.key" -pubout -out "$P/accounts.pub" 2>/dev/null
  certificate apiserver /CN=kube-apiserver IP:127.0.0.1,IP:10.96.0.1,DNS:localhost
  certificate admin /O=system:masters/CN=admin DNS:admin
  certificate controllers /CN=system:kube-controller-manager DNS:controllers
  certificate scheduler /CN=system:kube-scheduler DNS:scheduler
  certificate kubelet /O=system:nodes/CN=system:node:node1 "DNS:node1,IP:$node_ip"
}

# certificate NAME SUBJECT ADDRESSES makes a key, a certificate, and a kubeconfig that holds them.
certificate() {
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "$2" -keyout "$P/$1.key" -out "$P/$1.csr" 2>/dev/null
  openssl x509 -req -in "$P/$1.csr" -CA "$P/ca.crt" -CAkey "$P/ca.key" -CAcreateserial -days 30 -out "$P/$1.crt" \
    -extfile <(printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth\n' "$3") 2>/dev/null
  cat >"$S/$1.kubeconfig" <<EOK
apiVersion: v1
kind: Config
current-context: site
contexts:
  - {name: site, context: {cluster: site, user: $1}}
clusters:
  - name: site
    cluster: {server: "https://127.0.0.1:6443", certificate-authority-data: $(base64 -w0 "$P/ca.crt")}
users:
  - name: $1
    user: {client-certificate-data: $(base64 -w0 "$P/$1.crt"), client-key-data: $(base64 -w0 "$P/$1.key")}
EOK
}

configuration() {
  # docker-registry as it comes: it refuses an index whose images are not all there.
  cat >"$S/registry.yaml" <<EOK
version: 0.1
log: {level: warn}
storage: {filesystem: {rootdirectory: /var/lib/registry}, delete: {enabled: true}}
http: {addr: "$registry"}
EOK

  # Images with the vendor's names come from the site's registry. `server` says so too: without
  # it containerd would try the vendor's after a 404.
  local host
  for host in $vendor $registry; do
    mkdir "$S/certs.d/$host"
    cat >"$S/certs.d/$host/hosts.toml" <<EOK
server = "http://$registry"
[host."http://$registry"]
  capabilities = ["pull", "resolve"]
EOK
  done
  cat >"$S/registries.conf" <<EOK
[[registry]]
location = "$vendor"
[[registry.mirror]]
location = "$registry"
insecure = true
EOK

  cat >"$S/cni.d/10-site.conflist" <<EOK
{"cniVersion": "0.4.0", "name": "site", "plugins": [
  {"type": "bridge", "bridge": "pods0", "isGateway": true, "ipMasq": false,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}}
]}
EOK

  cat >"$S/containerd.toml" <<EOK
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper"]
[grpc]
  address = "$S/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd-opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "$pause"
  restrict_oom_score_adj = true
  stream_server_port = "0"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "$S/certs.d"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$S/cni.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
EOK

  cat >"$S/kubelet.yaml" <<EOK
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $node_ip
tlsCertFile: $P/kubelet.crt
tlsPrivateKeyFile: $P/kubelet.key
authentication: {anonymous: {enabled: false}, webhook: {enabled: false}, x509: {clientCAFile: $P/ca.crt}}
authorization: {mode: AlwaysAllow}
containerRuntimeEndpoint: unix://$S/containerd.sock
clusterDNS: [10.96.0.10] # nobody answers there; without one the events are full of complaints
resolvConf: ""
cgroupDriver: cgroupfs
cgroupRoot: /$name
failCgroupV1: false
volumePluginDir: /var/lib/flexvolume
enforceNodeAllocatable: []
failSwapOn: false
oomScoreAdj: 0
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%, nodefs.inodesFree: 1%}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
serializeImagePulls: false
EOK
}

# --- inside: the first process of the site's process namespace ---

init() {
  local name=$1 S=$sites/$1 P=$sites/$1/pki bin
  bin=$(cluster_bin)
  private_files
  export TMPDIR=/var/lib/tmp
  declare -A programs=()

  start registry docker-registry serve "$S/registry.yaml"
  start containerd containerd --config "$S/containerd.toml"
  start etcd etcd --data-dir /var/lib/etcd --unsafe-no-fsync --log-level error
  start apiserver "$bin/kube-apiserver" --etcd-servers=http://127.0.0.1:2379 \
    --bind-address=127.0.0.1 --secure-port=6443 --advertise-address=$node_ip --endpoint-reconciler-type=none \
    --service-cluster-ip-range=10.96.0.0/16 --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction \
    --tls-cert-file="$P/apiserver.crt" --tls-private-key-file="$P/apiserver.key" --client-ca-file="$P/ca.crt" \
    --service-account-issuer=https://kubernetes.default.svc \
    --service-account-key-file="$P/accounts.pub" --service-account-signing-key-file="$P/accounts.key" \
    --kubelet-client-certificate="$P/admin.crt" --kubelet-client-key="$P/admin.key" \
    --kubelet-certificate-authority="$P/ca.crt" --kubelet-preferred-address-types=InternalIP
  local kubectl=("$bin/kubectl" --kubeconfig "$S/admin.kubeconfig" --cache-dir /var/lib/kubectl)
  until "${kubectl[@]}" get --raw /readyz >/dev/null 2>&1; do running; done
  # Without an account for each controller, the one of Jobs makes no pods.
  start controllers "$bin/kube-controller-manager" --kubeconfig="$S/controllers.kubeconfig" --leader-elect=false --secure-port=0 \
    --root-ca-file="$P/ca.crt" --service-account-private-key-file="$P/accounts.key" --use-service-account-credentials=true \
    --flex-volume-plugin-dir=/var/lib/flexvolume
  start scheduler "$bin/kube-scheduler" --kubeconfig="$S/scheduler.kubeconfig" --leader-elect=false --secure-port=0
  start kubelet "$bin/kubelet" --config="$S/kubelet.yaml" --kubeconfig="$S/kubelet.kubeconfig" \
    --hostname-override=node1 --node-ip=$node_ip
  until "${kubectl[@]}" wait --for=condition=Ready node/node1 --timeout=5s >/dev/null 2>&1; do running; done
  until "${kubectl[@]}" get serviceaccount default >/dev/null 2>&1; do running; done

  touch "$S/ready"
  while running; do :; done
}

# private_files gives the site its own /run, /var/lib and /var/log, and the sysctls that a kubelet
# wants, without setting those of the machine. Each tmpfs is mounted at one place only: of two places
# a kubelet would take any, and fail where that one is hidden.
private_files() {
  local setting key
  mount -n -t tmpfs -o mode=755 site /var/log
  mount -n -t tmpfs -o mode=755 site /var/lib
  mkdir /var/lib/state
  mount -n --bind "$S" /var/lib/state # it is below /run, and stays visible there
  mount -n -t tmpfs -o mode=755 site /run
  mkdir -p "$S"
  mount --move /var/lib/state "$S"
  mkdir -p /var/lib/{registry,tmp}
  for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
    kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
    key=${setting%=*}
    [ -e "/proc/sys/$key" ] || continue
    echo "${setting#*=}" >"$S/sysctl/${key//\//.}"
    mount --bind "$S/sysctl/${key//\//.}" "/proc/sys/$key"
  done
}

# start NAME COMMAND... starts one of the programs that make up the site.
start() {
  local program=$1
  shift
  "$@" >"$S/log/$program.log" 2>&1 &
  programs[$!]=$program
}

# running waits a moment, and ends the site where one of its programs has ended.
running() {
  local pid
  sleep 0.1
  for pid in "${!programs[@]}"; do
    kill -0 "$pid" 2>/dev/null || die "${programs[$pid]} ended; see $S/log/${programs[$pid]}.log"
  done
}

case ${2:-} in
  *[!a-z0-9-]*) die "a site's name is made of small letters, digits and hyphens" ;;
esac
case ${1:-} in
  check | up | down | sweep | init) "$@" ;;
  exec) shift; run_inside "$@" ;;
  *) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 1 ;;
esac
