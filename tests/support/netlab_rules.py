"""The nftables rules that make a Linux box behave as a `Nat` says.

How each behaviour is had from conntrack:

- A plain `snat` keeps the port when it is free, and gives a second connection of the same private
  port the same public port: endpoint-independent mapping.
- `snat` to a port range that holds no private port: random, and the same for all destinations for
  as long as one connection of that private port is remembered.
- The same with disjoint ranges by destination address: address-dependent mapping.
- `fully-random` looks up nothing: a new port for every connection.
- Conntrack lets in only what answers a packet of ours: address-and-port-dependent filtering. For
  endpoint-independent filtering, every mapping is noted down as it is made (chain `learn`), and
  strangers are sent where the note says (chain `pre`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tests.support.netlab_kinds import Filtering, Mapping, Nat, Ports, Unsolicited

#: Ports that hosts use, and ports that NATs with other than preserved ports give out.
HOST_PORTS = (20000, 29999)
NAT_PORTS = (40000, 59999)
SEQUENCE = 512

_VERDICTS = {
    Unsolicited.DROP: "drop",
    Unsolicited.RST: "meta l4proto tcp reject with tcp reset; drop",
    Unsolicited.ICMP: "reject with icmp type port-unreachable",
}


class Inside(NamedTuple):
    """A host behind the box: its own address and the public one."""

    private: str
    public: str


def ruleset(nat: Nat, hosts: Sequence[Inside], known: Sequence[str]) -> str:
    """Rules for a box whose outer interface is `wan`, and whose inner ones begin with `lan`.

    Args:
        nat: how it behaves.
        hosts: who is behind it.
        known: addresses that an address-dependent mapping must tell apart from each other and
            from all the rest (the STUN servers').
    """
    return f"""
table ip lab {{
  map back {{
    type inet_proto . inet_service : ipv4_addr . inet_service
    flags dynamic,timeout; timeout 10m; size 65536;
  }}
  chain pre {{
    type nat hook prerouting priority dstnat;
    {_lines(_inbound(nat, host) for host in hosts)}
  }}
  chain post {{
    type nat hook postrouting priority srcnat;
    {_lines(_outbound(nat, host, known) for host in hosts)}
  }}
  chain learn {{
    type filter hook postrouting priority srcnat + 10;
    oifname "wan" ct direction original meta l4proto {{ tcp, udp }} \\
      update @back {{ meta l4proto . th sport : ct original ip saddr . ct original proto-src }}
  }}
  chain raw {{
    type filter hook prerouting priority raw;
    {_eaten(nat)}
  }}
  chain forward {{
    type filter hook forward priority filter; policy drop;
    {_swallowed(nat)}
    {_forgotten(nat)}
    ct state established,related counter accept
    ct state invalid counter drop
    {'iifname "lan*" oifname "lan*" drop' if nat.isolated else ""}
    iifname "lan*" counter accept
    {"accept" if nat.filtering is Filtering.EIF else ""}
    {_stranger(nat)}
  }}
  chain input {{
    type filter hook input priority filter; policy drop;
    ct state established,related accept
    {_stranger(nat)}
  }}
}}
"""


def _lines(rules: object) -> str:
    return "\n    ".join(rules)  # type: ignore[arg-type]


def _stranger(nat: Nat) -> str:
    return "\n    ".join(_VERDICTS[nat.unsolicited].split("; "))


def _eaten(nat: Nat) -> str:
    syn = 'iifname "lan*" tcp flags syn / syn,ack'
    return f"{syn} ip ttl < {nat.least_ttl} counter drop" if nat.least_ttl else ""


def _swallowed(nat: Nat) -> str:
    # The services are spared: it is the path between the two hosts that is broken.
    match = "meta l4proto tcp ct original ip daddr != 198.18.0.0/24"
    return f"{match} ct bytes > {nat.swallows} counter drop" if nat.swallows else ""


def _forgotten(nat: Nat) -> str:
    refusal = 'iifname "lan*" ct state invalid tcp flags ack / syn,rst,ack reject with tcp reset'
    return refusal if nat.forgets else ""


def _inbound(nat: Nat, host: Inside) -> str:
    """What happens to a stranger's packet before it is routed."""
    if not nat.translates:
        return ""
    match = f'iifname "wan" ip daddr {host.public}'
    if nat.static:
        return f"{match} dnat to {host.private}"
    if nat.filtering is Filtering.EIF:
        return f"{match} meta l4proto {{ tcp, udp }} dnat ip to meta l4proto . th dport map @back"
    return ""


def _outbound(nat: Nat, host: Inside, known: Sequence[str]) -> str:
    """The mapping that a host's packet gets on its way out."""
    if not nat.translates:
        return ""
    match = f'oifname "wan" ip saddr {host.private}'
    ported = f"{match} meta l4proto {{ tcp, udp }}"
    low, high = NAT_PORTS
    if nat.mapping is Mapping.EIM and nat.ports is Ports.PRESERVED:
        return f"{match} snat to {host.public}"
    if nat.mapping is Mapping.EIM and nat.ports is Ports.RANDOM:
        return f"{ported} snat to {host.public}:{low}-{high}"
    if nat.mapping is Mapping.ADM and nat.ports is Ports.RANDOM:
        width = (high - low + 1) // (len(known) + 1)
        rules = [
            f"{ported} ip daddr {address} "
            f"snat to {host.public}:{low + i * width}-{low + (i + 1) * width - 1}"
            for i, address in enumerate(known)
        ]
        rules.append(f"{ported} snat to {host.public}:{low + len(known) * width}-{high}")
        return "\n    ".join(rules)
    if nat.mapping is Mapping.APDM and nat.ports is Ports.RANDOM:
        return f"{ported} snat to {host.public}:{low}-{high} fully-random"
    if nat.mapping is Mapping.APDM and nat.ports is Ports.SEQUENTIAL:
        ports = ", ".join(f"{i} : {host.public} . {low + i}" for i in range(SEQUENCE))
        return f"{ported} snat ip to numgen inc mod {SEQUENCE} map {{ {ports} }}"
    raise ValueError(f"{nat.mapping} mapping with {nat.ports} ports is not built here")
