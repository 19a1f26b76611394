#!/bin/bash
# The "internet" between the two NATs and the services. The contract is in README.md.
#
#   ADDRESSES  its own address in each network, separated by spaces; Docker names the same address
#              to each network as its gateway
#   ROUTES     NETWORK=ADDRESS ...: which NAT owns which pool of public addresses
set -euo pipefail

for name in ADDRESSES ROUTES; do
	[[ -n ${!name:-} ]] || {
		echo "router: $name is not set; see services/router/README.md" >&2
		exit 2
	}
done

interface_to() {
	ip -o route get "$1" | sed -n 's/.* dev \([^ ]*\).*/\1/p'
}

# No way out: what is addressed to nobody here must not leave through the machine.
ip route del default 2>/dev/null || true
for address in $ADDRESSES; do
	ip address replace "$address/24" dev "$(interface_to "$address")"
done
for route in $ROUTES; do
	ip route replace "${route%=*}" via "${route#*=}"
done

nft -f - <<'RULES'
table ip punch
delete table ip punch
table ip punch {
	# Between public addresses only: this is what proves that two NATs were crossed.
	set crossed {
		type ipv4_addr . ipv4_addr
		flags dynamic
		counter
		size 65536
	}
	chain forward {
		type filter hook forward priority filter; policy accept;
		add @crossed { ip saddr . ip daddr }
	}
}
RULES

echo "router: $ADDRESSES; $ROUTES" >&2
trap 'exit 0' TERM INT
sleep infinity &
wait
