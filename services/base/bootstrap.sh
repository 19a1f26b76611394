#!/bin/bash
# Makes a base image from Debian's packages alone, for machines that reach no image registry.
#
#   bootstrap.sh IMAGE PACKAGE...
#
# PUNCH_DEBIAN_MIRROR chooses the mirror (mmdebstrap's own by default). Needs mmdebstrap, and root or user namespaces.
set -euo pipefail

image=$1
shift
suite=trixie

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# apt stays in the image: an image variant may want more packages.
mmdebstrap --quiet --variant=apt \
	--include="$(IFS=, && echo "$*")" \
	--dpkgopt='path-exclude=/usr/share/doc/*' \
	--dpkgopt='path-exclude=/usr/share/info/*' \
	--dpkgopt='path-exclude=/usr/share/locale/*' \
	--dpkgopt='path-exclude=/usr/share/man/*' \
	"$suite" "$folder/base.tar" ${PUNCH_DEBIAN_MIRROR:+"$PUNCH_DEBIAN_MIRROR"}

docker import --change 'ENV LANG=C.UTF-8' \
	--change 'CMD ["/bin/bash"]' "$folder/base.tar" "$image" >/dev/null
