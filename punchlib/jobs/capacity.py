"""Can the function run so many nodes at once? All nodes of a job wait for each other."""

from __future__ import annotations

from typing import Any

from punchlib.errors import UsageError


def check(client: Any, function: str, nodes: int) -> None:
    """Refuses a job that is wider than its function may be.

    What may not be asked (no permission), or is not answered, refuses nothing: a start that is
    throttled is tried again for a while.

    Args:
        client: a Lambda client.
        function: its name.
        nodes: how many Lambda nodes the job has.

    Raises:
        UsageError: they can never all run; with the figures.
    """
    most, why = most_at_once(client, function)
    if most is not None and nodes > most:
        raise UsageError(
            f"the job has {nodes} Lambda nodes, and {why}: they wait for each other, so all must"
            " run at once",
            next_step="raise that (Service Quotas, or the function's reserved concurrency), or"
            " make the job narrower",
        )


def most_at_once(client: Any, function: str) -> tuple[int | None, str]:
    """How many invocations of the function can run at once, and what says so; None: not known."""
    reserved = _ask(client.get_function_concurrency, FunctionName=function)
    count = reserved.get("ReservedConcurrentExecutions")
    if isinstance(count, int):
        return count, f"the reserved concurrency of the function {function!r} is {count}"
    limits = _ask(client.get_account_settings).get("AccountLimit") or {}
    count = limits.get("UnreservedConcurrentExecutions")
    if isinstance(count, int):
        return count, f"the account's unreserved concurrency is {count}"
    return None, ""


def _ask(call: Any, **request: str) -> dict[str, Any]:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return dict(call(**request))
    except (BotoCoreError, ClientError):
        return {}
