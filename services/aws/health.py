"""Health check of the local AWS: it answers, and its way out is the router.

The workers' calls arrive here from their public addresses. Were the default route that of the
Lambda network, the answers would bypass the router, and NATs would be tested that nobody crosses.
"""

import os
import struct
import sys
import urllib.request

ROUTES = "/proc/net/route"


def default_gateway() -> str:
    """The gateway of the default route, dotted."""
    with open(ROUTES) as table:
        for line in table:
            _interface, target, gateway, *_ = line.split()
            if target == "00000000":
                return ".".join(str(b) for b in struct.pack("<I", int(gateway, 16)))
    return "none"


own = os.environ["AWS_ENDPOINT_URL"].removeprefix("http://").rpartition(":")[0]
expected = own.rpartition(".")[0] + ".1"
if (gateway := default_gateway()) != expected:
    sys.exit(f"the default route goes by {gateway}, not by the router at {expected}")
urllib.request.urlopen("http://127.0.0.1:4566/_localstack/health", timeout=3).read()
