"""Which names may come from outside."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchlib.errors import UsageError
from punchlib.names import LONGEST, check_name, check_text


@pytest.mark.parametrize("name", ["a", "a b", "it's", "é", "#fifo1", "x" * LONGEST, "a.sh", "-n"])
def test_a_name(name: str) -> None:
    assert check_name(name, "the id") == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "a/b", "/", "x" * (LONGEST + 1), "é" * LONGEST, "a\nb", "\0"]
)
def test_what_is_no_name_is_shown_safely(name: str) -> None:
    with pytest.raises(UsageError) as refused:
        check_name(name, "the id")
    assert refused.value.message.startswith("the id '")
    assert refused.value.message.isprintable()


@given(st.text(st.characters(codec=None)))
def test_any_text_is_one_or_refused(text: str) -> None:
    try:
        check_text(text, "it")
    except UsageError as error:
        assert error.message.isprintable()
        return
    assert text.encode().decode() == text
    assert not set(text) & set("\0\n\r\x1b\x7f\x9b\u2028")
