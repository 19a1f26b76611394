"""`punch sh --commands FILE`, `punch sh --prove [FILE]`: commands of a user's own (docs/sh.md)."""

from __future__ import annotations

from pathlib import Path

from punchlib.cli import output
from punchlib.errors import PunchError, UsageError
from punchlib.sh import extensions
from punchlib.sh.extensions import Entry
from punchlib.sh.forms import Form
from punchlib.sh.reading import Stage

#: Inputs that are drawn for each command, and on how many of these it must do something.
EXAMPLES, FEWEST = 200, 20


def own_forms(file: Path | None) -> dict[tuple[str, ...], Form]:
    """What the planner takes.

    Args:
        file: the user's commands; None: the default file, where there is one.
    """
    return extensions.forms(_entries(file))


def _entries(file: Path | None) -> list[Entry]:
    default = extensions.default_file()
    if file is None and not default.exists():
        return []
    return extensions.load(file or default)


def prove_commands(file: Path | None) -> None:
    """Proves each command of the file, and says so; those that are proven stay so.

    Raises:
        PunchError: some are not; it holds an example of each.
        UsageError: there are none, or the file is wrong.
    """
    entries = _entries(file)
    if not entries:
        raise UsageError(
            f"there are no commands in {file or extensions.default_file()}",
            next_step='docs/sh.md, "Commands of your own"',
        )
    try:
        from punchlib.sh.proof import prove
    except ModuleNotFoundError as error:
        if error.name != "hypothesis":
            raise
        raise UsageError(
            "`punch sh --prove` needs hypothesis, which draws inputs",
            next_step="pip install 'punchlib[sh]'",
        ) from None
    failures = []
    for entry in entries:
        words = entry.form.words
        try:
            prove([words], EXAMPLES, {words: entry.form}, FEWEST)
        except UsageError:
            raise
        except PunchError as error:
            failures.append(error.message)
            continue
        extensions.keep(entry)
        output.stdout(f"proven: {Stage(words).text}\n".encode(errors="surrogateescape"))
    if failures:
        raise PunchError("\n".join(failures))
