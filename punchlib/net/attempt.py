"""One attempt: runs a check list on real sockets until one connection is verified and nominated.

Every TCP connection that comes up is only a claim. Both ends verify each other on all of them at
once; the sender nominates one by sending the first frame on it, and the receiver takes that one and
answers. The losers are closed only then. From its verification on neither end gives a claim up by
the clock while the other may have chosen it: each waits for the other's word, or for the end of the
connection. Strangers who connect and stay silent hold nobody up, however many they are.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from punchlib.config import Route
from punchlib.core.progress import Progress
from punchlib.core.simultaneous_open import CheckList, Close, Connect, Plan
from punchlib.core.timing import TIMING
from punchlib.errors import PeerNotVerified, PunchError
from punchlib.net import sockets
from punchlib.net.gather import Ends

T = TypeVar("T")

#: Connections that came and are not verified: of more than this many the oldest is let go, for the
#: newest may be the peer. Those from the peer's own addresses are counted apart.
MAX_UNVERIFIED = 64
#: Seconds until a listener accepts again, when there was no descriptor or memory for who came.
ACCEPT_PAUSE = 0.1
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


@dataclass
class Winner(Generic[T]):
    """The nominated connection.

    Attributes:
        channel: what `verify` and `nominate` returned.
        route: host or punched.
        local, remote: its two ends, as this machine sees them.
    """

    channel: T
    route: Route
    local: tuple[str, int]
    remote: tuple[str, int]


@dataclass
class Log:
    """What the checks met; the error message of an attempt that fails is made of this.

    Attributes:
        pairs: for each pair "A:P → A:P", what happened to it, by count.
        impostors: connections by somebody who was not the peer.
        reason: why the last of them was refused.
    """

    pairs: dict[str, dict[str, int]] = field(default_factory=dict)
    impostors: int = 0
    reason: str = ""

    def note(self, pair: str, outcome: str) -> None:
        outcomes = self.pairs.setdefault(pair, {})
        outcomes[outcome] = outcomes.get(outcome, 0) + 1

    def __str__(self) -> str:
        lines = [
            f"{pair}: " + ", ".join(f"{what} ×{n}" if n > 1 else what for what, n in outs.items())
            for pair, outs in self.pairs.items()
        ]
        if self.impostors:
            lines.append(f"{self.impostors} connection(s) not by the peer ({self.reason})")
        return "; ".join(lines) or "no pair was tried"


class Attempt(Generic[T]):
    """Drives one check list.

    Args:
        plan: what to do.
        ends: our ports and listeners; they stay the caller's.
        verify: runs one connection's handshake; raises when it is not the peer.
        nominate: sends the first frame and awaits its answer (sender), or the other way round.
        discard: closes a verified channel that lost.
        log: where outcomes are noted.
    """

    def __init__(
        self,
        plan: Plan,
        ends: Ends,
        *,
        verify: Callable[[socket.socket], Awaitable[T]],
        nominate: Callable[[T], Awaitable[None]],
        discard: Callable[[T], None],
        log: Log,
    ) -> None:
        self._plan = plan
        self._ends = ends
        self._verify = verify
        self._nominate = nominate
        self._discard = discard
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._sockets: dict[int, tuple[socket.socket, Connect]] = {}
        self._claims: set[asyncio.Task[None]] = set()
        self._unexamined: set[socket.socket] = set()
        self._winner: asyncio.Future[Winner[T]] = self._loop.create_future()
        self._nomination = asyncio.Lock()
        self._verified = 0
        self._timer: asyncio.TimerHandle | None = None
        self._listeners: list[socket.socket] = []
        self._resting: dict[socket.socket, asyncio.TimerHandle] = {}
        self._checks = CheckList(plan, self._loop.time())
        self._likely: set[asyncio.Task[None]] = set()
        # From elsewhere, and from the peer's addresses; the oldest first.
        self._unverified: tuple[dict[socket.socket, asyncio.Task[None]], ...] = ({}, {})
        self._hosts = {pair.remote.address.host for pair in (*plan.pairs, *plan.hosts)}
        self.progress = Progress(self._loop.time(), expected=plan.seconds)

    async def run(self) -> Winner[T] | None:
        """The nominated connection, or None when the attempt's time is up."""
        own = self._ends.listen_on_ports() if self._plan.listening else []
        self._listeners = [*own, *([self._ends.listener] if self._ends.listener else [])]
        try:
            for listener in self._listeners:
                self._loop.add_reader(listener, self._accept, listener)
            self._step()
            await self._while(self._go_on, self._plan.seconds)
            await self._while(lambda: bool(self._claims), TIMING.verify_grace)
            await self._while(lambda: bool(self._likely), TIMING.peer_grace)
            await self._while(lambda: self._verified > 0, TIMING.nomination_grace)
            winner = self._winner.result() if self._winner.done() else None
            await self._stop()
            return winner
        except BaseException:
            await self._stop()
            if not self._winner.cancelled():
                self._discard(self._winner.result().channel)
            raise
        finally:
            for sock in own:
                sock.close()

    async def _while(self, condition: Callable[[], bool], seconds: float) -> None:
        """Waits for a winner while there is reason to, for so long by our own progress."""
        end = self.progress.lived + seconds
        while condition() and not self._winner.done() and self.progress.lived < end:
            changes: list[asyncio.Future[Any]] = [self._winner, *self._claims]
            left = min(self.progress.step, end - self.progress.lived)
            await asyncio.wait(changes, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            self.progress.tick(self._loop.time())

    def _go_on(self) -> bool:
        """The check list's time is our own progress, too."""
        self._checks.deadline = self._loop.time() + self._plan.seconds - self.progress.lived
        if self._timer is None:
            self._step()
        return True

    async def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for listener in self._listeners:
            self._loop.remove_reader(listener)
        for again in self._resting.values():
            again.cancel()
        for task in self._claims:
            task.cancel()
        await asyncio.gather(*self._claims, return_exceptions=True)
        for sock in self._unexamined:
            sockets.abort(sock)  # its task was cancelled before it began
        self._checks.close_all()
        self._carry_out()
        if not self._winner.done():
            self._winner.cancel()

    # Time and commands

    def _step(self) -> None:
        self._carry_out()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._checks.next_timer(), self._on_timer)

    def _on_timer(self) -> None:
        self._timer, now = None, self._loop.time()
        if not self._checks.expired(now):
            self._checks.on_timer(now)
            self._step()

    def _carry_out(self) -> None:
        for command in self._checks.commands():
            if isinstance(command, Close):
                self._close(command.id)
            else:
                self._connect(command)

    def _connect(self, command: Connect) -> None:
        old = self._sockets.get(command.replaces) if command.replaces is not None else None
        if old is not None and sockets.is_arriving(old[0]):
            assert command.replaces is not None
            self._checks.on_arriving(command.replaces, self._loop.time())
            return
        local = command.pair.local
        port = self._ends.ports[local].local.port if local is not None else 0
        try:
            sock = sockets.punching_socket(port)
        except OSError as exc:
            # No descriptor or no port: the pair is tried again like any other failure.
            self._loop.call_soon(self._failed, command.id, exc.errno or 0)
            return
        if command.replaces is not None:
            self._close(command.replaces)
        self._sockets[command.id] = (sock, command)
        error = sockets.start_connect(
            sock, command.pair.remote.address, command.ttl, command.min_ttl
        )
        if error:
            self._loop.call_soon(self._failed, command.id, error)
        else:
            self._loop.add_writer(sock, self._on_writable, command.id)

    def _on_writable(self, id: int) -> None:
        sock, _ = self._sockets[id]
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self._failed(id, error)
            return
        self._loop.remove_writer(sock)
        # From here on the socket belongs to its verification.
        _, command = self._sockets.pop(id)
        self._checks.on_connected(id)
        self._claim(sock, command)

    def _failed(self, id: int, error: int) -> None:
        entry = self._sockets.get(id)
        if entry is not None:
            self._log.note(_pair(entry[1]), errno.errorcode.get(error, str(error)))
            self._close(id)
        if not self._winner.done():
            self._checks.on_failed(id, self._loop.time(), error)
            self._step()

    def _close(self, id: int) -> None:
        entry = self._sockets.pop(id, None)
        if entry is not None:
            self._loop.remove_writer(entry[0])
            sockets.abort(entry[0])

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except OSError as exc:
            if exc.errno in _EXHAUSTED:
                self._rest(listener)
            return  # or it left again: the next one may do better
        sock.setblocking(False)
        task = self._claim(sock, None)
        unverified = self._unverified[task in self._likely]
        if len(unverified) >= MAX_UNVERIFIED:
            unverified.pop(next(iter(unverified))).cancel()
            self._log.note("incoming", "made room for another")
        unverified[sock] = task
        task.add_done_callback(lambda _: self._keep(sock))

    def _rest(self, listener: socket.socket) -> None:
        """Accepts nothing for a moment: who is not let in would wake us again at once."""
        self._loop.remove_reader(listener)
        again = self._loop.call_later(
            ACCEPT_PAUSE, self._loop.add_reader, listener, self._accept, listener
        )
        self._resting[listener] = again

    def _keep(self, sock: socket.socket) -> None:
        """It is verified, or has ended: it makes room for nobody any more."""
        for unverified in self._unverified:
            unverified.pop(sock, None)

    # Claims

    def _claim(self, sock: socket.socket, command: Connect | None) -> asyncio.Task[None]:
        self._unexamined.add(sock)
        task = self._loop.create_task(self._examine(sock, command))
        self._claims.add(task)
        task.add_done_callback(self._claims.discard)
        if command is not None or _host_of(sock) in self._hosts:
            self._likely.add(task)
            task.add_done_callback(self._likely.discard)
        return task

    async def _examine(self, sock: socket.socket, command: Connect | None) -> None:
        """Verifies one connection and, when it is nominated, declares it the winner."""
        self._unexamined.discard(sock)
        name = _pair(command) if command is not None else "incoming"
        route = command.pair.route if command is not None else self._route_of_incoming(sock)
        channel: T | None = None
        won = False
        try:
            sockets.settle(sock)
            ends = sock.getsockname()[:2], sock.getpeername()[:2]
            channel = await self._verify(sock)
            self._keep(sock)
            self._verified += 1
            try:
                won = await self._settle(channel, route, ends)
            finally:
                self._verified -= 1
        except PeerNotVerified as exc:
            self._log.impostors += 1
            self._log.reason = exc.message
            self._log.note(name, "not the peer")
        except (PunchError, OSError) as exc:
            self._log.note(name, _short(exc))
        finally:
            if not won:
                self._lose(sock, command, channel)

    async def _settle(
        self, channel: T, route: Route, ends: tuple[tuple[str, int], tuple[str, int]]
    ) -> bool:
        """Nominates a verified channel, or waits to be nominated; whether it is the winner."""
        if self._plan.sending:
            # One at a time: what is nominated is given up only when the connection breaks.
            async with self._nomination:
                if not self._winner.done():
                    await self._nominate(channel)
                    self._winner.set_result(Winner(channel, route, *ends))
                    return True
                return False
        await self._nominate(channel)
        if self._winner.done():
            return False
        self._winner.set_result(Winner(channel, route, *ends))
        return True

    def _lose(self, sock: socket.socket, command: Connect | None, channel: T | None) -> None:
        if channel is not None:
            self._discard(channel)
        sockets.abort(sock)
        if command is not None and not self._winner.done():
            self._checks.on_failed(command.id, self._loop.time(), errno.ECONNABORTED)
            self._step()

    def _route_of_incoming(self, sock: socket.socket) -> Route:
        listener = self._ends.listener
        ours = listener is not None and sock.getsockname()[1] == listener.getsockname()[1]
        return Route.HOST if ours else Route.PUNCHED


def _host_of(sock: socket.socket) -> str:
    """Who is at the other end; "" when it has left."""
    try:
        return str(sock.getpeername()[0])
    except OSError:
        return ""


def _pair(command: Connect) -> str:
    return f"{command.pair.remote.type} {command.pair.remote.address}"


def _short(exc: Exception) -> str:
    if isinstance(exc, PunchError):
        return exc.message
    code = getattr(exc, "errno", None)
    return errno.errorcode.get(code, str(exc)) if code else str(exc) or type(exc).__name__
