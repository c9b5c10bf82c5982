#!/usr/bin/env bash
# Builds the agent of an older commit, or of the last tag, into the folder `old` of cargo's target folder: in a working tree
# of its own, which stays there for the next time. Touches nothing of this working tree.
set -euo pipefail
cd "$(dirname "$0")/.."
old="${1:-$(git describe --tags --abbrev=0 2>/dev/null || true)}"
[ -n "$old" ] || { echo "old-build: no tag here, so name the version that was before: make interop-old OLD=commit" >&2 && exit 64; }
commit="$(git rev-parse --verify --quiet "$old^{commit}")" ||
    { echo "old-build: there is no commit '$old' here: a tag, a branch or a hash, and a clone with its history" >&2 && exit 64; }

target="$(realpath -m "${CARGO_TARGET_DIR:-target}")/old"
tree="$target/tree"
mkdir -p "$target"
git worktree prune
if [ -e "$tree/.git" ]; then
    git -C "$tree" checkout --quiet --force --detach "$commit"
else
    git worktree add --quiet --force --detach "$tree" "$commit"
fi
(cd "$tree" && CARGO_TARGET_DIR="$target/build" cargo build --locked -p warren)
ln -sf build/debug/warren "$target/warren"
echo "old-build: $(git log -1 --format='%h of %ad: %s' --date=short "$commit")"
