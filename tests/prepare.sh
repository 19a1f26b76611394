#!/usr/bin/env bash
# What the tests need beside Python: installs it where that can be done without a question, else
# says what to install.   usage: tests/prepare.sh [e2e]
set -euo pipefail

# command:Debian package
needed=(turnserver:coturn gawk:gawk socat:socat ip:iproute2 nft:nftables unshare:util-linux
    pgrep:procps tc:iproute2 conntrack:conntrack file:file bc:bc jq:jq col:bsdextrautils)
[ "${1:-}" != e2e ] || needed+=(docker:docker.io mmdebstrap:mmdebstrap
    docker-registry:docker-registry)

missing=()
for pair in "${needed[@]}"; do
    PATH="$PATH:/usr/sbin:/sbin" command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
done
# A browser, for the page of `punch report` (100 MB to fetch, 306 MB on disk). Not every distribution
# packs one; without it those tests are skipped, but not in CI.
browser=chromium-headless-shell
if grep -qs '^ID=debian' /etc/os-release && ! command -v $browser chromium >/dev/null; then
    missing+=($browser)
fi
[ ${#missing[@]} -gt 0 ] || exit 0

sudo=()
if [ "$(id -u)" != 0 ]; then
    sudo=(sudo -n)
    sudo -n true 2>/dev/null || sudo=()
fi
if command -v apt-get >/dev/null && { [ "$(id -u)" = 0 ] || [ ${#sudo[@]} -gt 0 ]; }; then
    echo "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    "${sudo[@]}" apt-get update -qq
    # No service of these is wanted, only the programs.
    "${sudo[@]}" env RUNLEVEL=1 apt-get install -y -qq --no-install-recommends \
        "${missing[@]}" >/dev/null
else
    echo "the tests need: ${missing[*]}" >&2
    echo "  next: sudo apt-get install ${missing[*]}   (or what your system calls them)" >&2
    exit 1
fi
