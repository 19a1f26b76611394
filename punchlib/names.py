"""What a name from outside may be: ids and folders of scripts, arguments, files of a job.

One rule for events, job folders and manifests, because each becomes a path, a line of a log, an
argument or an environment variable somewhere.
"""

from __future__ import annotations

from punchlib.errors import Cause, UsageError, escape

#: Bytes; with what is put around it a file name must stay below 255.
LONGEST = 200


def check_name(name: str, what: str) -> str:
    """Returns a name that can be part of a path; spaces, quotes and accents can.

    Raises:
        UsageError: it is empty or too long, begins with a dot, or holds a slash or what
            `check_text` refuses.
    """
    check_text(name, what)
    if not name or name.startswith(".") or "/" in name or len(name.encode()) > LONGEST:
        raise UsageError(
            f"{what} {shown(name)} cannot be a name",
            next_step=f"use 1 to {LONGEST} bytes without a slash, not beginning with a dot",
        )
    return name


def check_text(text: str, what: str) -> str:
    """Returns a text that can be an argument and be printed.

    Raises:
        UsageError: it holds a control character (NUL, newline, ESC, …) or is no valid UTF-8.
    """
    if any(_is_control(c) for c in text):
        raise UsageError(
            f"{what} {shown(text)} holds a control character, or is no valid UTF-8",
            next_step="rename it: only printable characters",
        )
    return text


def is_name(name: str) -> bool:
    """Whether `check_name` would take it."""
    try:
        check_name(name, "")
    except UsageError:
        return False
    return True


def heard(reason: str, origin: str) -> Cause:
    """A cause as a peer said it: safe to print, and without an origin that is no name."""
    return Cause(escape(reason), origin if is_name(origin) else "")


def shown(text: str) -> str:
    """The text in quotes, safe to print whatever it holds."""
    return f"'{escape(text, LONGEST)}'".replace("\n", "\\n")


def _is_control(character: str) -> bool:
    # C0, DEL and C1; the surrogates that stand for bytes that are no UTF-8; line separators.
    code = ord(character)
    return (
        code < 0x20 or 0x7F <= code < 0xA0 or 0xD800 <= code < 0xE000 or character in "\u2028\u2029"
    )
