#!/bin/bash
# A STUN server (RFC 8489) on two addresses, over UDP and TCP. The contract is in README.md.
set -euo pipefail

for name in STUN_ADDRESS STUN_ADDRESS_2; do
	[[ -n ${!name:-} ]] || {
		echo "stun: $name is not set; see services/stun/README.md" >&2
		exit 2
	}
done

# The second address is added by a one-shot container in this network namespace, the only one of
# the two that may do so.
until [[ -n $(ip -o address show to "$STUN_ADDRESS_2") ]]; do
	sleep 0.05
done

exec turnserver --stun-only --listening-ip="$STUN_ADDRESS" --listening-ip="$STUN_ADDRESS_2" \
	--listening-port="${STUN_PORT:-3478}" --no-tls --no-dtls --no-cli --no-multicast-peers \
	--log-file=stdout --pidfile=/tmp/turnserver.pid --userdb=/tmp/turndb
