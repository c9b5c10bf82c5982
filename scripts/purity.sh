#!/usr/bin/env bash
# Holds `overlay` to its promise: no operating system, no randomness, no threads and no async below it.
# Reads the tree of its normal dependencies; and builds it for a target without an OS where one is installed.
set -euo pipefail
cd "$(dirname "$0")/.."
forbidden='tokio|mio|libc|nix|rustix|socket2|getrandom|rand|rand_chacha|boringtun|tun-rs|rtnetlink|etcd-client|async-.*|futures.*|crossbeam.*|rayon|tracing.*|log|parking_lot|instant|web-time|chrono|time'

found=$(cargo tree --locked -p warren-overlay -e normal,no-proc-macro --prefix none --format '{p}' | cut -d' ' -f1 | sort -u | grep -xE "$forbidden" || true)
if [ -n "$found" ]; then
    echo "purity: warren-overlay must not depend on: $(echo "$found" | tr '\n' ' ')" >&2
    for crate in $found; do cargo tree --locked -p warren-overlay -e normal -i "$crate" >&2 || true; done
    exit 1
fi
echo "purity: nothing below warren-overlay touches an operating system"

sysroot=$(rustc --print sysroot)
for target in wasm32-unknown-unknown x86_64-unknown-none; do
    [ -d "$sysroot/lib/rustlib/$target" ] || continue
    [ "$target" = wasm32-unknown-unknown ] || continue # the other has no std
    cargo build --locked -p warren-overlay --target "$target"
    echo "purity: warren-overlay builds for $target"
done
