# Run by the Dockerfile in each of its stages: takes Debian's packages as they were at that moment, 20261101T000000Z, or,
# where none is given, as they are. The archive's own signatures hold as ever; only their dates do not, since it is past.
snapshot=$1
sources=${2:-/etc/apt}
[ -n "$snapshot" ] || exit 0
case "$snapshot" in
    [0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]T[0-9][0-9][0-9][0-9][0-9][0-9]Z) ;;
    *) echo "SNAPSHOT is '$snapshot': a moment looks like 20261101T000000Z" >&2; exit 64 ;;
esac
sed -i -E "s#^URIs: http://deb\.debian\.org/(debian[a-z-]*)#URIs: http://snapshot.debian.org/archive/\1/$snapshot/#" \
    "$sources/sources.list.d/debian.sources"
grep -q "^URIs: http://snapshot.debian.org/" "$sources/sources.list.d/debian.sources"
if grep -q "^URIs: http://deb.debian.org/" "$sources/sources.list.d/debian.sources"; then exit 1; fi
echo 'Acquire::Check-Valid-Until "false";' > "$sources/apt.conf.d/10-snapshot"
