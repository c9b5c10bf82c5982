#!/usr/bin/env bash
# Lists what this machine lacks for one purpose (build, check, deb, demo, test, bench) and installs it with apt and cargo.
# Asks first when a person sits at the terminal; not when CI is set or YES=1. Changes nothing when nothing is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:/usr/sbin:/sbin"
purpose="${1:?usage: scripts/setup.sh build|check|deb|demo|test|bench}"

# command:package, for apt
build=(cc:build-essential protoc:protobuf-compiler descriptor.proto:libprotobuf-dev)
demo=(ip:iproute2 ping:iputils-ping nft:nftables iperf3:iperf3 wireguard-go:wireguard-go wg:wireguard-tools tcpdump:tcpdump)
manifests=(python3:python3 ensurepip:python3-venv)
lab=(etcd:etcd-server etcdctl:etcd-client conntrack:conntrack ethtool:ethtool)
cni=(cni-plugins:containernetworking-plugins iptables-nft-restore:iptables ipset:ipset)
# command:crate, for cargo
crates=()

case "$purpose" in
build) wanted=("${build[@]}") ;;
check) wanted=("${build[@]}") crates=(cargo-deny:cargo-deny) ;;
# The version with which the package was made and looked at.
deb) wanted=("${build[@]}" dpkg-deb:dpkg) crates=(cargo-deb:cargo-deb@3.8.0) ;;
demo) wanted=("${build[@]}" "${demo[@]}") ;;
test) wanted=("${build[@]}" "${demo[@]}" "${lab[@]}" "${cni[@]}" "${manifests[@]}") crates=(boringtun-cli:boringtun-cli) ;;
bench) wanted=("${build[@]}" "${demo[@]}" "${lab[@]}" cmake:cmake) crates=(boringtun-cli:boringtun-cli gotatun:gotatun-cli) ;;
*) echo "setup: '$purpose' is none of build, check, deb, demo, test, bench" >&2 && exit 64 ;;
esac

user_has() {
    case "$1" in
    # What protoc imports by itself, in the folder where it looks.
    descriptor.proto) [ -e "$(dirname "$(command -v protoc || echo /usr/bin/protoc)")/../include/google/protobuf/$1" ] ;;
    # Debian keeps them out of every PATH.
    cni-plugins) [ -x /usr/lib/cni/bridge ] ;;
    # Debian keeps it apart from Python itself.
    ensurepip) python3 -c "import ensurepip" 2>/dev/null ;;
    *) command -v "$1" >/dev/null || [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/$1" ] ;;
    esac
}

scripts/as-user.sh bash -c 'command -v cargo >/dev/null' ||
    { echo "setup: cargo is missing: install Rust from https://rustup.rs, or the packages cargo and rustc where they are 1.95 or newer" >&2 && exit 2; }

packages=() installs=()
for pair in "${wanted[@]}"; do user_has "${pair%%:*}" || packages+=("${pair##*:}"); done
for pair in "${crates[@]:-}"; do [ -z "$pair" ] || user_has "${pair%%:*}" || installs+=("${pair##*:}"); done
manifest_tools() { [ "$purpose" != test ] || scripts/as-user.sh scripts/manifest-tools.sh; }
if [ ${#packages[@]} -eq 0 ] && [ ${#installs[@]} -eq 0 ]; then
    manifest_tools
    exit 0
fi

[ ${#packages[@]} -eq 0 ] || echo "setup: missing, from apt: ${packages[*]}"
[ ${#installs[@]} -eq 0 ] || echo "setup: missing, from crates.io (cargo install): ${installs[*]}"
if [ -t 0 ] && [ -z "${CI:-}" ] && [ "${YES:-}" != 1 ]; then
    read -r -p "Install them now? [Y/n] " answer
    case "$answer" in "" | y | Y | yes) ;; *) echo "setup: nothing was installed" >&2 && exit 1 ;; esac
fi

if [ ${#packages[@]} -gt 0 ]; then
    command -v apt-get >/dev/null ||
        { echo "setup: no apt-get here: install these with your package manager: ${packages[*]}" >&2 && exit 2; }
    scripts/as-root.sh apt-get update -qq
    # Debian starts etcd on installation; nobody asked for that.
    scripts/as-root.sh env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}"
    case " ${packages[*]} " in *" etcd-server "*)
        [ ! -d /run/systemd/system ] || scripts/as-root.sh systemctl disable --now etcd.service
        ;;
    esac
fi
for crate in "${installs[@]:-}"; do
    # Unoptimised where only a verdict is wanted, since it builds in a third of the time; optimised where it is measured.
    case "$crate" in
    "") ;;
    cargo-deny | cargo-deb@*) scripts/as-user.sh cargo install --locked --debug "$crate" ;;
    *) scripts/as-user.sh cargo install --locked "$crate" ;;
    esac
done
manifest_tools
