"""An old (v1) pashlib, as docs/wire.md describes it: what ours must still be able to talk to.

    python -m tests.support.old_peer {lambda|ec2} {send|recv}*KEY*ME*PEER*FIFO …

It registers once and never takes its record back, looks for the peer once a second, calls
`connect()` once and dies on the first refusal. It never listens. On Lambda its record holds the
port that STUN saw over UDP; on EC2 the address that STUN saw with the local TCP port. Then the
receiver sends 128 bytes as soon as its FIFO is open, the sender reads them as soon as its own is,
and the stream is the raw bytes up to the FIN.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any

from tests.support import reference_punch as punch

GREETING = 128
CHUNK = 65536
POLL = 1.0


@dataclass(frozen=True)
class Task:
    """One argument of the command line."""

    sending: bool
    key: str
    me: str
    peer: str
    fifo: str

    @classmethod
    def parse(cls, argument: str) -> Task:
        verb, key, me, peer, fifo = argument.split("*", 4)
        return cls(verb == "send", key, me, peer, fifo)


def table() -> Any:
    import boto3

    return boto3.client(
        "dynamodb",
        region_name=os.environ.get("AWS_REGION", "us-east-1"),
        endpoint_url=os.environ.get("AWS_ENDPOINT_URL"),
    )


def ensure_table(store: Any) -> None:
    """The old program lists the tables and makes the missing one."""
    if "rdv" in store.list_tables()["TableNames"]:
        return
    try:
        store.create_table(
            TableName="rdv",
            KeySchema=[{"AttributeName": "key", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "key", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
    except store.exceptions.ResourceInUseException:
        return  # the other end was faster


def register(store: Any, task: Task, local: punch.Address, external: punch.Address) -> None:
    record = {"local_addr": _text(local), "external_addr": _text(external)}
    store.update_item(
        TableName="rdv",
        Key={"key": {"S": task.key}},
        UpdateExpression="SET #n = if_not_exists(#n, :r)",
        ExpressionAttributeNames={"#n": f"N_{task.me}"},
        ExpressionAttributeValues={":r": {"S": json.dumps(record)}},
    )


def await_peer(store: Any, task: Task) -> punch.Address:
    """Once a second, without a deadline."""
    while True:
        item = store.get_item(TableName="rdv", Key={"key": {"S": task.key}}).get("Item", {})
        if f"N_{task.peer}" in item:
            host, _, port = json.loads(item[f"N_{task.peer}"]["S"])["external_addr"].partition(":")
            return host, int(port)
        time.sleep(POLL)


def run(task: Task, place: str, server: punch.Address) -> None:
    """One connection, from registration to FIN.

    Raises:
        OSError: the one connect was refused, or the stream broke.
    """
    store = table()
    ensure_table(store)
    port = punch.free_port()
    external, stun = punch.mapped(port, server, socket.SOCK_DGRAM)
    local = (stun.getsockname()[0], port)
    if place == "ec2":
        external = (external[0], port)
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    with stun, sock:
        sock.bind(("", port))
        register(store, task, local, external)
        say(f"Get local_addr: {_text(local)} external_addr: {_text(external)}")
        peer = await_peer(store, task)
        say(f"connecting from {_text(external)} to {_text(peer)}")
        sock.connect(peer)
        (send if task.sending else receive)(sock, task.fifo)


def send(sock: socket.socket, path: str) -> None:
    with open(path, "rb", buffering=0) as fifo:
        read = 0
        while read < GREETING:
            data = sock.recv(GREETING - read)
            if not data:
                raise ConnectionAbortedError("the receiver went away before its greeting")
            read += len(data)
        while data := fifo.read(CHUNK):
            sock.sendall(data)


def receive(sock: socket.socket, path: str) -> None:
    with open(path, "wb", buffering=0) as fifo:
        sock.sendall(bytes(GREETING))
        while data := sock.recv(CHUNK):
            # A dead sender looks like an end: the old fault that v2 mends.
            view = memoryview(data)
            while view:
                view = view[fifo.write(view) :]


def _text(address: punch.Address) -> str:
    return f"{address[0]}:{address[1]}"


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> int:
    place, *arguments = sys.argv[1:]
    if place not in ("lambda", "ec2"):
        raise SystemExit("old_peer: the first argument is lambda or ec2")
    host, _, port = os.environ["PASH_STUN_SERVER"].partition(",")[0].rpartition(":")
    failed: list[str] = []

    def one(task: Task) -> None:
        try:
            run(task, place, (host, int(port)))
        except OSError as error:
            say(f"old_peer: {task.key}: {error}")
            failed.append(task.key)

    threads = [threading.Thread(target=one, args=(Task.parse(a),)) for a in arguments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
