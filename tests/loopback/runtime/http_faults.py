"""Bad HTTP on loopback: a proxy that cuts answers short, and a server that refuses."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class CuttingProxy:
    """Forwards connections to a port; each answer ends after as many bytes as it is told.

    Args:
        port: where to forward, on 127.0.0.1.
        cuts: for each connection in turn, the bytes after which its answer is cut; connections
            beyond these pass whole.
        before: is called when the server has begun its first answer, before that goes on.
    """

    def __init__(
        self, port: int, cuts: list[int], before: Callable[[], None] = lambda: None
    ) -> None:
        self._before = before
        self._target = ("127.0.0.1", port)
        self._cuts = list(cuts)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0

    @contextlib.contextmanager
    def running(self) -> Iterator[CuttingProxy]:
        thread = threading.Thread(target=self._serve)
        thread.start()
        try:
            yield self
        finally:
            self._listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            self._listener.close()

    def _serve(self) -> None:
        workers = []
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                break
            self.connections += 1
            limit = self._cuts.pop(0) if self._cuts else 1 << 60
            workers.append(threading.Thread(target=self._forward, args=(client, limit)))
            workers[-1].start()
        for worker in workers:
            worker.join()

    def _forward(self, client: socket.socket, limit: int) -> None:
        with client, socket.create_connection(self._target) as server:
            up = threading.Thread(target=_pump, args=(client, server, 1 << 60))
            up.start()
            server.recv(1, socket.MSG_PEEK)
            before, self._before = self._before, lambda: None
            before()
            _pump(server, client, limit)
            up.join()


def _pump(source: socket.socket, target: socket.socket, limit: int) -> None:
    with contextlib.suppress(OSError):
        while limit and (data := source.recv(min(65536, limit))):
            target.sendall(data)
            limit -= len(data)
    # Whichever direction ends ends both: a server keeps an idle connection for a minute.
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


class Recorder:
    """A server that gives every request the same answer and remembers it.

    Attributes:
        url: its address.
        seen: (method, path, headers, body) of each request.
    """

    def __init__(self, status: int, body: bytes) -> None:
        seen: list[tuple[str, str, dict[str, str], bytes]] = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                payload = self.rfile.read(length)
                seen.append((self.command, self.path, dict(self.headers), payload))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("ETag", '"e"')
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self.seen = seen
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @contextlib.contextmanager
    def running(self) -> Iterator[Recorder]:
        thread = threading.Thread(target=self._server.serve_forever)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()
