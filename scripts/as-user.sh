#!/usr/bin/env bash
# Runs a command as the person who called, also under sudo: what is built must not belong to root.
set -euo pipefail
if [ "$(id -u)" = 0 ] && [ -n "${SUDO_USER:-}" ] && [ "$SUDO_USER" != root ]; then
    # A login shell, because rustup puts cargo on the path of those only.
    exec sudo -u "$SUDO_USER" -H --preserve-env=CI,YES,CARGO_TARGET_DIR,CARGO_TERM_COLOR bash -lc 'exec "$@"' bash "$@"
fi
exec "$@"
