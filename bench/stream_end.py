"""One end of one or many streams, as a process of its own; what it measured is the last line.

    stream_end.py send|recv MODE --terms FILE (--listen A:P | --peer A:P [--bind A:P]) FIFO…

MODE is authenticated, encrypted, v1, or bare: splice without any protocol, the yardstick.
Connection number i uses FIFO number i and port P+i. With --bind both ends may dial each other
(through NATs that drop what nobody asked for). FILE holds the terms that `write_terms` made, one
pair a stream.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import fcntl
import json
import os
import resource
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import uvloop

from punchlib.config import Security
from punchlib.core.handshake import Identity, Terms
from punchlib.core.timing import TIMING, Timing
from punchlib.errors import PunchError
from punchlib.net.verifying import nominate, open_channel
from punchlib.pump.fifo import PIPE_SIZE, FifoReader, FifoWriter
from punchlib.pump.stream import (
    Stats,
    receive_stream,
    send_stream,
)
from punchlib.pump.v1 import receive_stream_v1, send_stream_v1


def write_terms(path: Path, security: str, count: int) -> None:
    """Writes the terms of `count` connections between two processes; the file is private."""
    identities = [Identity.generate() for _ in range(2 if security == "encrypted" else 0)]
    content = {
        "security": security,
        "job_key": os.urandom(16).hex(),
        "sides": [[os.urandom(8).hex() for _ in range(2)] for _ in range(count)],
        "certs": [one.cert_der.hex() for one in identities],
        "keys": [one.key_pem.decode() for one in identities],
    }
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(content, file)


def read_terms(path: Path, sending: bool) -> list[Terms]:
    """Reads one end's terms."""
    said = json.loads(path.read_text())
    mine, theirs = (0, 1) if sending else (1, 0)
    certs = [bytes.fromhex(cert) for cert in said["certs"]]
    return [
        Terms(
            key=f"stream {number}",
            sending=sending,
            my_side=sides[mine],
            peer_side=sides[theirs],
            security=Security(said["security"]),
            job_key=bytes.fromhex(said["job_key"]),
            my_identity=Identity(certs[mine], said["keys"][mine].encode()) if certs else None,
            peer_cert=certs[theirs] if certs else b"",
        )
        for number, sides in enumerate(said["sides"])
    ]


def address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def connect(args: argparse.Namespace, number: int) -> socket.socket:
    """The connection of one stream, by listening or by dialling for at most 20 s."""
    if args.listen:
        host, port = args.listen
        with socket.create_server((host, port + number), reuse_port=True) as listener:
            listener.settimeout(20)
            sock, _ = listener.accept()
            return sock
    host, port = args.peer
    deadline = time.monotonic() + 20
    while True:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.settimeout(20)
        if args.bind:
            sock.bind((args.bind[0], args.bind[1] + number))
        try:
            sock.connect((host, port + number))
            return sock
        except OSError:
            sock.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def bare(sending: bool, sock: socket.socket, path: str) -> int:
    """A FIFO and a socket, spliced until one ends; the bytes moved."""
    sock.setblocking(True)
    fifo = os.open(path, os.O_RDONLY if sending else os.O_WRONLY)
    fcntl.fcntl(fifo, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    source, sink = (fifo, sock.fileno()) if sending else (sock.fileno(), fifo)
    total = 0
    while moved := os.splice(source, sink, 1 << 20):
        total += moved
    os.close(fifo)
    sock.close()
    return total


def run_bare(args: argparse.Namespace, socks: list[socket.socket]) -> list[dict[str, Any]]:
    """Bare chains, a thread each."""
    results: list[dict[str, Any]] = [{} for _ in socks]

    def one(number: int) -> None:
        started = time.monotonic()
        total = bare(args.role == "send", socks[number], args.fifos[number])
        results[number] = {"bytes": total, "seconds": time.monotonic() - started}

    threads = [threading.Thread(target=one, args=(number,)) for number in range(len(socks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


async def run_streams(
    args: argparse.Namespace, socks: list[socket.socket], timing: Timing
) -> list[dict[str, Any]]:
    """Our streams, all on one loop."""
    sending = args.role == "send"
    terms = [] if args.mode == "v1" else read_terms(args.terms, sending)

    async def one(number: int) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        sock, path = socks[number], args.fifos[number]
        sock.setblocking(False)
        started = loop.time()
        stats: Stats
        try:
            if sending:
                with contextlib.closing(FifoReader.open_path(path)) as source:
                    if args.mode == "v1":
                        stats = await send_stream_v1(sock, source, timing=timing)
                    else:
                        channel = await open_channel(sock, terms[number], timing=timing)
                        await nominate(channel, sending=True)
                        stats = await send_stream(channel, source, timing=timing)
            else:
                with contextlib.closing(FifoWriter.open_path(path)) as sink:
                    if args.mode == "v1":
                        stats = await receive_stream_v1(sock, sink, timing=timing)
                    else:
                        channel = await open_channel(sock, terms[number], timing=timing)
                        await nominate(channel, sending=False)
                        stats = await receive_stream(channel, sink, timing=timing)
        except PunchError as error:
            return {"error": error.message, "exit_code": error.exit_code}
        first = None if stats.first_byte_at is None else stats.first_byte_at - started
        return {
            "bytes": stats.bytes,
            "seconds": stats.ended_at - started,
            "first_byte": first,
            "stopped": stats.stopped,
        }

    return await asyncio.gather(*(one(number) for number in range(len(socks))))


def peak_memory() -> float:
    """The most resident memory that this process ever had, in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("role", choices=("send", "recv"))
    parser.add_argument("mode", choices=("authenticated", "encrypted", "v1", "bare"))
    parser.add_argument("--terms", type=Path)
    parser.add_argument("--listen", type=address)
    parser.add_argument("--peer", type=address)
    parser.add_argument("--bind", type=address)
    parser.add_argument("--factor", type=float, default=1.0, help="scales all waiting times")
    parser.add_argument("--silence", type=float, default=TIMING.silence, help="of a slow peer, s")
    parser.add_argument("fifos", nargs="+")
    args = parser.parse_args()
    socks = [connect(args, number) for number in range(len(args.fifos))]
    print("connected", flush=True)
    before = resource.getrusage(resource.RUSAGE_SELF)
    if args.mode == "bare":
        streams = run_bare(args, socks)
    else:
        # The kernel's own times are not scaled.
        timing = TIMING.patient(args.silence).scaled(args.factor)
        timing = dataclasses.replace(timing, unanswered=TIMING.unanswered)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            streams = runner.run(run_streams(args, socks, timing))
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"cpu": cpu, "peak_mb": peak_memory(), "streams": streams}))
    return max((one.get("exit_code", 0) for one in streams), default=0)


if __name__ == "__main__":
    sys.exit(main())
