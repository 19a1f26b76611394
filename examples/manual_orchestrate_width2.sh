#!/usr/bin/env bash
# Runs the four scripts of a job of width 2 without `punch run`: the workers on Lambda, splitter and
# merger on the EC2 handler, each started by hand as the old guide does.
#
#   manual_orchestrate_width2.sh [DIR]     DIR holds splitter.sh worker1.sh worker2.sh merger.sh
#
# Environment: AWS_BUCKET, PASH_TOP (holds runtime/ and aws/), AWS_REGION, PUNCH_FUNCTION (lambda),
# PASH_EC2_HOST (127.0.0.1; `punch ec2-handler` listens there on port 9999).
# Status 0: both EC2 scripts ended well, so the output is there and whole.
set -euo pipefail

dir=$(cd "${1:-$(dirname "$0")/sort-width2}" && pwd)
: "${AWS_BUCKET:?names no bucket}" "${PASH_TOP:?names no folder with runtime/ and aws/}"
host=${PASH_EC2_HOST:-127.0.0.1}
folder=manual-$(date +%s)-$$ # new for each run
cd "$PASH_TOP"

say() { printf '%s %s\n' "$(date +%T.%3N)" "$*" >&2; }

# Runs a script on the EC2 handler and waits: one JSON in, one JSON out.
on_ec2() {
	local connection answer
	exec {connection}<>"/dev/tcp/$host/9999" || return 1
	printf '{"ids": ["%s"], "folder_ids": ["%s"]}END' "$1" "$folder" >&"$connection"
	answer=$(cat <&"$connection")
	case $answer in
	*'"ok": true'*) say "$1 ended well" ;;
	*) say "$1 failed: $answer" && return 1 ;;
	esac
}

for id in splitter worker1 worker2 merger; do
	python3.9 aws/s3-put-object.py "sls-scripts/$folder/$id.sh" "$dir/$id.sh"
done
say "the scripts are in s3://$AWS_BUCKET/sls-scripts/$folder/"

for id in worker1 worker2; do
	python3.9 aws/invoke-lambda.py "$id" "$folder" lambda
	say "invoked $id"
done
on_ec2 merger &
merger=$!
on_ec2 splitter &
splitter=$!
status=0
wait "$splitter" || status=1
wait "$merger" || status=1
exit "$status"
