"""Uploads that wait for their second step, and whose they are."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from punchlib.runtime import pending, state


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    state.prepare_folder(str(tmp_path / "state"))
    return tmp_path / "state"


def test_pending_puts_are_kept_until_dropped(folder: Path) -> None:
    upload: dict[str, object] = {"bucket": "b", "key": "k", "upload_id": "u", "parts": []}
    pending.add(upload, [str(folder)])
    assert pending.uploads(str(folder)) == [upload]
    pending.drop(str(folder))
    assert pending.uploads(str(folder)) == []


def test_a_put_that_has_ended_counts_however_the_clock_was_set(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: dict[str, object] = {"bucket": "b", "key": "k", "upload_id": "u", "parts": None}
    pending.add(begun, [str(folder)])
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now - 2 * 10**9)
    pending.add(begun | {"parts": []}, [str(folder)])
    assert pending.uploads(str(folder)) == [begun | {"parts": []}]


def test_a_put_that_several_shells_may_settle_is_settled_by_the_first(tmp_path: Path) -> None:
    folders = [str(tmp_path / name) for name in ("inner", "outer")]
    for each in folders:
        state.prepare_folder(each)
    upload: dict[str, object] = {"bucket": "b", "key": "k", "upload_id": "u", "parts": []}
    pending.add(upload, folders)
    pending.add(upload | {"upload_id": "another"}, folders[1:])
    assert [u["upload_id"] for u in pending.uploads(folders[0])] == ["u"]
    pending.drop(folders[0])
    assert [u["upload_id"] for u in pending.uploads(folders[1])] == ["another"]
