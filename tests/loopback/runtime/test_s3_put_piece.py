"""Pieces of one object against a real S3 API, each put by a process of its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.ministack import MiniStack

from .conftest import Bash
from .test_s3_tools import Bucket, bucket

__all__ = ["bucket"]

MIB = 1 << 20


def script(count: int, stage: str = 'cat "$D/in{n}"') -> str:
    """All pieces at once; ends with the status of the first put that failed."""
    lines = []
    for n in range(1, count + 1):
        lines.append(f'mkfifo "$D/fifo{n}" "$D/chain{n}"')
        before = f'"$D/chain{n - 1}"' if n > 1 else "''"
        after = f'"$D/chain{n}"' if n < count else "''"
        lines += [
            f'{stage.format(n=n)} > "$D/fifo{n}" &',
            f'python3.9 aws/s3-put-piece.py "k e\'y" "$D/fifo{n}" {n}/{count} {before} {after} &',
            'puts="$puts $!"',
        ]
    return "\n".join([*lines, "for p in $puts; do wait $p || code=$?; done; exit $code"])


@pytest.mark.parametrize(
    "sizes",
    [
        (0, 0),
        (1, 0, 2),
        (5 * MIB, 5 * MIB),
        (3 * MIB, 3 * MIB, 3 * MIB, 0, 1),
        (14 * MIB, 0, 100, 22 * MIB + 1, 5 * MIB - 1),
    ],
)
def test_one_object_of_all(
    sizes: tuple[int, ...], bash: Bash, bucket: Bucket, s3_env: dict[str, str], tmp_path: Path
) -> None:
    data = [os.urandom(size) for size in sizes]
    for n, piece in enumerate(data, 1):
        (tmp_path / f"in{n}").write_bytes(piece)
    result = bash(script(len(sizes)), env=s3_env | {"PUNCH_STATE_DIR": ""})
    assert (result.returncode, result.stderr) == (0, b"")
    assert bucket.get("k e'y") == b"".join(data)
    assert not bucket.uploads()


def test_a_piece_of_which_others_have_read(
    bash: Bash, bucket: Bucket, s3_env: dict[str, str], tmp_path: Path
) -> None:
    """Opened anew, a file would begin at its beginning."""
    (tmp_path / "in").write_bytes(b"a\nb\n")
    put = "python3.9 aws/s3-put-piece.py key /dev/stdin 1/1 '' ''"
    result = bash(f'{{ read -r x; {put}; }} <"$D/in"', env=s3_env)
    assert (result.returncode, result.stderr) == (0, b"")
    assert bucket.get("key") == b"b\n"


@pytest.mark.parametrize("victim", [1, 2, 3])
def test_a_put_that_is_killed(
    victim: int, bash: Bash, bucket: Bucket, s3_env: dict[str, str], tmp_path: Path
) -> None:
    bucket.put("k e'y", b"before")
    text = script(3, "{{ head -c 12000000 /dev/zero; sleep 3; }}")
    kill = f"sleep 2; set -- $puts; kill -9 ${victim}\nfor p in"
    text = text.replace("for p in", kill).replace("|| code=$?", '|| code="$code $?"')
    text = text.replace("exit $code", "echo $code")
    result = bash(text, env=s3_env | {"PUNCH_STATE_DIR": ""})
    codes = result.stdout.split()
    # Those after it are told, and abort; those before it may have ended well.
    assert b"137" in codes, (codes, result.stderr)
    assert len(codes) > 3 - victim
    assert bucket.get("k e'y") == b"before"
    if victim < 3:
        assert not bucket.uploads()
        # Of two that are told, the one that is slower may find that the other has aborted it, or
        # what the killed one's fork in the engine has left: here all are of one script.
        told = (b"has ended too early", b"the upload was aborted", b"because s3-put-piece failed")
        assert any(words in result.stderr for words in told), result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("k f 1/2 '' ''", b"the first piece has no FROM and the last no TO"),
        ("k f 2/2 '' ''", b"the first piece has no FROM and the last no TO"),
        ("k f 3/2 f ''", b"'3/2' is no N/OF"),
        ("k f 0/2 f ''", b"'0/2' is no N/OF"),
        ("k f 1/1001 '' f", b"'1/1001' is no N/OF"),
        ("k f x '' f", b"'x' is no N/OF"),
        ("k f", b"five arguments are needed"),
        ("k f 1/1 '' ''", b"no such file or FIFO: f"),
    ],
)
def test_wrong_arguments(arguments: str, said: bytes, bash: Bash, s3_env: dict[str, str]) -> None:
    result = bash(f"python3.9 aws/s3-put-piece.py {arguments}", env=s3_env)
    assert result.returncode == 2
    assert said in result.stderr


def test_a_failure_within_a_piece(
    bash: Bash, bucket: Bucket, ministack: MiniStack, s3_env: dict[str, str], tmp_path: Path
) -> None:
    """Under the wait script: the stage before the put fails, and no object appears."""
    text = """
    mkfifo "$D/a" "$D/b" "$D/chain"
    { head -c 6000000 /dev/zero > "$D/a" & }
    p=$!
    { python3.9 aws/s3-put-piece.py key "$D/a" 1/2 '' "$D/chain" & }
    p="$! $p"
    { (echo some; exit 7) > "$D/b" & }
    p="$! $p"
    { python3.9 aws/s3-put-piece.py key "$D/b" 2/2 "$D/chain" '' & }
    p="$! $p"
    source runtime/wait_for_output_and_sigpipe_rest.sh $p
    exit $internal_exec_status
    """
    result = bash(text, env=s3_env)
    assert result.returncode != 0
    assert b"ended with status 7" in result.stderr
    assert bucket.get("key") is None
    assert not bucket.uploads()
