"""Proves forms of the table by trying: drawn inputs, drawn cuts, the real command.

The joined outputs of the pieces must be what the command gives for the whole; what fails on the
whole must fail on the pieces. The inputs: empty, without a final newline, NUL, CRLF, long lines,
many equal lines, bytes that are no UTF-8, quotes, and JSON for jq. Cuts are at the beginnings of
lines, as the readers make them.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace

from hypothesis import HealthCheck, configuration, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky

from punchlib.errors import PunchError
from punchlib.sh.commands import form_of
from punchlib.sh.forms import Form, Split
from punchlib.sh.plan import Command, Plan, make
from punchlib.sh.reading import Pipeline, Stage
from punchlib.sh.trial import on_piece, ran, result, through

#: Lines, and whether the last one lacks its newline.
Drawn = tuple[list[bytes], bool]

_WORDS = st.sampled_from(
    [b"a", b"b", b"ab", b"aab", b"the", b"The", b"10", b"9", b"-1", b"2K", b"Jan", b"a.b", b"x,y",
     b"", b"  ", b"\t", b"\xff\xe9", b"\r", b"a:b", b"X" * 300, b"1", b"b", b"aa", b"\xc3\xa9",
     b"'", b'"b c"', b"\\", b"\\\\", b"-n", b"a/b.c", b"3.5", b"\xef\xbb\xbf", b"1e2"]
)  # fmt: skip
_LINE = st.lists(_WORDS, max_size=4).map(b" ".join) | st.sampled_from(
    [b"", b"a", b"a b", b"A b", b"a a"]
)
_RARE = st.sampled_from([b""] * 9 + [b"\0", b"a\0b", b"\x08a", b"\x0b", b"\x1b7", b"\x0ea\x0f"])
LINES: st.SearchStrategy[Drawn] = st.tuples(
    st.lists(st.tuples(_LINE, _RARE).map(b"".join), max_size=14)
    | st.lists(st.sampled_from([b"a", b"b", b""]), max_size=14),
    st.booleans(),
)
_GOOD = [b'{"a": 1, "b": "x y"}', b'{"a":"q","b":{"c":[1,2]}}', b'{"a":{"b":2}}', b"null", b"",
         b'{"b": "\\u00e9\\n\xc3\xa9"}', b'{"a":1.5e300}{"a":true} {"a": 12345678901234567}', b"{}",
         b'{"a":[{"b":1},{"b":2}],"b":"\xff"}']  # fmt: skip
_ODD = [b"1", b"[1,", b"2]", b'"open', b'shut"', b"\xef\xbb\xbf{}", b"nan", b"\0", b"[]", b"\xef{}"]
JSON: st.SearchStrategy[Drawn] = st.tuples(
    st.lists(st.sampled_from(_GOOD), max_size=10)
    | st.lists(st.sampled_from(_GOOD + _ODD), max_size=6),
    st.booleans(),
)
CUTS = st.lists(st.integers(0, 14), min_size=1, max_size=3)


class Counterexample(PunchError):
    """An input on which a form is not what the table says."""


def pieces_of(drawn: Drawn, cuts: Sequence[int]) -> list[bytes]:
    lines = [line + b"\n" for line in drawn[0]]
    if lines and drawn[1] and lines[-1] != b"\n":
        lines[-1] = lines[-1][:-1]
    at = [0, *sorted(min(cut, len(lines)) for cut in cuts), len(lines)]
    return [b"".join(lines[a:b]) for a, b in itertools.pairwise(at)]


def prove(
    stages: Sequence[tuple[str, ...]],
    examples: int,
    more: Mapping[tuple[str, ...], Form] | None = None,
    fewest: int = 0,
) -> None:
    """Tries a pipeline of forms that all run on pieces.

    Args:
        stages: their words.
        examples: inputs that are drawn.
        more: forms that are not in the table.
        fewest: of those that are not empty, on so many it must not fail.

    Raises:
        Counterexample: the smallest that was found.
        PunchError: it cannot be tried.
    """
    # Behind `cat`, so that it is not the first: several counts of a file have other widths.
    plan = make(Pipeline((Stage(("cat",)), *map(Stage, stages))), more=more)
    plan = replace(plan, mapped=plan.mapped[1:])
    splits = [split for words in stages if (split := form_of(words, more).split)]
    met = 0

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(JSON if stages[0][0] == "jq" else LINES, CUTS, st.sampled_from([2, 16]))
    def trial(drawn: Drawn, cuts: list[int], fan_in: int) -> None:
        nonlocal met
        pieces = pieces_of(drawn, cuts)
        met += _compared(stages, splits, plan, pieces, fan_in)
        if len(stages) == 1 and splits[0].gather is None:
            _leaves_lines(stages[0], splits[0], pieces[0])

    with tempfile.TemporaryDirectory(prefix="punch-sh-") as home:
        configuration.set_hypothesis_home_dir(home)
        try:
            trial()
        except Flaky:
            said = f"{_text(stages)} does not give the same for the same input"
            raise Counterexample(said) from None
        finally:
            configuration.set_hypothesis_home_dir(None)
    if met < fewest:
        raise PunchError(f"{_text(stages)} fails on nearly every input: nothing is proven by that")


def _compared(
    stages: Sequence[tuple[str, ...]],
    splits: Sequence[Split],
    plan: Plan,
    pieces: Sequence[bytes],
    fan_in: int,
) -> bool:
    """Is the same on pieces as in the whole; tells whether that was more than failing."""
    whole = b"".join(pieces)
    expected, got = through(stages, whole), result(plan, pieces, fan_in)
    refused = got is None and any(s.guard or (s.text_only and b"\0" in whole) for s in splits)
    if got == expected or refused:
        return bool(whole) and expected is not None
    raise Counterexample(
        f"{_text(stages)} is not the same on pieces\n"
        f"  the pieces       {' | '.join(_shown(piece) for piece in pieces)}\n"
        f"  the whole gives  {_shown(expected)}\n"
        f"  they give        {_shown(got)}"
    )


def _leaves_lines(words: tuple[str, ...], split: Split, piece: bytes) -> None:
    """Do `keeps_lines` and `total` hold?"""
    if not piece.endswith(b"\n") or (split.guard and ran(split.guard, piece) is None):
        return
    command = Command(split.words or words, text_only=split.text_only)
    out = on_piece(command, piece, first=True)
    if out is None or out.endswith(b"\n"):
        return
    if (out and split.keeps_lines) or (not out and split.total):
        raise Counterexample(
            f"{_text([words])} leaves no whole lines\n"
            f"  of     {_shown(piece)}\n"
            f"  makes  {_shown(out)}"
        )


def _text(stages: Sequence[tuple[str, ...]]) -> str:
    return " | ".join(Stage(words).text for words in stages)


def _shown(data: bytes | None) -> str:
    if data is None:
        return "a failure"
    return repr(data[:200]) + (f" … ({len(data)} bytes)" if len(data) > 200 else "")
