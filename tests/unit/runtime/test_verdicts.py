"""Whether a sender may say END: what it waits for, what it does not, and what it is told."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from punchlib.runtime import state, verdict_watch
from punchlib.runtime.script_shell import Process
from tests.support.jobtools import wait_until


class Script:
    """A script's shell and a stage of it, as the state folder knows them."""

    def __init__(self, folder: Path) -> None:
        self.verdicts = folder / "verdicts"
        self.processes = [subprocess.Popen(["sleep", "600"]) for _ in range(2)]
        self.shell, self.stage = (Process(p.pid).name for p in self.processes)
        state.adopt(
            state.Scope.decode(
                f"given|{self.shell}|{self.shell}|{self.shell}|||", str(folder), "/proc"
            )
        )

    def say(self, *words: str) -> None:
        for word in words:
            (self.verdicts / f"{self.shell}.{word}").touch()

    def end(self, which: int) -> None:
        self.processes[which].kill()
        self.processes[which].wait()

    def freeze_dead(self) -> None:
        """The stage is a zombie: nobody has asked how it ended."""
        self.processes[1].kill()
        while not Process(self.processes[1].pid).dead:
            os.sched_yield()


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Script]:
    folder = tmp_path / "state"
    state.prepare_folder(str(folder))
    monkeypatch.setattr(state, "_kept", None)
    monkeypatch.setattr(state, "_in_engine", False)
    script = Script(folder)
    yield script
    for process in script.processes:
        process.kill()
        process.wait()


async def soon(seconds: float = 0.3) -> str | None:
    async with asyncio.timeout(seconds):
        found = await verdict_watch.upstream_failure()
    return found.reason if found else None


def waits() -> bool:
    """Whether the answer does not come by itself."""
    try:
        asyncio.run(soon())
    except TimeoutError:
        return True
    return False


def test_a_stage_that_runs_is_not_waited_for(script: Script) -> None:
    script.say(f"stage.{script.stage}", "begun")
    assert asyncio.run(soon()) is None


@pytest.mark.parametrize("how", ["gone", "zombie"])
def test_a_dead_one_is_until_it_is_judged(script: Script, how: str) -> None:
    script.say(f"stage.{script.stage}", "begun")
    script.end(1) if how == "gone" else script.freeze_dead()
    assert waits()
    script.say(f"good.{script.stage}")
    assert asyncio.run(soon()) is None


def test_a_state_folder_of_any_name(script: Script, tmp_path: Path) -> None:
    """A name is bytes: one that is no UTF-8 would end the sender."""
    folder = script.verdicts.parent.rename(tmp_path / os.fsdecode(b"st\xff"))
    script.verdicts = folder / "verdicts"
    state.scope().place = str(folder)
    test_a_dead_one_is_until_it_is_judged(script, "gone")


def stop(pid: int) -> None:
    """Kills a process and what it has started, from below."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        stop(int(child))
    os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("after", ["exit $?", "sleep 600"])
def test_a_shell_whose_command_has_died(script: Script, tmp_path: Path, after: str) -> None:
    """`( sort; exit $? )`: it lives for a moment longer than what wrote into the FIFO."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for _ in range(20):
        stage = subprocess.Popen(["bash", "-c", f"bash -c 'echo; sleep 600' >{fifo}; {after}"])
        read = os.open(fifo, os.O_RDONLY)
        assert os.read(read, 100)
        name = Process(stage.pid).name
        script.say(f"stage.{name}", "begun")
        (child,) = Path(f"/proc/{stage.pid}/task/{stage.pid}/children").read_text().split()
        stop(int(child))
        assert os.read(read, 100) == b""  # as the sender sees it
        os.close(read)
        if "sleep" in after:  # it went on to something else
            assert asyncio.run(soon(4)) is None
            stop(stage.pid)
        else:
            assert waits()
        stage.wait()
        script.say(f"good.{name}")


def test_a_stage_that_has_closed_its_stdout_is_about_to_end(script: Script) -> None:
    """As GNU's tools do before they exit: the sender sees the FIFO's end, and no status yet."""
    stage = subprocess.Popen(["bash", "-c", "exec sleep 600 >&-"])
    wait_until(lambda: Process(stage.pid).comm == b"sleep")
    script.say(f"stage.{Process(stage.pid).name}", "begun")
    assert waits()
    stop(stage.pid)
    stage.wait()


def test_the_wait_script_is_waited_for(script: Script) -> None:
    assert waits()
    script.say("begun")
    assert asyncio.run(soon()) is None


def test_a_bad_verdict_travels(script: Script) -> None:
    script.say(f"stage.{script.stage}", "begun")
    script.end(1)

    async def work() -> str | None:
        question = asyncio.ensure_future(soon(5))
        await asyncio.sleep(0.1)
        state.mark_failed("wait", "stage 2 of 3 was killed by SIGKILL: sort")
        return await question

    assert asyncio.run(work()) == "wait: stage 2 of 3 was killed by SIGKILL: sort"


@pytest.mark.parametrize("begun", [False, True])
def test_a_shell_that_died_before_it_judged(script: Script, begun: bool) -> None:
    if begun:
        script.say(f"stage.{script.stage}", "begun")
        script.end(1)
    script.end(0)
    said = asyncio.run(soon(5))
    assert said is not None
    assert "ended before it had judged" in said


def test_a_shell_that_judged_all_and_ended(script: Script) -> None:
    script.say(f"stage.{script.stage}", "begun", f"good.{script.stage}")
    script.end(1)
    script.end(0)
    assert asyncio.run(soon()) is None


def test_a_pid_that_came_again_is_another_stage(script: Script) -> None:
    pid = script.stage.partition("-")[0]
    script.say(f"stage.{pid}-1", "begun")
    assert waits()


def test_without_inotify_it_is_slower_and_right(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel gives a user 128 instances."""
    monkeypatch.setattr(verdict_watch, "_libc", type("None", (), {"inotify_init1": lambda *_: -1}))
    script.say(f"stage.{script.stage}", "begun")
    script.end(1)

    async def work() -> str | None:
        question = asyncio.ensure_future(soon(5))
        await asyncio.sleep(0.1)
        script.say(f"good.{script.stage}")
        return await question

    assert asyncio.run(work()) is None


def test_a_process_on_its_way_out_is_dead() -> None:
    """Its FIFO is closed before it is a zombie: flags say so (PF_EXITING)."""
    process = subprocess.Popen(["sleep", "600"])
    try:
        assert not Process(process.pid).dead
        process.send_signal(signal.SIGKILL)
        while not Process(process.pid).dead:
            os.sched_yield()
    finally:
        process.wait()


def test_who_was_told_to_write_the_fifo_that_has_ended(script: Script) -> None:
    """`tee FIFO` has yet to say how all went; ours say that before they close."""
    program = [sys.executable, "-c", "import time; time.sleep(600)", "-o", "out/#fifo1"]
    script.processes.append(subprocess.Popen(program))
    pid = script.processes[-1].pid
    # In the midst of its exec it has no command line yet, and a Process keeps what it has read.
    wait_until(lambda: Process(pid).is_ending(b"#fifo1"))
    stage = Process(pid)
    script.say(f"stage.{stage.name}", "begun")
    assert stage.is_ending(b"#fifo1")
    assert not stage.is_ending(b"#fifo2")
    assert not stage.is_ending(b"#fifo1", {stage.name})

    async def ask(fifo: str) -> object:
        async with asyncio.timeout(0.3):
            return await verdict_watch.upstream_failure(fifo)

    assert asyncio.run(ask("/tmp/#fifo2")) is None
    with pytest.raises(TimeoutError):
        asyncio.run(ask("/tmp/#fifo1"))
    running = script.verdicts.parent / state.RUNNING / f"{stage.name}.dgsh-tee"
    running.touch()
    assert asyncio.run(ask("/tmp/#fifo1")) is None


def test_a_shell_that_may_be_about_to_judge(script: Script) -> None:
    """Or it waits for us: it is given a second."""
    unsure = state.Scope.decode(
        f"given|{script.shell}|{script.shell}||||", state.scope().place, "/proc"
    )
    state.adopt(unsure)
    assert waits()
    assert asyncio.run(soon(5)) is None
    script.say(f"stage.{script.stage}", "begun")
    script.end(1)
    assert waits()
    script.say(f"good.{script.stage}")
    assert asyncio.run(soon()) is None
