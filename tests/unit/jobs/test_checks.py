"""Refused is what cannot end well, by name; what is merely unusual is not refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from punchlib.errors import UsageError
from punchlib.jobs import checks, manifest
from punchlib.jobs.events import EventSink, JobEvent
from tests.support.jobgen import JOBS, sort_job


def check(folder: Path, *, local: bool = False) -> list[JobEvent]:
    events: list[JobEvent] = []
    checks.check(manifest.load(folder), EventSink(events.append), local=local)
    return events


def refusal(folder: Path) -> str:
    with pytest.raises(UsageError) as caught:
        check(folder)
    return caught.value.message


def job(folder: Path, **scripts: str) -> Path:
    for name, text in scripts.items():
        (folder / f"{name}.sh").write_text(text)
    return folder


@pytest.mark.parametrize("name", JOBS)
def test_generated_jobs_pass_without_a_warning(name: str, tmp_path: Path) -> None:
    JOBS[name]().write(tmp_path)
    assert check(tmp_path, local=True) == []


def test_a_missing_script_is_noticed_by_its_keys(tmp_path: Path) -> None:
    draft = sort_job(2)
    draft.write(tmp_path)
    (tmp_path / "worker1.sh").unlink()
    message = refusal(tmp_path)
    keys = [a.split("*")[1] for a in draft.scripts["worker1"].streams[0]]
    assert all(key in message for key in keys)
    assert "splitter.sh has no recv" in message
    assert "merger.sh has no send" in message


def test_a_key_with_two_senders(tmp_path: Path) -> None:
    job(
        tmp_path,
        a="mkfifo /tmp/f; cat x >/tmp/f & /opt/pashlib send*k*0*1*/tmp/f",
        b="mkfifo /tmp/f; cat x >/tmp/f & /opt/pashlib send*k*0*1*/tmp/f",
        c="mkfifo /tmp/f; cat </tmp/f & /opt/pashlib recv*k*1*0*/tmp/f",
    )
    assert "the key k has 2 send ends: a.sh, b.sh" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("text", "lacks"),
    [
        ('mkfifo "/tmp/#f1"; cat in >"/tmp/#f1" &', "reader"),
        ("mkfifo /tmp/f; sort /tmp/f &", "writer"),
        ("mkfifo /tmp/f; runtime/dgsh-tee -i /tmp/f -o /dev/null -I -b 5M &", "writer"),
        ("mkfifo /tmp/f; runtime/r_split -r in 1000000 /tmp/f &", "reader"),
        ("mkfifo /tmp/f; python3.9 aws/s3-get-object.py 'a key' /tmp/f &", "reader"),
        ("mkfifo /tmp/f; python3.9 aws/s3-put-object.py 'a key' /tmp/f $1 &", "writer"),
        ("mkfifo /tmp/f # and a reader: cat /tmp/f\ncat in >/tmp/f", "reader"),
    ],
)
def test_a_fifo_with_one_end(text: str, lacks: str, tmp_path: Path) -> None:
    job(tmp_path, a=text)
    message = refusal(tmp_path)
    assert "a.sh: the FIFO /tmp/" in message
    assert message.endswith(f"has no {lacks}")


@pytest.mark.parametrize(
    "text",
    [
        # One end is where nobody looks: inside of a quoted command, a substitution, a function.
        "mkfifo /tmp/f; bash -c 'cat in >/tmp/f' & cat /tmp/f",
        "mkfifo /tmp/f; cat in >/tmp/f & x=$(cat /tmp/f)",
        "mkfifo /tmp/f; cat in >/tmp/f & diff <(cat </tmp/f) other",
        "mkfifo /tmp/f; feed() { cat in >/tmp/f; }; feed & sort </tmp/f",
        "mkfifo /tmp/f; cat in >/tmp/f & while read -r line; do echo $line; done </tmp/f",
        "mkfifo /tmp/f; exec 3<>/tmp/f; cat in >&3",
        "mkfifo /tmp/f; bash <<EOF\ncat in >/tmp/f &\ncat /tmp/f\nEOF",
        "mkfifo /tmp/f; (( x = 1 << 2 ))\ncat in >/tmp/f &\ncat /tmp/f",
        "mkfifo /tmp/f; echo \"it's\" 'a \"#' \\# $'don\\'t'; cat in >/tmp/f & cat /tmp/f",
        "mkfifo /tmp/f; sort -o /tmp/f in & sort /tmp/f",
        "mkfifo /tmp/f; ffmpeg -i in -f mp3 /tmp/f & ffmpeg -i /tmp/f out",
        # Never used: nobody waits for it.
        "mkfifo /tmp/f; rm -f /tmp/f",
        # A path, or a key, that only bash can know.
        'd=$(mktemp -d); mkfifo "$d/f"; cat in >"$d/f"',
        "mkfifo /tmp/f; cat /tmp/f & /opt/pashlib recv*$KEY*1*0*/tmp/f",
        # Not to be followed at all.
        "mkfifo /tmp/f; echo 'open",
    ],
)
def test_unusual_scripts_are_not_refused(text: str, tmp_path: Path) -> None:
    check(job(tmp_path, a=text))


def test_what_is_not_understood_is_a_warning(tmp_path: Path) -> None:
    events = check(job(tmp_path, a='mkfifo "$d/f"'))
    assert [(e.kind, e.text) for e in events] == [
        ("warning", "a.sh was not checked wholly: the FIFO $d/f depends on a variable")
    ]


@pytest.mark.parametrize(
    ("one", "other", "refused"),
    [
        ("export LC_ALL=en_US.UTF-8\nsort in", "sort -m in", True),
        ("export LANG=en_US.UTF-8\nsort in", "export LC_ALL=C\ncomm a b", True),
        ("LC_ALL=en_US.UTF-8 sort in", "sort in", True),
        ("export LC_ALL=C\nsort in", "export LANG=C.UTF-8\nsort in", False),
        ("export LC_ALL=POSIX\nsort in", "sort in", False),
        ("export LANG=en_US.UTF-8\nexport LC_ALL=C\nsort in", "sort in", False),
        ("export LC_ALL=en_US.UTF-8\nsort in", "export LC_ALL=en_US.utf8\nsort in", False),
        ("export LC_ALL=en_US.UTF-8\ngrep x in", "sort in", False),
        ("export LC_ALL=$WANTED\nsort in", "sort in", False),
    ],
)
def test_only_a_real_difference_in_collation(
    one: str, other: str, refused: bool, tmp_path: Path
) -> None:
    job(tmp_path, a=one, b=other)
    if refused:
        assert "collate differently" in refusal(tmp_path)
    else:
        check(tmp_path)


def test_a_tool_that_is_not_on_this_machine(tmp_path: Path) -> None:
    job(tmp_path, a="f() { :; }\n{ no-such-tool-here x & }\n{ f & }\n{ sort in & }")
    with pytest.raises(UsageError, match="no-such-tool-here, a stage of a, is not on this machine"):
        check(tmp_path, local=True)
    check(tmp_path)
