# Sourced by the Dockerfile. Out of BUILDARCH and TARGETARCH, as BuildKit names platforms:
#   target    what rustc calls the wanted platform
#   compiler  the C compiler for it, by the name that Debian gives it on every builder
#   packages  what brings that compiler and its headers. Debian has no cross compiler from a platform to itself.
case "$TARGETARCH" in
    amd64) cpu=x86_64 ;;
    arm64) cpu=aarch64 ;;
    *) echo "no rule for the platform '$TARGETARCH': amd64 and arm64 have one" >&2; exit 64 ;;
esac
target=$cpu-unknown-linux-gnu
compiler=$cpu-linux-gnu-gcc
packages="gcc libc6-dev"
[ "$BUILDARCH" = "$TARGETARCH" ] || packages="gcc-$(echo "$cpu" | tr _ -)-linux-gnu libc6-dev-$TARGETARCH-cross"
