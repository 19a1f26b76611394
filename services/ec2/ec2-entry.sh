#!/bin/sh
# Entry point of the node image: `punch` with the given arguments, or any other program by name.
set -eu
case ${1:-} in
bash | sh | python3 | pashlib) exec "$@" ;;
*) exec punch "$@" ;;
esac
