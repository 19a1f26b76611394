#!/bin/bash
# Adds the address $1 to the interface that already holds the network of $2, then ends.
set -euo pipefail
interface=$(ip -o route get "$2" from "$2" 2>/dev/null | sed -n 's/.* dev \([^ ]*\).*/\1/p')
[[ -z $interface || $interface == lo ]] &&
	interface=$(ip -o address show to "$2" | awk '{ print $2; exit }')
ip address replace "$1/24" dev "$interface"
