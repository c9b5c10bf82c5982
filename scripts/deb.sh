#!/usr/bin/env bash
# Makes the Debian package out of what `make build` built, and looks into it: every file that belongs there with its mode, no
# other, and a program that says the package's version of itself. Prints where it is.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -1)

mkdir -p "$target/debian"
rm -f "$target"/debian/*.deb
cargo deb --no-build --quiet -p warren -o "$target/debian/"
package=$(echo "$target"/debian/*.deb)

wanted=$(sort <<'FILES'
-rwxr-xr-x ./usr/bin/warren
-rwxr-xr-x ./usr/lib/cni/warren-gate
-rw-r--r-- ./usr/lib/NetworkManager/conf.d/90-warren.conf
-rw-r--r-- ./usr/lib/sysctl.d/90-warren.conf
-rw-r--r-- ./usr/lib/systemd/network/10-warren.network
-rw-r--r-- ./usr/lib/systemd/networkd.conf.d/90-warren.conf
-rw-r--r-- ./usr/lib/systemd/system/warren-guard.service
-rw-r--r-- ./usr/lib/systemd/system/warren.service
FILES
)
files=$(dpkg-deb --contents "$package" | awk '$1 !~ /^d/ && $2 == "0/0" { print $1, $6 }')
difference=$(diff <(echo "$wanted") <(echo "$files" | grep -v ' ./usr/share/doc/warren/' | sort)) ||
    { echo "deb: what is in $package is not what scripts/deb.sh lists:" >&2; echo "$difference" >&2; exit 1; }
pages=$({ echo copyright; echo warren.toml; ls docs/*.md | xargs -n 1 basename; } | sed 's#^#-rw-r--r-- ./usr/share/doc/warren/#' | sort)
difference=$(diff <(echo "$pages") <(echo "$files" | grep ' ./usr/share/doc/warren/' | sort)) ||
    { echo "deb: the pages in $package are not those of docs/:" >&2; echo "$difference" >&2; exit 1; }
[ "$(dpkg-deb --field "$package" Version)" = "$version-1" ] || { echo "deb: $package is not of version $version" >&2; exit 1; }
dpkg-deb --field "$package" Depends | grep -q nftables || { echo "deb: $package does not depend on nftables" >&2; exit 1; }

unpacked=$(mktemp -d)
trap 'rm -rf "$unpacked"' EXIT
dpkg-deb --extract "$package" "$unpacked"
said=$("$unpacked/usr/bin/warren" version)
[ "$said" = "warren $version" ] || { echo "deb: the program in $package says '$said'" >&2; exit 1; }
echo "$package"
