"""AWS Lambda's runtime API for one worker (docs: "Using the Lambda runtime API")."""

from __future__ import annotations

import queue
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class RuntimeApi:
    """Hands out events as they are given.

    Attributes:
        address: HOST:PORT, what AWS_LAMBDA_RUNTIME_API says.
        asked: the worker has asked for an event since the last one was given.
        answers: what it has answered to that one.
    """

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.answers: list[bytes] = []
        self._events: queue.Queue[bytes] = queue.Queue()
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                api.asked.set()
                body = api._events.get()
                self.send_response(200)
                self.send_header("Lambda-Runtime-Aws-Request-Id", str(uuid.uuid4()))
                self.send_header("Lambda-Runtime-Deadline-Ms", str(int((time.time() + 900) * 1000)))
                self.send_header(
                    "Lambda-Runtime-Invoked-Function-Arn",
                    "arn:aws:lambda:us-east-1:0:function:f",
                )
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self) -> None:
                api.answers.append(self.rfile.read(int(self.headers["Content-Length"] or 0)))
                self.send_response(202)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def give(self, event: bytes) -> None:
        self.asked.clear()
        self.answers.clear()
        self._events.put(event)

    def close(self) -> None:
        self._events.put(b"")  # for who still waits for one
        self._server.shutdown()
        self._server.server_close()
