#!/bin/bash
# A NAT between a private network and a public one. The contract is in README.md beside this file.
#
#   nat.sh [--rules]   --rules: only make them anew, as the environment says now
set -euo pipefail

fail() {
	echo "nat: $*" >&2
	exit 2
}

for name in INSIDE_NET INSIDE_GATEWAY INSIDE_POOL OUTSIDE_ROUTER OUTSIDE_POOL SERVICES_NET; do
	[[ -n ${!name:-} ]] || fail "$name is not set; see services/nat/README.md"
done
mapping=${MAPPING:-preserve} filtering=${FILTERING:-dependent} unsolicited=${UNSOLICITED:-drop}
least_ttl=${LEAST_TTL:-0} swallows=${SWALLOWS:-0} rate=${RATE:-0} burst=${BURST:-0}
for number in "$least_ttl" "$swallows" "$rate" "$burst"; do
	[[ $number =~ ^[0-9]+$ ]] || fail "$number is no number; see services/nat/README.md"
done

interface_to() { # the interface of the route to $1, an address or a network
	ip -o -4 route "$@" | sed -n '1s/.* dev \([^ ]*\).*/\1/p'
}
inside=$(interface_to show "$INSIDE_NET")
outside=$(interface_to get "$OUTSIDE_ROUTER")
[[ -n $inside && -n $outside && $inside != "$outside" ]] ||
	fail "no interface for $INSIDE_NET ($inside) or for $OUTSIDE_ROUTER ($outside)"

host_map() { # "A : B, ..." for each address of pool $1 and its counterpart in pool $2, within a /24
	local bits=${1#*/} from=${1%/*} to=${2%/*} i
	for ((i = 0; i < 1 << (32 - bits); i++)); do
		echo "${from%.*}.$((${from##*.} + i)) : ${to%.*}.$((${to##*.} + i)),"
	done
}

# Docker hands this address to the private network as its gateway; it must not be anyone's static
# address, so the NAT takes it itself.
ip address replace "$INSIDE_GATEWAY/24" dev "$inside"
ip route replace default via "$OUTSIDE_ROUTER" dev "$outside"
# The NAT does not own the pool: it sends it to the router, which sends it back. So two machines
# behind this NAT meet as if each had its own.
ip route replace "$OUTSIDE_POOL" via "$OUTSIDE_ROUTER" dev "$outside"

case $mapping in
preserve) snat="snat ip prefix to ip saddr map { $INSIDE_POOL : $OUTSIDE_POOL }" ;;
random)
	# `fully-random` with a prefix map would scramble the address too: one entry a host.
	snat="snat to ip saddr map { $(host_map "$INSIDE_POOL" "$OUTSIDE_POOL") } fully-random"
	;;
*) fail "MAPPING=$mapping is not known: preserve or random" ;;
esac

case $filtering in
dependent) dnat= ;;
independent) dnat="iifname $outside dnat ip prefix to ip daddr map { $OUTSIDE_POOL : $INSIDE_POOL }" ;;
*) fail "FILTERING=$filtering is not known: dependent or independent" ;;
esac

case $unsolicited in
drop) refuse="drop" ;;
rst) refuse="reject with tcp reset" ;;
icmp) refuse="reject with icmp port-unreachable" ;;
*) fail "UNSOLICITED=$unsolicited is not known: drop, rst or icmp" ;;
esac

# A SYN with a low TTL is eaten before the NAT sees it.
eaten=""
((least_ttl == 0)) || eaten="iifname $inside tcp flags syn / syn,ack ip ttl < $least_ttl counter drop"

# Between the nodes, not on the way to the services: those are TCP connections of their own kind.
between="meta l4proto tcp ct original ip daddr != $SERVICES_NET"
swallowed=""
((swallows == 0)) || swallowed="$between ct bytes > $swallows counter drop"

# For each address inside, and for each direction.
paced_out="" paced_in=""
if ((rate > 0)); then
	bucket="limit rate over $rate mbytes/second burst $burst mbytes"
	paced_out="iifname $inside update @sent { ip saddr $bucket } counter drop"
	paced_in="oifname $inside update @received { ip daddr $bucket } counter drop"
fi

nft -f - <<RULES
table ip punch
delete table ip punch
table ip punch {
	# What crossed, in bytes and packets for each source and destination. From the inside the
	# source is a private address, from the outside the destination is.
	set crossed {
		type ipv4_addr . ipv4_addr
		flags dynamic
		counter
		size 65536
	}
	set refused {
		type ipv4_addr . ipv4_addr
		flags dynamic
		counter
		size 65536
	}
	set sent {
		type ipv4_addr
		flags dynamic
		size 256
	}
	set received {
		type ipv4_addr
		flags dynamic
		size 256
	}
	chain raw {
		type filter hook prerouting priority raw;
		$eaten
	}
	chain unsolicited {
		add @refused { ip saddr . ip daddr }
		meta l4proto tcp $refuse
		drop
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
		# A connection that the NAT has forgotten: on AWS it is reset.
		iifname $inside ct state invalid tcp flags ack / syn,rst,ack reject with tcp reset
		ct state invalid drop
		$swallowed
		$paced_out
		$paced_in
		# An address of the pool that no connection explains comes from the outside and, by the
		# route above, would leave there again.
		iifname $outside oifname $outside jump unsolicited
		add @crossed { ip saddr . ip daddr }
		accept
	}
	chain prerouting {
		type nat hook prerouting priority dstnat;
		$dnat
	}
	chain postrouting {
		type nat hook postrouting priority srcnat;
		oifname $outside $snat
	}
}
RULES

echo "nat: $INSIDE_POOL behind $OUTSIDE_POOL, mapping $mapping, filtering $filtering," \
	"unsolicited $unsolicited, least TTL $least_ttl, swallows after $swallows," \
	"$rate MB/s after $burst MB" >&2
[[ ${1:-} != --rules ]] || exit 0
trap 'exit 0' TERM INT
sleep infinity &
wait
