#!/bin/bash
# What crossed this machine, as JSON on stdout:
#   {"crossed": [{"from": ADDRESS, "to": ADDRESS, "packets": N, "bytes": N}, ...], "refused": [...]}
# With --reset the counters begin again.
set -euo pipefail

sets=$(nft list sets ip | sed -n 's/.*set \(crossed\|refused\) {.*/\1/p')

if [[ ${1:-} == --reset ]]; then
	for name in $sets; do
		nft flush set ip punch "$name"
	done
	exit 0
fi

pairs() {
	[[ " ${sets//$'\n'/ } " == *" $1 "* ]] || return 0
	nft list set ip punch "$1" |
		grep -oE '[0-9.]+ \. [0-9.]+ counter packets [0-9]+ bytes [0-9]+' |
		awk '{ printf "%s{\"from\": \"%s\", \"to\": \"%s\", \"packets\": %s, \"bytes\": %s}",
			(NR > 1 ? ", " : ""), $1, $3, $6, $8 }' || true
}

printf '{"crossed": [%s], "refused": [%s]}\n' "$(pairs crossed)" "$(pairs refused)"
