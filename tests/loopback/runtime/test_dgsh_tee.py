"""dgsh-tee between real stages: eager or not, several outputs, late and leaving readers, spill."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.jobtools import wait_until
from tests.support.wakeups import wakeups

from .conftest import Bash

SIZE = 10_000_000


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "in"
    path.write_bytes(os.urandom(SIZE // 10) * 10)
    return path


@pytest.mark.parametrize("eager", ["", "-I"])
@pytest.mark.parametrize("memory", ["", "-m 256K -f"])
def test_everything_arrives_at_every_output(
    bash: Bash, tmp_path: Path, data: Path, eager: str, memory: str
) -> None:
    result = bash(f"""
    mkfifo "$D/#fifo 1" "$D/a" "$D/b"
    cat "$D/in" > "$D/#fifo 1" &
    runtime/dgsh-tee -i "$D/#fifo 1" -o "$D/a" -o "$D/b" -o "$D/file" {eager} -b 5M {memory} &
    tee=$!
    cmp "$D/in" "$D/a" & one=$!
    {{ sleep 0.3; cmp "$D/in" -; }} < "$D/b" || exit
    wait $one || exit
    wait $tee || exit
    cmp "$D/in" "$D/file"
    """)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")


@pytest.mark.parametrize("late", ["open", "read"])
def test_eager_never_blocks_the_writer(bash: Bash, tmp_path: Path, data: Path, late: str) -> None:
    # The writer ends before the reader has taken, or even opened, anything.
    opened = '; exec 4< "$D/o"' if late == "open" else ""
    early = "" if late == "open" else 'exec 4<> "$D/o"; exec 5< "$D/o"; exec 4>&-; exec 4<&5'
    result = bash(f"""
    mkfifo "$D/i" "$D/o"
    runtime/dgsh-tee -i "$D/i" -o "$D/o" -I -m 256K -T "$D" -M & tee=$!
    {early}
    timeout 20 cp "$D/in" "$D/i" || exit 1
    ls "$D" | grep -c dgsh-tee-
    true {opened}
    md5sum <&4
    exec 4<&- 5<&-
    wait $tee
    """)
    assert result.returncode == 0, result.stderr
    spilled, digest, *_ = result.stdout.split()
    assert spilled == b"0"  # the file has no name from the start
    assert digest.decode() == hashlib.md5(data.read_bytes()).hexdigest()
    assert b"dgsh-tee: 10000000 bytes passed" in result.stderr


def test_without_eager_the_writer_waits(bash: Bash, data: Path) -> None:
    result = bash("""
    mkfifo "$D/i" "$D/o"
    runtime/dgsh-tee -i "$D/i" -o "$D/o" & tee=$!
    exec 4<> "$D/o"
    timeout 0.5 cp "$D/in" "$D/i"
    echo $?
    kill $tee
    """)
    assert result.stdout == b"124\n"


def test_outputs_that_are_read_one_after_the_other(bash: Bash, data: Path) -> None:
    # Would deadlock if the slower output held the faster one back.
    result = bash("""
    mkfifo "$D/a" "$D/b"
    runtime/dgsh-tee -i "$D/in" -o "$D/a" -o "$D/b" -m 1M &
    exec 4< "$D/a" 5< "$D/b"
    cmp "$D/in" - <&4 && cmp "$D/in" - <&5
    """)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("eager", ["", "-I"])
def test_a_reader_that_leaves_stops_the_writer(bash: Bash, eager: str) -> None:
    result = bash(f"""
    mkfifo "$D/i" "$D/o"
    yes > "$D/i" & yes=$!
    runtime/dgsh-tee -i "$D/i" -o "$D/o" {eager} -b 5M & tee=$!
    head -n 1 < "$D/o"
    wait $tee; echo $?
    wait $yes; echo $?
    """)
    assert result.stdout == b"y\n0\n141\n"


def test_the_other_output_goes_on(bash: Bash, data: Path) -> None:
    result = bash("""
    mkfifo "$D/a" "$D/b"
    runtime/dgsh-tee -i "$D/in" -o "$D/a" -o "$D/b" -I & tee=$!
    head -c 10 < "$D/a" > /dev/null &
    cmp "$D/in" "$D/b" && wait $tee
    """)
    assert (result.returncode, result.stderr) == (0, b"")


def test_to_dev_null_and_from_stdin(bash: Bash) -> None:
    result = bash(
        "seq 100000 | runtime/dgsh-tee -i /dev/stdin -o /dev/null -o /dev/stdout | tail -1"
    )
    assert (result.returncode, result.stdout) == (0, b"100000\n")


def test_empty_input(bash: Bash, tmp_path: Path) -> None:
    assert bash('runtime/dgsh-tee -I -i /dev/null -o "$D/new file"').returncode == 0
    assert (tmp_path / "new file").read_bytes() == b""


def test_a_late_reader_of_an_empty_stream(bash: Bash) -> None:
    result = bash("""
    mkfifo "$D/o"
    runtime/dgsh-tee -I -i /dev/null -o "$D/o" & tee=$!
    sleep 0.2; cat "$D/o"; wait $tee
    """)
    assert result.returncode == 0


@pytest.mark.parametrize("held", [b"", b"held back", b"x" * 3_000_000])
def test_waiting_wakes_nobody_up(top: Path, tmp_path: Path, held: bytes) -> None:
    """For its input, for both readers, for one that has opened and does not read.

    It used to look for its readers fifty times a second.
    """
    for name in ("in", "out", "more"):
        os.mkfifo(tmp_path / name)
    outputs = ["-o", "out", "-o", "more"]
    tee = subprocess.Popen([top / "runtime/dgsh-tee", "-I", "-i", "in", *outputs], cwd=tmp_path)

    def still() -> bool:
        before = wakeups(tee.pid)
        time.sleep(1.0)
        return wakeups(tee.pid) - before <= 1

    def quiet() -> None:
        """On a busy machine it takes a while until it has come to wait."""
        time.sleep(0.7)
        wait_until(still)

    quiet()
    with (tmp_path / "in").open("wb") as source:
        source.write(held)
        source.flush()
        quiet()
        out = os.open(tmp_path / "out", os.O_RDONLY)
        quiet()
        more = os.open(tmp_path / "more", os.O_RDONLY)
        quiet()
    with open(out, "rb") as one, open(more, "rb") as other:
        assert one.read() == held
        assert other.read() == held
    assert tee.wait(10) == 0


def test_a_missing_fifo_is_never_created(bash: Bash, tmp_path: Path) -> None:
    for args in ('-i "$D/in" -o "$D/#fifo12"', '-i "$D/#fifo11" -o "$D/out"'):
        (tmp_path / "in").write_bytes(b"x")
        result = bash(f"runtime/dgsh-tee {args}")
        assert result.returncode == 2
        assert b"mkfifo" in result.stderr
    assert not (tmp_path / "#fifo12").exists()
    assert not (tmp_path / "#fifo11").exists()


def test_a_full_disk_is_an_error_with_a_marker(bash: Bash, tmp_path: Path, data: Path) -> None:
    result = bash("""
    mkfifo "$D/i" "$D/o"
    exec 4<> "$D/o"
    ( ulimit -f 2048; exec runtime/dgsh-tee -i "$D/i" -o "$D/o" -I -m 1M -T "$D" ) & tee=$!
    cat "$D/in" > "$D/i"
    wait $tee; echo $?
    """)
    assert result.stdout == b"1\n"
    assert b"cannot spill" in result.stderr
    assert b"next:" in result.stderr
    assert list((tmp_path / "state" / "failures").iterdir())


def test_memory_stays_under_the_cap_whatever_is_held(bash: Bash, data: Path) -> None:
    result = bash("""
    mkfifo "$D/i" "$D/o"
    runtime/dgsh-tee -i "$D/i" -o "$D/o" -I & tee=$!
    exec 4<> "$D/o"
    { for i in $(seq 20); do cat "$D/in"; done; } > "$D/i"
    sleep 0.1
    grep VmHWM /proc/$tee/status
    kill -9 $tee
    """)
    assert int(result.stdout.split()[1]) < 120_000  # kB, with 200 MB held
