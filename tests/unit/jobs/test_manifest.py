"""A folder of scripts, and what a manifest may say about it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from punchlib.errors import UsageError
from punchlib.jobs import manifest


def test_scripts_at_the_top_and_below(tmp_path: Path) -> None:
    (tmp_path / "b.sh").write_text("sort in")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a.sh").write_text("sort -m in")
    (tmp_path / "notes.txt").write_text("no script")
    job = manifest.load(tmp_path)
    assert [(n.id, n.place) for n in job.nodes] == [("a", "ec2"), ("b", "lambda")]


def test_the_manifest_wins(tmp_path: Path) -> None:
    (tmp_path / "a.sh").write_bytes(b"sort -m in # \xff is no UTF-8")
    (tmp_path / "job.toml").write_text(
        'timeout = 12\n[nodes.a]\nplace = "lambda"\nargs = ["v1", "two words"]\n'
    )
    job = manifest.load(tmp_path)
    assert job.timeout == 12
    assert job.nodes[0].place == "lambda"
    assert job.nodes[0].args == ("v1", "two words")


def test_a_result_is_a_node_here(tmp_path: Path) -> None:
    (tmp_path / "a.sh").write_text("sort in")
    (tmp_path / "job.toml").write_text('[result]\nconnection = "k"\n')
    job = manifest.load(tmp_path)
    assert job.result == "k"
    assert [(n.id, n.place) for n in job.nodes] == [("a", "lambda"), ("result", "here")]
    (tmp_path / "result.sh").write_text("sort in")
    with pytest.raises(UsageError, match="has the name of the node"):
        manifest.load(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("timeout = -1", "timeout = -1"),
        ("timeout = [", "is not TOML"),
        ("nodes = 3", "nodes is not a table"),
        ('[nodes.b]\nplace = "ec2"', "there is no b.sh"),
        ('[nodes.a]\nplace = "moon"', "nodes.a.place = 'moon'"),
        ("[nodes.a]\nargs = [1]", r"nodes.a.args = \[1\]"),
        ("memory = 3", "unknown entry 'memory'"),
        ("result = 3", "result is not a table"),
        ("[result]\nconnection = 3", "is no result"),
        ("[result]\nconnection = 'a*b'", "is no result"),
        ("[result]\nkey = 'a'", "is no result"),
    ],
)
def test_a_wrong_manifest_is_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.sh").write_text("sort in")
    (tmp_path / "job.toml").write_text(text)
    with pytest.raises(UsageError, match=message):
        manifest.load(tmp_path)


def test_folders_that_are_no_job(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a folder"):
        manifest.load(tmp_path / "none")
    with pytest.raises(UsageError, match="holds no script"):
        manifest.load(tmp_path)
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.sh").write_text("")
    with pytest.raises(UsageError, match="two scripts have the id 'a'"):
        manifest.load(tmp_path)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        pytest.param(lambda p: p.mkdir(), "Is a directory", id="a folder"),
        pytest.param(os.mkfifo, "not a regular file of the job", id="a FIFO"),
        pytest.param(lambda p: p.symlink_to("/dev/zero"), "not a regular file", id="/dev/zero"),
        pytest.param(lambda p: p.symlink_to("/etc/passwd"), "not a regular file", id="outside"),
        pytest.param(lambda p: p.symlink_to("nowhere"), "No such file", id="dangling"),
        pytest.param(lambda p: p.symlink_to(p.name), "links|symbolic", id="a circle"),
        pytest.param(lambda p: os.truncate(_made(p), 17 << 20), "bytes", id="huge"),
    ],
)
@pytest.mark.parametrize("name", ["x.sh", "job.toml"])
def test_what_only_poses_as_a_file(
    name: str, make: Callable[[Path], object], told: str, tmp_path: Path
) -> None:
    """One message, no traceback, and nobody waits for a FIFO's writer."""
    (tmp_path / "a.sh").write_text("true")
    make(tmp_path / name)
    with pytest.raises(UsageError, match=told) as refused:
        manifest.load(tmp_path)
    assert name in refused.value.message


@pytest.mark.parametrize("name", [b"a\xff.sh", b"a\nb.sh", b"\x1b[2J.sh", b"x" * 210 + b".sh"])
def test_names_of_scripts(name: bytes, tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_text("true")
    with pytest.raises(UsageError) as refused:
        manifest.load(tmp_path)
    assert refused.value.message.isprintable()


def test_a_link_within_the_job_is_a_script(tmp_path: Path) -> None:
    (tmp_path / "a b é.sh").write_text("true")
    (tmp_path / "l.sh").symlink_to("a b é.sh")
    assert [n.id for n in manifest.load(tmp_path).nodes] == ["a b é", "l"]


def _made(path: Path) -> Path:
    path.touch()
    return path
