"""One host's end of `bench/first_byte.py`: starts a real `pashlib`, and says when each step was.

It has the host's node engine. Orders come on stdin, one JSON object a line: {"key", "sending",
"at"}, `at` in monotonic time; answers go to stdout likewise, all times monotonic:

    {"began", "marks": {MARK: time, …}, "first_byte", "code", "said"}

`first_byte` is when the receiver's FIFO has something to read; null at the sender. The first line
of all is {"update_item": […], "update_item_new": […], "batch_get_item": […]}: seconds of calls of
the rendezvous over a kept connection, and over a new one as every `pashlib` makes.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from punchlib import wiring
from punchlib.config import Config
from punchlib.rendezvous.dynamodb import batch, registration
from punchlib.rendezvous.store import Slot
from punchlib.runtime import engine
from punchlib.runtime.layout import write_pashlib

PAYLOAD = b"the first byte\n"
CALLS = 20
#: What `pashlib` says on stderr, and what that marks.
MARKS = {
    "Get local_addr": "own addresses known",
    "connecting from": "peer seen",
    "connected": "connected",
}


def call_times() -> dict[str, list[float]]:
    """Seconds of the calls that a rendezvous makes; the table is made when it is missing."""
    client = wiring.dynamodb_client(Config.from_env())
    if not client.list_tables()["TableNames"]:
        client.create_table(
            TableName="rdv",
            AttributeDefinitions=[{"AttributeName": "key", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "key", "KeyType": "HASH"}],
            BillingMode="PAY_PER_REQUEST",
        )
    times: dict[str, list[float]] = {}

    def note(name: str, call: Callable[..., Any], request: dict[str, Any]) -> None:
        started = time.monotonic()
        call(**request)
        times.setdefault(name, []).append(time.monotonic() - started)

    record = "x" * 900  # about as long as a real one
    for n in range(CALLS):
        request = registration("rdv", Slot(f"call {n}", "0"), record, int(time.time()) + 60)
        client.close()
        note("update_item_new", client.update_item, request)
        note("update_item", client.update_item, request)
        note("batch_get_item", client.batch_get_item, batch("rdv", [f"call {n}"]))
    return times


class Host:
    """Runs one end after the other."""

    def __init__(self, folder: Path, engine_name: str) -> None:
        self._folder = folder
        self._env = os.environ | {"PUNCH_ENGINE": engine_name}
        self._fifo = folder / "fifo"
        os.mkfifo(self._fifo)
        write_pashlib(folder / "pashlib")

    def run(self, key: str, sending: bool, at: float) -> dict[str, Any]:
        watch = selectors.DefaultSelector()
        drain = -1
        if sending:
            # It waits in open(): its data is there as soon as the FIFO is opened.
            threading.Thread(target=self._fifo.write_bytes, args=[PAYLOAD], daemon=True).start()
        else:
            drain = os.open(self._fifo, os.O_RDONLY | os.O_NONBLOCK)
            watch.register(drain, selectors.EVENT_READ)
        argument = f"{'send' if sending else 'recv'}*{key}*{'0*1' if sending else '1*0'}*fifo"
        time.sleep(max(0.0, at - time.monotonic()))
        began = time.monotonic()
        process = subprocess.Popen(
            [self._folder / "pashlib", argument],
            env=self._env,
            cwd=self._folder,
            stderr=subprocess.PIPE,
        )
        assert process.stderr is not None
        stderr = process.stderr.fileno()
        watch.register(stderr, selectors.EVENT_READ)
        marks: dict[str, float] = {}
        first_byte, said = None, ""
        while stderr in watch.get_map():
            for ready, _ in watch.select():
                now = time.monotonic()
                data = os.read(ready.fd, 65536)
                if not data:
                    watch.unregister(ready.fd)
                elif ready.fd == drain:
                    first_byte = first_byte or now
                else:
                    said += data.decode()
                    for text, mark in MARKS.items():
                        if text in said:
                            marks.setdefault(mark, now)
        process.stderr.close()
        if drain >= 0:
            os.close(drain)
        return {
            "began": began,
            "marks": marks,
            "first_byte": first_byte,
            "code": process.wait(),
            "said": said,
        }


def main() -> None:
    with engine.spawn() as name:
        print(json.dumps(call_times()), flush=True)
        host = Host(Path(os.environ["PUNCH_STATE_DIR"]), name)
        for line in sys.stdin:
            print(json.dumps(host.run(**json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
