"""Which route every pairing of the grid must take, and why: written down, not computed.

A test compares this table with the principle (`in_principle`), so that neither can drift alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.support.netlab_kinds import KINDS, SHARED, Kind

#: Letter in the matrix: the route, and the reason for it.
REASONS: dict[str, tuple[str, str]] = {
    "h": ("host", "one end has a public address that anybody may reach: the other dials it"),
    "n": ("host", "one network: the other's own address can be reached"),
    "p": ("punched", "both public ports can be predicted: hold and dial"),
    "l": (
        "punched",
        "one end's ports cannot be predicted, but one end lets anybody in: it listens on the port "
        "that STUN saw, and the other dials that",
    ),
    "s": (
        "s3",
        "one end's ports cannot be predicted and the other end lets in only the address and port "
        "that it has sent to: no packet of the one ever fits",
    ),
    "q": ("s3", "as s; sequential ports could only be guessed, and a wrong guess locks the port"),
    "x": ("s3", "the NAT does not return traffic from inside to its own public address"),
    "1": ("punched", "an old peer dials once: we hold before it can see our record"),
    "2": ("host", "an old peer dials our public address, where we listen"),
}

#: Rows and columns. Lower triangle: the matrix is symmetric, each cell is run with one end sending.
MATRIX = """
open             h
fw-drop          h p
fw-rst           h p p
ec2              h p p p
ec2-open         h p p p p
lambda           h p p p p p
eim-rst          h p p p p p p
eim-icmp         h p p p p p p p
eim-random-rst   h p p p p p p p p
eim-eif          h p p p p p p p p p
double-rst       h p p p p p p p p p p
adm              h s s s l s s s s l s s
apdm-random-rst  h s s s l s s s s l s s s
apdm-seq         h q q q l q q q q l q q q q
aws-nat-gateway  h s s s l s s s s l s s s q s
"""

#: Pairings beside the matrix.
EXTRA = """
lambda           eim-random        p
eim-random       eim-random        p
ec2              eim-eif-random    p
eim-eif-random   apdm-random-rst   l
eim-eif-random   aws-nat-gateway   l
adm-eif          lambda            l
adm-eif          eim-rst           l
adm-eif          aws-nat-gateway   l
apdm-eif         lambda            l
apdm-eif         eim-rst           l
apdm-eif         aws-nat-gateway   l
ec2              double            p
lambda           double            p
double           double            p
double           eim-icmp          p
double-apdm      lambda            s
double-apdm      ec2-open          l
double-apdm      aws-nat-gateway   s
home             home              p
home             ec2               p
apdm-random      apdm-random       s
"""

#: Both hosts behind one NAT.
TOGETHER = """
same-lan               n
same-nat-hairpin       p
same-nat-no-hairpin    x
lambda-workers         p
same-aws-nat-gateway   s
"""

#: An old program at one end. It has no other route than its one connect: where that cannot work
#: the outcome is an error, which is tested elsewhere.
OLD = """
old-lambda   open             2
old-lambda   ec2              1
old-lambda   lambda           1
old-lambda   eim-rst          1
old-lambda   eim-icmp         1
old-lambda   eim-random-rst   1
old-lambda   eim-eif          1
old-ec2      open             2
old-ec2      lambda           1
old-ec2      eim-rst          1
old-ec2      double-rst       1
open         old-lambda       2
lambda       old-ec2          1
eim-rst      old-lambda       1
"""


@dataclass(frozen=True)
class Cell:
    """One pairing: what is at the sender, what is at the receiver, and what must come of it.

    Attributes:
        a, b: kinds at the sending and the receiving end.
        code: the letter in the table.
        together: both hosts are behind the one NAT `a` (then `b` is the same).
    """

    a: Kind
    b: Kind
    code: str
    together: bool = False

    @property
    def name(self) -> str:
        return f"{self.a.name},{self.b.name}"

    @property
    def route(self) -> str:
        return REASONS[self.code][0]

    @property
    def reason(self) -> str:
        return REASONS[self.code][1]


def cells() -> list[Cell]:
    """The whole grid, in the order of the tables."""
    found: list[Cell] = []
    columns: list[str] = []
    for line in MATRIX.split("\n"):
        if line:
            row, *codes = line.split()
            columns.append(row)
            found += [
                Cell(KINDS[row], KINDS[column], code)
                for column, code in zip(columns, codes, strict=True)
            ]
    for line in (EXTRA + OLD).split("\n"):
        if line:
            a, b, code = line.split()
            found.append(Cell(KINDS[a], KINDS[b], code))
    for line in TOGETHER.split("\n"):
        if line:
            name, code = line.split()
            found.append(Cell(SHARED[name], SHARED[name], code, together=True))
    return found


def in_principle(a: Kind, b: Kind) -> str:
    """The best route that RFC 5382's notions allow between two separate sites."""
    public = [k for k in (a, b) if k.open and not any(n.translates for n in k.layers)]
    if public:
        return "host"
    if (a.predictable and b.predictable) or a.open or b.open:
        return "punched"
    return "s3"
