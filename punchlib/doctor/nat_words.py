"""What was seen of the network, in words, with what follows for streams. No I/O."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence

from punchlib.config import Config, Route
from punchlib.core.records import Filtering, Mapping
from punchlib.doctor.finding import Finding, fail, ok, warn
from punchlib.doctor.network import ARRIVED, DIED, LADDER, SILENCE, Answer, View

#: Addresses that a carrier shares out behind its own NAT (RFC 6598).
_CARRIER = ipaddress.IPv4Network("100.64.0.0/10")
#: pystun3's spelling → RFC 3489's words (section 5).
_CLASSIC = {
    "Open Internet": "open Internet",
    "Full Cone": "full cone",
    "Symmetric UDP Firewall": "symmetric UDP firewall",
    "Restric NAT": "restricted cone",
    "Restric Port NAT": "port restricted cone",
    "Symmetric NAT": "symmetric",
}
_SERVERS = "name STUN servers that can be reached from here in PASH_STUN_SERVER, and let outgoing"
#: A Lambda function in a VPC is behind its NAT Gateway.
_OTHER_NAT = (
    "nothing, if S3 is fast enough; direct are a machine with a public address, one behind a NAT"
    " that maps independently, a function outside a VPC"
)
_FIVE = "for a look at it name a server with two addresses (RFC 5780) in PASH_STUN_SERVER"


def findings(view: View, config: Config) -> Iterator[Finding]:
    """Everything that can be said of a view; each check that was made has its line.

    Args:
        view: what was seen.
        config: routes and bucket decide what is left where nothing direct is possible.
    """
    yield _stun_tcp(view)
    yield _stun_udp(view)
    if not view.ports:
        unknown = "mapping, filtering, ports, public address and low-TTL SYNs"
        step = "mend STUN over TCP first"
        yield warn("NAT", f"{unknown} could not be looked at: no STUN server told", step)
        return
    yield _mapping(view, config)
    yield _filtering(view)
    yield _kept(view)
    yield _address(view, config)
    yield _low_ttl(view)


def _stun_tcp(view: View) -> Finding:
    text = _answers(view.tcp)
    if all(a.trouble for a in view.tcp):
        if any(not a.trouble for a in view.udp):
            what = f"{text}: what our NAT makes of a TCP port is guessed from UDP"
            return warn("STUN over TCP", what, f"{_SERVERS} TCP to them")
        what = f"{text}: nothing can be punched; peers reach each other in one network, or over S3"
        return fail("STUN over TCP", what, f"{_SERVERS} TCP to them")
    return _some("STUN over TCP", text, view.tcp)


def _stun_udp(view: View) -> Finding:
    text = _answers(view.udp)
    if all(a.trouble for a in view.udp):
        what = f"{text}: how our NAT filters cannot be learned"
        return warn("STUN over UDP", what, f"{_SERVERS} UDP to them")
    if view.classic:
        text += f"; RFC 3489 calls this NAT {_CLASSIC.get(view.classic, view.classic)}"
    else:
        text += "; no RFC 3489 name for this NAT: no server here tells what it takes"
    return _some("STUN over UDP", text, view.udp)


def _answers(answers: Sequence[Answer]) -> str:
    """Who answered and how soon; then who did not, those with the same trouble together."""
    said = [f"{a.server} {a.ms:.0f} ms" for a in answers if not a.trouble]
    for trouble in dict.fromkeys(a.trouble for a in answers if a.trouble):
        said.append(f"{', '.join(a.server for a in answers if a.trouble == trouble)}: {trouble}")
    return "; ".join(said)


def _some(name: str, text: str, answers: Sequence[Answer]) -> Finding:
    if any(a.trouble for a in answers):
        return warn(name, text, "streams use the others; drop the dead one from PASH_STUN_SERVER")
    return ok(name, text)


def _mapping(view: View, config: Config) -> Finding:
    name, mapping = "mapping", view.nat.mapping
    if mapping is Mapping.NONE:
        return ok(name, "there is no NAT: the world sees this machine's own address")
    if mapping is Mapping.INDEPENDENT:
        what = "one port for all destinations (endpoint-independent): peers can dial it, and"
        return ok(name, f"{what} connections are direct")
    if mapping is Mapping.UNKNOWN:
        what = "not known: it takes two addresses to ask, and only one answered"
        return warn(name, f"{what}; punching is tried all the same", _FIVE)
    open_here = view.nat.filtering is Filtering.INDEPENDENT
    s3 = Route.S3 in config.routes and config.bucket
    what = "each destination gets its own port (not endpoint-independent): "
    if open_here:
        return ok(name, f"{what}nobody can hold for us; peers dial us instead, for anybody may")
    what += "direct connections to peers that filter are impossible, "
    if s3:
        return warn(name, f"{what}the S3 route will be used", _OTHER_NAT)
    lacks = "PUNCH_ROUTES leaves S3 out" if config.bucket else "AWS_BUCKET is not set"
    what += f"and there is no S3 route: {lacks}"
    return fail(name, what, "set AWS_BUCKET, and let PUNCH_ROUTES include s3")


def _filtering(view: View) -> Finding:
    name = "filtering"
    wall = "this NAT" if view.nat.mapping is not Mapping.NONE else "this network"
    match view.nat.filtering:
        case Filtering.INDEPENDENT:
            what = f"{wall} lets anybody in through a mapping (endpoint-independent): any peer can"
            return ok(name, f"{what} dial us, also one whose ports cannot be predicted")
        case Filtering.DEPENDENT:
            what = f"{wall} lets in only whom we have sent to: both ends must send first (hold and"
            return ok(name, f"{what} dial); a peer with a port for each destination comes over S3")
    what = "not known: no server answers from a second address over UDP"
    return warn(name, f"{what}; a peer of unpredictable ports is tried for 0.8 s first", _FIVE)


def _kept(view: View) -> Finding:
    name, many = "port", len(view.ports)
    kept = sum(local.port == mapped.port for local, mapped in view.ports)
    if view.nat.mapping is Mapping.NONE:
        return ok(name, "our own")
    local, mapped = next((p for p in view.ports if p[0].port != p[1].port), view.ports[0])
    if kept == many:
        return ok(name, f"kept, {kept} of {many}: {local.port} inside is {mapped.port} outside")
    what = f"not kept, {kept} of {many}: {local.port} inside is {mapped.port} outside"
    if view.nat.mapping is Mapping.DEPENDENT:
        return ok(name, f"{what}, and another one for each destination: see mapping")
    return ok(name, f"{what}; STUN tells it, so it does no harm")


def _address(view: View, config: Config) -> Finding:
    name = "public address"
    inside, outside = view.ports[0][0].host, view.ports[0][1].host
    if config.public_ip and config.public_ip != outside:
        what = f"{outside} by STUN, but PASH_PUBLIC_IP or PUBLIC_ADDR says {config.public_ip}"
        return warn(name, f"{what}, which peers will dial", "unset it, unless it is right")
    all_of_them = sorted({mapped.host for _, mapped in view.ports})
    if len(all_of_them) > 1:
        # RFC 4787 REQ-2 asks for one ("paired").
        what = f"several for this machine: {', '.join(all_of_them)}; shared with others"
        return warn(name, what, "nothing, unless connections fail: each port's own one is told")
    if inside == outside:
        return ok(name, f"{outside}, this machine's own: not shared")
    if ipaddress.IPv4Address(inside) in _CARRIER:
        what = f"{outside}, shared: {inside} is of a carrier's inner network (RFC 6598), so there"
        return warn(name, f"{what} may be two NATs", "nothing, unless connections fail")
    if all(local.port == mapped.port for local, mapped in view.ports):
        return ok(name, f"{outside} for {inside}; every port was free there, as on one not shared")
    return ok(name, f"{outside} for {inside}; shared, as its ports are given out anew")


def _low_ttl(view: View) -> Finding:
    name = "low-TTL SYNs"
    said = {DIED: "died on the way, as it should", ARRIVED: "reached the server"}
    if any(fate in said for fate in view.syns.values()):
        said[SILENCE] = "drew no answer"
        rungs = [
            f"{', '.join(str(ttl) for ttl in ttls)} {text}"
            for fate, text in said.items()
            if (ttls := [ttl for ttl, its in view.syns.items() if its == fate])
        ]
        return ok(name, f"they leave this network: TTL {'; '.join(rungs)}")
    what = (
        f"those of TTL {LADDER[0]} to {LADDER[-1]} draw no answer, others do: something here eats"
        " them, or no router on the way says that they died"
    )
    step = "if connections fail: they are what holds a door open; the race and listeners remain"
    return warn(name, what, step)
