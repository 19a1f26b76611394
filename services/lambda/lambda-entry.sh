#!/bin/sh
# Entry point of the Lambda image. On AWS the runtime interface is there. In the emulation it is
# not, and the local build of the image carries AWS's emulator of it (services/lambda/README.md).
set -eu
if [ -n "${AWS_LAMBDA_RUNTIME_API:-}" ]; then
	exec python3 -m awslambdaric "$@"
fi
if [ ! -x /opt/punch/local_entry.py ]; then
	echo "AWS_LAMBDA_RUNTIME_API is not set, and this image has no emulator of it" >&2
	echo "  next: run punch-lambda-local (make images), or deploy this image to AWS Lambda" >&2
	exit 2
fi
exec python3 -IS /opt/punch/local_entry.py "$@"
