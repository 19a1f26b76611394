"""What the wait script thinks of the stages of our script.

A FIFO's end is the end of whoever wrote it, and only the shell that started a stage learns how it
ended. So before a sender says END it asks: which stages are dead *now*, and not yet judged?
For those it waits. It never waits for a stage that runs: that one may need our END, by way of
another machine (a splitter and a merger in one script).

A stage may be a shell or a wrapper whose command has died, `( sort; exit $? )`, and which is about
to say so by its own end. What is on its way to an end is left to get there: a process that has a
dead child, or a shell that has none any more and does not sleep.

The wait script speaks by the names of empty files in `verdicts/`; SHELL and STAGE are
`PID-STARTTIME`:

    SHELL.stage.STAGE   a stage that it will judge
    SHELL.begun         it has named them all
    SHELL.good.STAGE    it ended well; one that ended badly has a marker in `failures/`
"""

from __future__ import annotations

import enum
import os

from punchlib.runtime import markers, script_shell, state

#: Of a tool that began when the shell that had started it was dead; and of a script whose shell is.
_NOBODY_VOUCHES = "the shell that started it had ended: nobody vouches for it"
_NOT_JUDGED = "the shell of the script ended before it had judged all stages"


class Standing(enum.Enum):
    """What a sender at its FIFO's end is to do."""

    SETTLED = "ask for the first cause, or say END"
    #: Some stage seems to be on its way to an end, of which no file tells.
    ENDING = "look again soon"
    #: The shell that is to judge waits for us, or is about to start its next stage: `( … ) &` looks
    #: like `…` to us (bash gives it back the signals that a stage in the background ignores).
    UNSURE = "look again soon, and not for long"
    WAITING = "wait for news"


def standing(scope: state.Scope, output: bytes = b"") -> Standing:
    """How things are now with the stages of our script.

    Args:
        scope: ours.
        output: the name of the FIFO that has ended; who was told to write it is about to end, too.
    """
    if markers.failures(scope.folders, scope.proc):
        return Standing.SETTLED
    shell = _judge(scope)
    if scope.orphans:
        shell = _adopter(scope)
        if shell is None and any(_will_begin(scope, s) for s in scope.awaited):
            return Standing.WAITING
        if shell is None and _is_lost(scope):
            state.mark_failed("wait", _NOBODY_VOUCHES)
    if shell is None:
        unsure = any(_will_begin(scope, s) for s in scope.sourcing)
        return Standing.UNSURE if unsure else Standing.SETTLED
    judging = _lives(scope, shell)
    # Asked in this order: the shell's last words came before its end.
    stages = _unjudged(scope, shell)
    if stages is not None:
        processes = [script_shell.find(stage, scope.proc) for stage in stages]
        if None not in processes:
            ours = _components(scope)
            ending = any(process and process.is_ending(output, ours) for process in processes)
            return Standing.ENDING if ending else Standing.SETTLED
    if judging:
        return Standing.WAITING
    state.mark_failed("wait", _NOT_JUDGED)
    return Standing.SETTLED


def judges(scope: state.Scope) -> list[str]:
    """The shells of which one will judge the stages of our script, for somebody who waits for none.

    Which one cannot always be told before its wait script begins: subshells have the same text.

    Raises:
        LookupError: there was one, and it is dead; says so.
    """
    shells = [shell for shell in scope.sourcing if shell not in scope.over]
    if scope.orphans:
        found = _adopter(scope)
        others = [s for s in shells if s not in scope.orphans and _lives(scope, s)]
        shells = [found] if found else others
        if not shells and _is_lost(scope):
            raise LookupError(_NOBODY_VOUCHES)
    elif (begun := _begun(scope)) and begun not in scope.over:
        shells = [begun]
    if shells and not _lives(scope, shells[-1]):
        raise LookupError(_NOT_JUDGED)
    return [shell for shell in shells if _lives(scope, shell)]


def _judge(scope: state.Scope) -> str | None:
    """The shell that judges, for a sender: whose wait script has begun, or will while we wait."""
    if begun := _begun(scope):
        return begun
    last = [s for s in scope.awaited if _lives(scope, s)] or scope.awaited
    return last[-1] if last else None


def _begun(scope: state.Scope) -> str | None:
    return next((shell for shell in scope.shells if _has_begun(scope, shell)), None)


def _lives(scope: state.Scope, shell: str) -> bool:
    return script_shell.find(shell, scope.proc) is not None


def _adopter(scope: state.Scope) -> str | None:
    """The shell among whose stages an orphan is."""
    for shell in scope.shells:
        stage = f"{_verdicts(scope, shell)}/{shell}.stage."
        if any(os.path.exists(stage + name) for name in scope.orphans):  # noqa: PTH110
            return shell
    return None


def _is_lost(scope: state.Scope) -> bool:
    """Was somebody to judge this orphan, as far as can be told?

    A script that has no wait script may well have outlived who started it.
    """
    return bool(scope.sourcing) or set(scope.orphans).isdisjoint(scope.shells)


def _will_begin(scope: state.Scope, shell: str) -> bool:
    """Has this shell's wait script yet to name its stages?"""
    return not _has_begun(scope, shell) and _lives(scope, shell)


def _has_begun(scope: state.Scope, shell: str) -> bool:
    return os.path.exists(f"{_verdicts(scope, shell)}/{shell}.begun")  # noqa: PTH110


def _unjudged(scope: state.Scope, shell: str) -> list[str] | None:
    """The stages that have no verdict; None before the wait script has begun."""
    try:
        names = set(os.listdir(_verdicts(scope, shell)))  # noqa: PTH208
    except OSError:
        return None  # the folder is gone: `failures` says so
    if f"{shell}.begun" not in names:
        return None
    prefix = f"{shell}.stage."
    stages = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
    return [stage for stage in stages if f"{shell}.good.{stage}" not in names]


def _components(scope: state.Scope) -> set[str]:
    """The names of the processes that have said in our folders that they run."""
    found: set[str] = set()
    for folder in scope.folders:
        try:
            entries = state.entries(folder)
        except OSError:
            continue  # it is gone: `failures` says so
        found.update(entry.removeprefix(state.IN_ENGINE).partition(".")[0] for entry in entries)
    return found


def _verdicts(scope: state.Scope, shell: str) -> str:
    return f"{scope.folder_of(shell)}/{state.VERDICTS}"
