#!/usr/bin/env bash
# Licences, bans and sources of every dependency; and known vulnerabilities where the advisory database can be reached.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo deny --locked check bans licenses sources
if timeout 10 git ls-remote -q https://github.com/RustSec/advisory-db HEAD >/dev/null 2>&1; then
    cargo deny --locked check advisories
else
    echo "deny: advisories were not checked: the advisory database cannot be reached from here"
fi
