"""r_split, r_wrap, r_unwrap and r_merge through real FIFOs."""

from __future__ import annotations

from pathlib import Path

import pytest

from punchlib.runtime.blocks import BlockHeader
from tests.support.privilege import MODES_APPLY

from .conftest import Bash

WAIT = "\nsource runtime/wait_for_output_and_sigpipe_rest.sh $p\nexit $internal_exec_status\n"


def frame(block_id: int, data: bytes, *, is_last: bool = True, size: int | None = None) -> bytes:
    return BlockHeader(block_id, len(data) if size is None else size, is_last).encode() + data


def job(*stages: str, fifos: int = 0) -> str:
    """A script in the shape that PaSh generates: FIFOs, stages in the background, the wait."""
    lines = [f'rm -f "$D/#fifo{n}"; mkfifo "$D/#fifo{n}"' for n in range(fifos)]
    lines.append('p=""')
    for stage in stages:
        lines += [f"{{ {stage} & }}", 'p="${!} ${p}"']
    return "\n".join(lines) + WAIT


def split_job(width: int, middle: str, merge: str, *, batch: int = 50_000, flag: str = "") -> str:
    """cat in | r_split | one `middle` a branch | `merge`. F(n) are the FIFOs."""
    outs = [f'"$D/#fifo{1 + n}"' for n in range(width)]
    mids = [f'"$D/#fifo{1 + width + n}"' for n in range(width)]
    return job(
        'cat "$D/in" > "$D/#fifo0"',
        f'runtime/r_split {flag} "$D/#fifo0" {batch} {" ".join(outs)}',
        *(f"{middle} < {o} > {m}" for o, m in zip(outs, mids, strict=True)),
        merge.format(" ".join(mids)),
        fifos=1 + 2 * width,
    )


@pytest.fixture
def text(tmp_path: Path) -> bytes:
    data = b"".join(b"%d the quick brown fox %d\n" % (n * 7919 % 100_003, n) for n in range(30_000))
    (tmp_path / "in").write_bytes(data)
    return data


@pytest.mark.parametrize("width", [1, 2, 5])
def test_framed_blocks_come_back_in_order(
    bash: Bash, tmp_path: Path, text: bytes, width: int
) -> None:
    script = split_job(
        width, "runtime/r_wrap bash -c 'tr a-z A-Z'", 'runtime/r_merge {} > "$D/out"'
    )
    result = bash(script)
    assert (result.returncode, result.stderr) == (0, b"")
    assert (tmp_path / "out").read_bytes() == text.upper()


def test_raw_parts_hold_whole_lines(bash: Bash, tmp_path: Path, text: bytes) -> None:
    script = split_job(3, "sort", 'sort -m {} > "$D/out"', flag="-r")
    result = bash(script)
    assert (result.returncode, result.stderr) == (0, b"")
    assert (tmp_path / "out").read_bytes() == b"".join(sorted(text.splitlines(keepends=True)))


def test_grep_that_finds_nothing_is_no_failure(bash: Bash, tmp_path: Path, text: bytes) -> None:
    result = bash(split_job(2, "runtime/r_wrap grep nowhere", 'runtime/r_merge {} > "$D/out"'))
    assert (result.returncode, result.stderr) == (0, b"")
    assert (tmp_path / "out").read_bytes() == b""


@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        ("no-such-tool", 127, b"cannot run no-such-tool"),
        ("bash -c 'no-such-tool'", 127, b"ended with status 127"),
        ("bash -c 'kill -9 $$'", 137, b"was killed by signal 9"),
        ("bash -c 'cat; exit 3'", 3, b"ended with status 3"),
    ],
)
def test_a_command_that_fails_fails_the_script(
    bash: Bash, tmp_path: Path, text: bytes, command: str, status: int, said: bytes
) -> None:
    result = bash(split_job(2, f"runtime/r_wrap {command}", 'runtime/r_merge {} > "$D/out"'))
    assert result.returncode == status
    assert said in result.stderr
    assert b"r_wrap" in result.stderr
    markers = list((tmp_path / "state" / "failures").iterdir())
    assert any("r_wrap" in marker.read_text() for marker in markers)


@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        ("no-such-tool", 127, b"cannot run no-such-tool: No such file"),
        ("plain-file", 126, b"cannot run plain-file: Permission denied"),
        ("./closed/tool", 126, b"cannot run ./closed/tool: Permission denied"),
    ],
)
def test_a_closed_folder_in_path_changes_no_status(
    bash: Bash, command: str, status: int, said: bytes
) -> None:
    result = bash(
        "mkdir -m 0 closed; mkdir open; echo echo >open/plain-file\n"
        f"echo x | PATH=closed:open:$PATH {' '.join(MODES_APPLY)} runtime/r_wrap {command}"
    )
    assert (result.returncode, said in result.stderr) == (status, True), result.stderr


@pytest.mark.parametrize(
    "command",
    [
        "head -c 100",  # reads some
        "bash -c 'echo only this'",  # reads nothing
        "bash -c 'exec <&-; seq 200000'",  # closes its input and prints more than any pipe holds
        "bash -c 'seq 100000; cat; seq 100000'",  # prints long before it reads
    ],
)
def test_commands_that_read_as_they_like(bash: Bash, tmp_path: Path, command: str) -> None:
    blocks = [b"%d\n" % n * 150_000 for n in range(3)]
    (tmp_path / "in").write_bytes(b"".join(frame(n, b) for n, b in enumerate(blocks)))
    result = bash(f'runtime/r_wrap {command} < "$D/in" | runtime/r_unwrap > "$D/out"')
    assert (result.returncode, result.stderr) == (0, b"")
    expected = bash(
        "".join(
            f'printf "{n}\\n%.0s" $(seq 150000) > "$D/b"; {command} < "$D/b"\n' for n in range(3)
        )
    )
    assert (tmp_path / "out").read_bytes() == expected.stdout


def test_pieces_of_one_block_are_one_run(bash: Bash) -> None:
    framed = frame(0, b"a\n", is_last=False) + frame(0, b"b\n", is_last=False) + frame(0, b"")
    result = bash("runtime/r_wrap wc -l | runtime/r_unwrap", stdin=framed + frame(1, b"c\n"))
    assert result.stdout == b"2\n1\n"


@pytest.mark.parametrize("raw", [b"short\n", b"longer than any header would be\n" * 100_000])
def test_unframed_input_is_one_block(bash: Bash, raw: bytes) -> None:
    result = bash("runtime/r_wrap rev | runtime/r_unwrap | rev", stdin=raw)
    assert (result.returncode, result.stdout) == (0, raw)


@pytest.mark.parametrize("tool", ["r_wrap cat", "r_unwrap", "r_merge /dev/stdin"])
@pytest.mark.parametrize(
    "data",
    [
        frame(0, b"whole\n") + frame(1, b"half", size=1000),
        frame(0, b"whole\n") + BlockHeader(1, 5, True).encode()[:11],
        frame(0, b"whole\n") + b"this is certainly no header at all",
        frame(0, b"lies\n", size=3) + frame(1, b"next\n"),
        BlockHeader(0, 5, True).encode()[:11],
    ],
    ids=["payload", "header", "garbage", "lying-size", "first-header"],
)
def test_truncated_input_is_an_error(bash: Bash, tmp_path: Path, tool: str, data: bytes) -> None:
    result = bash(f"runtime/{tool} > $D/out", stdin=data)
    assert result.returncode == 6
    assert len(result.stderr.splitlines()) == 2, result.stderr
    assert list((tmp_path / "state" / "failures").iterdir())


def test_the_marker_is_there_before_the_output_ends(bash: Bash, tmp_path: Path) -> None:
    script = """
    runtime/r_unwrap | { cat >/dev/null; ls "$D/state/failures" | wc -l; }
    """
    for _ in range(5):
        result = bash(script, stdin=frame(0, b"x", size=9))
        assert int(result.stdout) >= 1


def test_r_merge_goes_on_after_the_first_end(bash: Bash, tmp_path: Path) -> None:
    for name, count in (("a", 1), ("b", 4), ("c", 2)):
        data = b"".join(frame(n, b"%s%d\n" % (name.encode(), n)) for n in range(count))
        (tmp_path / name).write_bytes(data)
    result = bash('runtime/r_merge "$D/a" "$D/b" "$D/c"')
    assert result.stdout.split() == [b"a0", b"b0", b"c0", b"b1", b"c1", b"b2", b"b3"]


def test_an_output_whose_reader_has_gone_is_dropped(
    bash: Bash, tmp_path: Path, text: bytes
) -> None:
    script = split_job(2, "cat", "true {}", flag="-r", batch=10_000)
    script = script.replace('cat < "$D/#fifo1" > "$D/#fifo3"', 'head -n 1 < "$D/#fifo1" > "$D/one"')
    script = script.replace('> "$D/#fifo4"', '> "$D/rest"')
    result = bash(script)
    assert (result.returncode, result.stderr) == (0, b"")
    assert len((tmp_path / "one").read_bytes().splitlines()) == 1
    assert len((tmp_path / "rest").read_bytes()) > len(text) * 0.45
    assert (
        bash('mkfifo "$D/x"; true < "$D/x" & runtime/r_split -r "$D/in" 9 "$D/x"').returncode == 141
    )


@pytest.mark.parametrize("width", [2, 3])
def test_an_empty_input_ends_everywhere(bash: Bash, tmp_path: Path, width: int) -> None:
    (tmp_path / "in").write_bytes(b"")
    result = bash(split_job(width, "runtime/r_wrap wc -l", 'runtime/r_merge {} > "$D/out"'))
    assert (result.returncode, result.stderr) == (0, b"")
    assert (tmp_path / "out").read_bytes() == b""


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ('runtime/r_split "$D/in"', b"too few"),
        ('runtime/r_split "$D/in" lots "$D/in"', b"'lots'"),
        ('runtime/r_split "$D/missing" 10 "$D/in"', b"missing"),
        ('runtime/r_split "$D/in" 10 "$D/#fifo 9"', b"mkfifo"),
        ('runtime/r_merge "$D/missing"', b"mkfifo"),
        ("runtime/r_merge", b"no input"),
        ("runtime/r_wrap", b"no command"),
        ('runtime/split "$D/in" x "$D/in"', b"'x'"),
        ('runtime/auto-split.sh "$D/in"', b"too few"),
    ],
)
def test_wrong_arguments(
    bash: Bash, tmp_path: Path, text: bytes, command: str, named: bytes
) -> None:
    result = bash(command)
    assert result.returncode == 2
    assert named in result.stderr
    assert not (tmp_path / "#fifo 9").exists()
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize("through", ["file", "fifo"])
def test_auto_split_gives_contiguous_parts(
    bash: Bash, tmp_path: Path, text: bytes, through: str
) -> None:
    source = '"$D/in"' if through == "file" else '<(cat "$D/in")'
    outs = [tmp_path / f"part {n}" for n in range(7)]
    for out in outs:
        out.touch()
    result = bash(f'runtime/auto-split.sh {source} "$D"/part*')
    assert (result.returncode, result.stderr) == (0, b"")
    parts = [out.read_bytes() for out in outs]
    assert b"".join(parts) == text
    assert {part.count(b"\n") for part in parts[:-1]} == {30_000 // 7}


def test_split_gives_lines_to_each_output(bash: Bash, tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).touch()
    bash('runtime/split /dev/stdin 2 "$D/a" "$D/b" "$D/c"', stdin=b"1\n2\n3\n4\n5\n6\n7")
    parts = [(tmp_path / name).read_bytes() for name in "abc"]
    assert parts == [b"1\n2\n", b"3\n4\n", b"5\n6\n7"]


def test_a_terminated_splitter_leaves_a_marker(bash: Bash, tmp_path: Path, text: bytes) -> None:
    script = """
    mkfifo "$D/i" "$D/o"
    runtime/r_split -r "$D/i" 100 "$D/o" & pid=$!
    exec 3<>"$D/i"; cat "$D/o" >/dev/null & echo hello >&3
    sleep 0.3; kill $pid; wait $pid; exit $?
    """
    result = bash(script)
    assert result.returncode == 143
    assert b"ended by SIGTERM" in result.stderr
    assert list((tmp_path / "state" / "failures").iterdir())


@pytest.mark.parametrize(
    "command",
    [
        'runtime/r_unwrap < "$D/framed"',
        'runtime/r_merge "$D/framed"',
        'runtime/r_wrap cat < "$D/framed"',
        'runtime/r_split "$D/framed" 1000 /dev/stdout',
        'runtime/dgsh-tee -i "$D/framed" -o /dev/stdout',
    ],
)
def test_a_full_disk_is_an_error(bash: Bash, tmp_path: Path, command: str) -> None:
    (tmp_path / "framed").write_bytes(frame(0, b"line\n" * 100_000))
    result = bash(f"{command} > /dev/full")
    assert result.returncode == 1
    assert b"No space left on device\n  next: make room" in result.stderr
    assert list((tmp_path / "state" / "failures").iterdir())


@pytest.mark.parametrize(
    "tool",
    [
        "dgsh-tee -o /dev/stdout",
        "dgsh-tee -i /dev/stdin -o /dev/stdout -I",
        "r_split -r /dev/stdin 1000 /dev/stdout",
        "split /dev/stdin 5 /dev/stdout",
        "auto-split.sh /dev/stdin /dev/stdout",
        "r_merge /dev/stdin",
        "sh-reduce cat /dev/stdin",
    ],
)
def test_an_input_of_which_others_have_read(bash: Bash, tmp_path: Path, tool: str) -> None:
    """Opened anew, a file would begin at its beginning."""
    rest = b"b\nc\n"
    wanted = frame(0, rest) if "r_merge" in tool else rest
    (tmp_path / "in").write_bytes(b"a\n" + wanted)
    for opened in ('<"$D/in"', '< <(cat "$D/in")'):
        result = bash(f"{{ read -r x; runtime/{tool}; }} {opened} | cat")
        assert (result.returncode, result.stderr, result.stdout) == (0, b"", rest), opened
