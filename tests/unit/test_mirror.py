"""The tests mirror punchlib: each module has a namesake, or this says where it is tested.

A namesake of `punchlib/core/frames.py` is `tests/unit/core/test_frames.py` or `test_frames_*.py`.
What moves bytes through real sockets, FIFOs and processes has it in tests/loopback, since a test
without them would test its own fakes. What has neither is tested with its only user.
"""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).parents[1]
PUNCHLIB = TESTS.parent / "punchlib"

_RUNTIME = "loopback/runtime/"
#: Module -> the test, below tests/, that is about it.
ELSEWHERE = {
    "api.py": "loopback/net/test_api.py",
    "aws/answers.py": "loopback/aws/test_quick_answers.py",
    "aws/signing.py": "loopback/aws/test_quick.py",
    "aws/account.py": "loopback/aws/test_stacks.py",
    "aws/destroy.py": "loopback/aws/test_stacks.py",
    "aws/errors.py": "loopback/runtime/test_s3_tools.py",
    "aws/images.py": "e2e/test_push.py",
    "aws/layers.py": "loopback/runtime/test_layer.py",
    "cli/deploy.py": "loopback/aws/test_stacks.py",
    "cli/destroy.py": "loopback/aws/test_stacks.py",
    "cli/doctor.py": "loopback/doctor/test_commands.py",
    "cli/ec2_handler.py": "loopback/node/test_handlers.py",
    "cli/inspect.py": "loopback/runs/test_inspect.py",
    "cli/interrupt.py": "unit/test_signals.py",
    "cli/main.py": "loopback/jobs/test_cli.py",
    "cli/options.py": "loopback/jobs/test_cli.py",
    "cli/output.py": "loopback/jobs/test_cli.py",
    "cli/ping.py": "loopback/doctor/test_commands.py",
    "cli/sh.py": "loopback/sh/test_cli.py",
    "cli/sh_commands.py": "unit/sh/test_extensions.py",
    "cli/sh_objects.py": "loopback/sh/test_cli.py",
    "cli/runs.py": "loopback/runs/test_runs_cli.py",
    "cli/warm.py": "loopback/jobs/test_warming.py",
    "cli/run.py": "loopback/jobs/test_cli.py",
    # Numbers only; those who use them are tested with them.
    "core/events.py": "unit/core/test_agreement_alone.py",
    "core/peer_place.py": "unit/core/test_agreement_alone.py",
    "core/timing.py": "loopback/stream/test_whole.py",
    "runs/log_sources.py": "loopback/runs/test_cloudwatch.py",
    "runs/inspection.py": "loopback/runs/test_inspect.py",
    "runs/meeting_point.py": "loopback/runs/test_inspect.py",
    "jobs/attempts.py": "loopback/jobs/test_retries.py",
    "jobs/launch.py": "unit/node/test_protocol_fuzz.py",
    "jobs/lease.py": "loopback/node/test_handlers.py",
    "jobs/runner.py": "loopback/jobs/test_failures.py",
    "jobs/storage.py": "loopback/jobs/test_failures.py",
    "jobs/streams.py": "unit/jobs/test_checks.py",
    "local/aws_api.py": "loopback/local/test_isolation.py",
    "local/cloud.py": "loopback/jobs/test_cli.py",
    "local/rie.py": "loopback/node/test_handlers.py",
    "local/worker.py": "loopback/local/test_isolation.py",
    "local/workers.py": "loopback/jobs/test_failures.py",
    "net/verifying.py": "loopback/stream/test_security.py",
    "net/connection.py": "loopback/net/test_connector.py",
    "net/establishing.py": "unit/core/test_agreement.py",
    "net/gather.py": "loopback/net/test_connector.py",
    "net/meeting.py": "unit/core/test_agreement.py",
    "net/sockets.py": "nat/test_reference.py",
    "net/tls.py": "loopback/stream/test_security.py",
    "net/watching.py": "loopback/modes/test_dead_machine.py",
    "node/claim.py": "loopback/node/test_handlers.py",
    "node/clean_slate.py": "loopback/node/test_warm_worker.py",
    "node/event_log.py": "unit/runtime/test_events.py",
    "node/ec2_handler.py": "loopback/node/test_handlers.py",
    "node/handling.py": "loopback/node/test_handlers.py",
    "node/lambda_handler.py": "loopback/node/test_handlers.py",
    "node/run_watch.py": "loopback/node/test_handlers.py",
    "node/script_runner.py": "loopback/node/test_handlers.py",
    "node/stock.py": "loopback/runs/test_inspect.py",
    "node/tethered.py": "loopback/jobs/test_result_stream.py",
    "pump/buffers.py": "loopback/stream/test_whole.py",
    "pump/ends.py": "loopback/stream/test_whole.py",
    "pump/splice.py": "loopback/stream/test_splice.py",
    "pump/fifo.py": "loopback/stream/test_whole.py",
    "pump/fifo_open.py": "loopback/stream/test_fifo_open.py",
    "pump/stats.py": "loopback/stream/test_whole.py",
    "pump/stream.py": "loopback/stream/test_whole.py",
    "pump/turn.py": "loopback/stream/test_siblings.py",
    "pump/unsent.py": "loopback/stream/test_unsent.py",
    "pump/v1.py": "loopback/stream/test_v1.py",
    "rendezvous/memory.py": "loopback/rendezvous/test_stores.py",
    "rendezvous/store.py": "loopback/rendezvous/test_stores.py",
    "runtime/auto_split.py": _RUNTIME + "test_blocks_tools.py",
    "runtime/connection_events.py": "loopback/jobs/test_run_events.py",
    "runtime/connection_lines.py": "loopback/net/test_connector.py",
    "runtime/engine.py": "loopback/engine/test_engine.py",
    "runtime/engine_client.py": "loopback/engine/test_engine.py",
    "runtime/handler_call.py": "loopback/node/test_door.py",
    "runtime/holding.py": _RUNTIME + "test_blocks_tools.py",
    "runtime/s3_several.py": _RUNTIME + "test_s3_tools.py",
    "runtime/invoke_lambda.py": _RUNTIME + "test_s3_ranges.py",
    "runtime/pipes.py": _RUNTIME + "test_blocks_tools.py",
    "runtime/r_merge.py": _RUNTIME + "test_blocks_tools.py",
    "runtime/r_unwrap.py": _RUNTIME + "test_blocks_tools.py",
    "runtime/r_wrap.py": _RUNTIME + "test_blocks_tools.py",
    "runtime/s3_get.py": _RUNTIME + "test_s3_tools.py",
    "runtime/s3_reader.py": _RUNTIME + "test_s3_tools.py",
    "runtime/script_shell.py": "unit/runtime/test_state.py",
    "runtime/split.py": "unit/runtime/test_lines.py",
    "runtime/storage.py": _RUNTIME + "test_s3_tools.py",
    "runtime/verdict_watch.py": "unit/runtime/test_verdicts.py",
    "runtime/tool_edge.py": _RUNTIME + "test_blocks_tools.py",
    "sh/object_patterns.py": "unit/sh/test_reading.py",
    "sh/packed.py": "unit/sh/test_pieces.py",
    "sh/forecast.py": "unit/sh/test_pieces.py",
    "sh/awk.py": "unit/sh/test_commands_proof.py",
    "sh/dash.py": "unit/sh/test_reading.py",
    "sh/filters.py": "unit/sh/test_commands_proof.py",
    "sh/forms.py": "unit/sh/test_commands_proof.py",
    "sh/joined.py": "unit/sh/test_commands_proof.py",
    "sh/trial.py": "unit/sh/test_plan.py",
    "sh/proof.py": "unit/sh/test_commands_proof.py",
    "sh/programs.py": "unit/sh/test_commands_proof.py",
    "wiring.py": "loopback/engine/test_engine.py",
}


def without_a_namesake() -> set[str]:
    found = set()
    for path in PUNCHLIB.rglob("*.py"):
        module = path.relative_to(PUNCHLIB)
        named = [
            test
            for top in ("unit", "loopback")
            for form in (f"test_{path.stem}.py", f"test_{path.stem}_*.py")
            for test in (TESTS / top / module.parent).glob(form)
        ]
        if path.name != "__init__.py" and not named:
            found.add(str(module))
    return found


def test_every_module_has_a_namesake_or_a_place() -> None:
    assert sorted(without_a_namesake()) == sorted(ELSEWHERE)


def test_the_places_are_there() -> None:
    assert [test for test in set(ELSEWHERE.values()) if not (TESTS / test).is_file()] == []


def test_every_unit_test_is_about_a_module() -> None:
    """Those at the top and that of the diagrams are about pages; services is no part of it."""
    strays = []
    for path in (TESTS / "unit").rglob("test_*.py"):
        folder = path.parent.relative_to(TESTS / "unit")
        names = path.stem.removeprefix("test_").split("_")
        stems = ["_".join(names[:n]) for n in range(1, len(names) + 1)]
        if str(folder) in (".", "services") or path.name == "test_diagrams.py":
            continue
        if not any((PUNCHLIB / folder / f"{stem}.py").is_file() for stem in stems):
            strays.append(str(folder / path.name))
    assert strays == []
