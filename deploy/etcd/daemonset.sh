#!/usr/bin/env bash
# Makes the etcd user that all agents of a DaemonSet share: it writes everything of one Warren cluster, and nothing else.
# That trusts every node, as `node.cidrs = "auto"` does: whoever has its certificate can claim any CIDR. May be run again.
#   ETCDCTL_ENDPOINTS, ETCDCTL_CACERT, ETCDCTL_CERT, ETCDCTL_KEY   how etcd is reached, as etcdctl reads them
#   daemonset.sh PASSWORD_FILE [CLUSTER]                           root's password; the cluster is "default"
# The user has no password: it comes with a client certificate whose common name is warren-daemonset.
set -euo pipefail
if [ $# -lt 1 ] || [ $# -gt 2 ] || [ ! -s "$1" ]; then
    echo "usage: daemonset.sh PASSWORD_FILE [CLUSTER]" >&2
    exit 64
fi
export ETCDCTL_API=3
password=$(<"$1") cluster=${2:-default} name=warren-daemonset
as_root() { ETCDCTL_USER="root:$password" etcdctl "$@"; }

roles=$(as_root role list) users=$(as_root user list)
grep -qx "$name" <<<"$roles" || as_root role add "$name"
as_root role grant-permission --prefix "$name" readwrite "/warren/$cluster/v1/"
grep -qx "$name" <<<"$users" || as_root user add --no-password "$name"
as_root user grant-role "$name" "$name"
