#!/bin/sh
# Servers that tests and benchmarks use; root (a container, CI) gets them from Debian's packages.
# Usage: servers.sh [PROGRAM=PACKAGE ...]; without any, what the tests use: Redis and openssl,
# and in CI for Kafka Java, Maven (which fetches it) and kcat, and what reads systemd's units.
if [ $# = 0 ]; then
    set -- redis-server=redis-server openssl=openssl
    [ "$CI" = true ] && set -- "$@" java=default-jre-headless mvn=maven kcat=kcat npm=npm systemd-analyze=systemd
fi
packages=
for pair in "$@"; do
    command -v "${pair%%=*}" >/dev/null || packages="$packages ${pair#*=}"
done
[ -z "$packages" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing$packages"
    # a package that starts its server at once would leave one running that nobody asked for
    [ -e /usr/sbin/policy-rc.d ] || {
        printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
        chmod +x /usr/sbin/policy-rc.d
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    }
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086
    { apt-get update && apt-get install -y $packages; } >/dev/null 2>&1
fi
for pair in "$@"; do
    command -v "${pair%%=*}" >/dev/null && continue
    echo "not installed: ${pair%%=*}" >&2
    [ "$CI" = true ] && exit 1
done
exit 0
