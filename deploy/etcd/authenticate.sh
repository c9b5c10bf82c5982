#!/usr/bin/env bash
# Makes etcd ask for users: the administrator `root`, whose password is in a file, then authentication. May be run again.
#   ETCDCTL_ENDPOINTS, ETCDCTL_CACERT, ETCDCTL_CERT, ETCDCTL_KEY   how etcd is reached, as etcdctl reads them
#   authenticate.sh PASSWORD_FILE
# Makes no user of a node: `warren cluster add-node` does. Never prints the password nor gives it on a command line.
set -euo pipefail
[ $# = 1 ] && [ -s "$1" ] || { echo "usage: authenticate.sh PASSWORD_FILE (not empty)" >&2; exit 64; }
export ETCDCTL_API=3
password=$(<"$1")
as_root() { ETCDCTL_USER="root:$password" etcdctl "$@"; }

if ! users=$(as_root user list); then
    echo "etcd at ${ETCDCTL_ENDPOINTS:-127.0.0.1:2379} does not let root look: is it reachable, and $1 right?" >&2
    exit 2
fi
grep -qx root <<<"$users" || as_root user add --interactive=false root <<<"$password"
as_root user grant-role root root
as_root auth enable
as_root user get root >/dev/null || { echo "authentication is on, but root has another password than $1 says" >&2; exit 2; }
