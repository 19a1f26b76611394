"""How often a script's text sources another, where that is certain."""

from __future__ import annotations

import pytest

from punchlib.runtime.script_text import sourced, times_sourced

SCRIPT = b"wait.sh"


@pytest.mark.parametrize(
    ("text", "times"),
    [
        ("", 0),
        ("true & p=$!\nsource runtime/wait.sh $p\nput", 1),
        ('. "$TOP/wait.sh" $p; put\nsource wait.sh $q', 2),
        ("if true; then\nsource wait.sh $p\nfi", 1),
        # Run twice, or not as it stands there.
        ("f() { :; }\nsource wait.sh", None),
        ("function f { :; }\nsource wait.sh", None),
        ("for i in 1 2; do\nsource wait.sh\ndone", None),
        ("until(false)do\nsource wait.sh\ndone", None),
        ('source wait.sh\neval "$x"', None),
        ("source wait.sh\ntrap 'x' EXIT", None),
        ("source wait.sh\nexec bash again", None),
        ("source wait.sh; source wait.sh", None),
        # By another name, or by another's lines.
        ("w=wait.sh\n. $w\n. $w", None),
        ("source lib.sh\nsource wait.sh", None),
        ("true;. lib.sh\nsource wait.sh", None),
        ("  source wait.sh", None),
        ("builtin source wait.sh", None),
        ("[ -f wait.sh ] && source wait.sh", None),
        ("source wait.sh\n# no wait.sh any more", None),
    ],
)
def test_what_is_certain(text: str, times: int | None) -> None:
    assert times_sourced(text.encode(), SCRIPT) == times


def test_what_is_sourced() -> None:
    text = b"""{ . ./a x; }\nsource "/c/d" && e\ngrep . f\necho source g\n"""
    assert sourced(text) == [b"./a", b"/c/d"]
