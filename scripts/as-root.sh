#!/usr/bin/env bash
# Runs a command as root: as it is where we are root already, else through sudo.
set -euo pipefail
if [ "$(id -u)" = 0 ]; then
    exec "$@"
fi
if ! command -v sudo >/dev/null; then
    echo "needs root, and there is no sudo: run it as root ($*)" >&2
    exit 2
fi
# Through env, because sudo has a path of its own.
exec sudo --preserve-env env "PATH=$PATH:/usr/sbin:/sbin" "$@"
