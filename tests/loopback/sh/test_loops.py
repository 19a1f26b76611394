"""Loops of `punch sh` on the embedded cloud, and packed files: as bash, at several widths."""

from __future__ import annotations

import bz2
import gzip
from pathlib import Path

import pytest

from punchlib.errors import PunchError
from punchlib.local.cloud import LocalCloud
from tests.loopback.sh.test_emit import bash, run
from tests.support.sh_files import write_files

LOOPS = {
    "first of each": r"for f in $IN $LOG $EMPTY; do sort $f | head -n 2; done",
    "counts of each": r"for f in $LOG $IN $LOG; do grep a $f | wc -l; done | sort -n | uniq -c",
    "nothing found": r"for f in $IN $LOG; do grep NOBODY $f; done",
    "no input": r"""for w in a 'b c'; do printf '%s\n' "$w"; done | tr a-z A-Z""",
    "an open end": r"for f in $IN $OPEN; do cat $f; done | sort",
    "packed": r"for f in $GZ $GZ; do zcat $f | tail -n 1; done",
    "packed together": r"cat $GZ $GZ $GZ | zcat | tr -cs A-Za-z '\n' | sort | uniq -c",
    "squeezed": r"zcat $NL $GZ $NL | tr -s '\n' | grep -c ''",
    "bzip2": r"bzcat $BZ $BZ | grep -c a",
}


def files(folder: Path) -> dict[str, str]:
    found = write_files(folder)
    text = Path(found["IN"]).read_bytes()
    packed_ones = {
        "GZ": gzip.compress(text),
        "NL": gzip.compress(b"\n\n\n"),
        "NONE": gzip.compress(b""),
        "BZ": bz2.compress(text),
    }
    for name, packed in packed_ones.items():
        (folder / name).write_bytes(packed)
        found[name] = str(folder / name)
    return found


@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.parametrize("width", [1, 3])
def test_as_bash(name: str, width: int, cloud: LocalCloud, tmp_path: Path) -> None:
    given = files(tmp_path)
    assert run(cloud, LOOPS[name], given, tmp_path, width) == bash(LOOPS[name], given)


def test_a_line_that_goes_on_in_the_next_file(cloud: LocalCloud, tmp_path: Path) -> None:
    """On one worker it is right; on two it is an error, never other bytes."""
    given = files(tmp_path)
    text = "for f in $LOG $OPEN $LOG; do cat $f; done | sort"
    assert run(cloud, text, given, tmp_path, 1) == bash(text, given)
    with pytest.raises(PunchError, match="does not end with a newline"):
        run(cloud, text, given, tmp_path, 3)


def test_a_command_that_fails_within(cloud: LocalCloud, tmp_path: Path) -> None:
    text = "for f in $IN $LOG; do awk 'BEGIN {exit 3}' $f | cat; done"
    with pytest.raises(PunchError, match="status 3"):
        run(cloud, text, files(tmp_path), tmp_path, 2)


def test_a_packed_file_of_nothing_before_what_squeezes(cloud: LocalCloud, tmp_path: Path) -> None:
    given = files(tmp_path)
    text = r"zcat $NONE $NL | tr -s '\n' | sort"
    assert run(cloud, text, given, tmp_path, 1) == bash(text, given)
    with pytest.raises(PunchError, match="is empty"):
        run(cloud, text, given, tmp_path, 2)
