"""Any folder and any manifest: a job, or one error of ours that names the file."""

from __future__ import annotations

import math
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchlib.errors import UsageError
from punchlib.jobs import manifest

#: Lines that are nearly a manifest.
_LINE = st.sampled_from(
    [
        "timeout = 600",
        "timeout = -1",
        "timeout = 0.5",
        "timeout = nan",
        "timeout = inf",
        "timeout = true",
        'timeout = "600"',
        "timeout = 1979-05-27",
        f"timeout = {'9' * 5000}",
        "[nodes.a]",
        "[nodes.nobody]",
        "[[nodes.a]]",
        "[nodes]",
        "a = 1",
        'place = "ec2"',
        'place = "moon"',
        'args = ["v1", "verbose"]',
        "args = [1]",
        'args = "v1"',
        "nodes = 3",
        "nodes.a = 3",
        "x = " + "[" * 2000,
        "x = " + "{a=" * 2000,
        "[" + ".".join("x" * 2000) + "]",
    ]
) | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def load(folder: Path) -> None:
    """Loads what is there, and looks at what comes out."""
    try:
        job = manifest.load(folder)
    except UsageError as error:
        assert error.message
        assert error.exit_code == 2
        return
    assert job.nodes
    assert all(node.place in ("ec2", "lambda") for node in job.nodes)
    assert job.timeout is None or 0 < job.timeout < math.inf


@given(st.lists(_LINE, max_size=6).map("\n".join).map(str.encode) | st.binary(max_size=40))
def test_any_manifest(text: bytes) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        (folder / "a.sh").write_text("sort in")
        (folder / manifest.MANIFEST).write_bytes(text)
        load(folder)
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("name", ["a.sh", manifest.MANIFEST])
def test_a_folder_where_a_file_should_be(name: str, tmp_path: Path) -> None:
    (tmp_path / "b.sh").write_text("sort in")
    (tmp_path / name).mkdir()
    with pytest.raises(UsageError, match=name):
        manifest.load(tmp_path)


def test_a_link_that_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "b.sh").write_text("sort in")
    (tmp_path / "a.sh").symlink_to("gone")
    with pytest.raises(UsageError, match=r"a\.sh"):
        manifest.load(tmp_path)
