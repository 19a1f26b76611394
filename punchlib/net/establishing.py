"""Carries out what an agreement says (`core/agreement.py`): ports, records, attempts, S3."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from punchlib.config import Config, Route
from punchlib.core.agreement import Agreement
from punchlib.core.events import Event, Spec
from punchlib.core.handshake import Identity, Terms
from punchlib.core.records import Record
from punchlib.core.simultaneous_open import Technique
from punchlib.core.timing import TIMING
from punchlib.core.transitions import Command, Fail, Look, Register, Try, Wait
from punchlib.errors import Cause, NoRoute, PunchError
from punchlib.net import sockets
from punchlib.net.attempt import Attempt, Log, Winner
from punchlib.net.channel import Channel
from punchlib.net.connection import Connection, Fallback
from punchlib.net.descriptors import PORTS, Turn
from punchlib.net.gather import Ends, open_ports
from punchlib.net.meeting import Meeting
from punchlib.net.stun_client import StunClient
from punchlib.net.unwanted import cancel, drop
from punchlib.net.verifying import nominate, open_channel
from punchlib.rendezvous.store import RendezvousStore, Slot
from punchlib.rendezvous.watcher import FASTEST, Watching
from punchlib.stopping import doing, stopped

#: Seconds between looks at the peer's record while an attempt runs: it may have started anew.
CHANGE_POLL = 0.2

T = TypeVar("T")


@dataclass
class Shared:
    """What all connections of one process share; see `Connector` for its fields."""

    config: Config
    store: RendezvousStore
    identity: asyncio.Future[Identity] | None
    fallback: Fallback | None
    report: Callable[[Event], None]
    watcher: Watching
    stun: StunClient
    wall: Callable[[], float] = time.time
    ports: int = PORTS
    turns: asyncio.Semaphore | None = None


class Establishing:
    """One `establish`."""

    def __init__(self, owner: Shared, spec: Spec) -> None:
        self.owner = owner
        self.spec = spec
        self.config = owner.config
        self.timing = TIMING.patient(owner.config.stall_timeout)
        self.loop = asyncio.get_running_loop()
        self.core = Agreement(spec, owner.config, fallback=owner.fallback is not None)
        self.meeting = Meeting(
            owner.store,
            Slot(*self.core.mine_slot),
            Slot(*self.core.place.slot),
            timeout=self.config.timeout,
            wall=owner.wall,
        )
        self.turn = Turn(owner.turns)
        self.log = Log()
        self.ends: Ends | None = None
        self.mine = ""  # our record's text
        self._word: str | None = None  # what the peer is told, where it is not the error itself

    async def run(self) -> Connection:
        try:
            async with asyncio.timeout(self.config.timeout):
                return await self._run()
        except TimeoutError:
            failed = self._too_late()
            self._word = failed.word
            await self._leave(failed.error)
            raise failed.error from None
        except BaseException as exc:
            await self._leave(exc)
            raise
        finally:
            if self.ends is not None:
                self.ends.close()
            self.turn.give_back()

    async def _run(self) -> Connection:
        done: Command | Connection = self.core.start()
        while not isinstance(done, Connection):
            self._tell()
            match done:
                case Register():
                    done = await self._register(done)
                case Wait():
                    done = await self._wait(done)
                case Look():
                    done = self.core.on_record(await self.meeting.look(), self.loop.time())
                case Try():
                    done = await self._try(done)
                case Fail():
                    self._word = done.word
                    raise done.error
        self._tell()
        return done

    def _tell(self) -> None:
        for event in self.core.take_events():
            self.owner.report(event)

    async def _leave(self, error: BaseException | None) -> None:
        instead = ""
        if error is not None:
            code = error.exit_code if isinstance(error, PunchError) else NoRoute.exit_code
            cause = Cause(self._word) if self._word else _why(error)
            instead = self.core.word(code, cause)
        stopping = isinstance(error, asyncio.CancelledError)
        # Also when we are being cancelled.
        await asyncio.shield(asyncio.ensure_future(self.meeting.leave(instead, stopping=stopping)))

    def _too_late(self) -> Fail:
        trouble = self.owner.watcher.last_error
        return self.core.on_deadline(
            self.loop.time(),
            tried=self._tried(),
            store_trouble=f"the rendezvous failed: {trouble.message}" if trouble else "",
        )

    def _tried(self) -> str:
        return str(self.log) if self.log.pairs else ""

    # Registering and waiting

    async def _register(self, command: Register) -> Command:
        with doing(lambda: "waiting for descriptors that other connections hold"):
            await self.turn.take()
        ready = asyncio.ensure_future(self.owner.store.ready())
        gathered = asyncio.ensure_future(self._gather())
        try:
            # At once: a store that cannot be used is told now, not after the patience for STUN.
            await asyncio.gather(ready, gathered)
            self.ends = gathered.result()
            identity = await self.owner.identity if self.owner.identity is not None else None
        finally:
            await cancel(ready)
            await cancel(gathered)
        if not self.ends.settled:
            nat = await self.owner.stun.nat()
            self.ends.settle(nat, self.config.routes, on_lambda=self.config.on_lambda)
        mine = Record(
            local_addr=self.ends.local,
            external_addr=self.ends.external,
            side=os.urandom(8).hex(),
            attempt=command.attempt,
            tried=command.tried,
            ts=int(self.owner.wall() * 1000),
            expires=self.meeting.expires,
            security=self.config.security,
            cert=identity.cert_der if identity else b"",
            candidates=self.ends.candidates,
            nat=self.ends.nat,
        )
        self.mine = self.core.on_gathered(mine, trouble="; ".join(self.owner.stun.failures))
        self._tell()
        with doing(lambda: "registering in the rendezvous table"):
            answer = await self.meeting.register(self.mine, refuse_v1_peer=command.refuse_v1)
        return self.core.on_registered(answer.accepted, answer.peer, self.loop.time())

    async def _gather(self) -> Ends:
        """Fresh ports, for a NAT remembers what failed; without any NAT the same ones serve."""
        if self.ends is not None:
            if self.ends.lasting:
                return self.ends
            self.ends.close()
        with doing(lambda: "asking the STUN server for its address"):
            return await open_ports(self.owner.stun, self.config.routes, self.owner.ports)

    async def _show(self) -> Command | None:
        with doing(lambda: "registering in the rendezvous table"):
            answer = await self.meeting.register(self.mine, refuse_v1_peer=False)
        return self.core.on_shown(answer.peer, self.loop.time())

    async def _wait(self, command: Wait) -> Command:
        """Waits for the peer's record to change."""
        assert self.ends is not None
        self.turn.give_back()
        if command.show and (changed := await self._show()):
            return changed
        watching = asyncio.ensure_future(
            self.owner.watcher.changed(self.meeting.peer, self.core.place.text)
        )
        keeping = [asyncio.ensure_future(self.owner.stun.keep(p)) for p in self.ends.told]
        try:
            with doing(self.core.describe):
                done, _ = await asyncio.wait(
                    [watching, *keeping],
                    timeout=command.seconds,
                    return_when=asyncio.FIRST_COMPLETED,
                )
            now = self.loop.time()
            if watching in done:
                return self.core.on_record(watching.result(), now)
            return self.core.on_mapping_lost(now) if done else self.core.on_pause_over(now)
        finally:
            for task in (watching, *keeping):
                await cancel(task)

    # Attempts

    async def _try(self, command: Try) -> Command | Connection:
        if command.plan.technique is Technique.NONE or command.peer.is_v1:
            # Both may wait for the peer as long as it likes to take: not with a turn.
            self.turn.give_back()
            way = self._with_v1 if command.peer.is_v1 else self._over_s3
            return await way(command)
        terms = await self._terms(command)
        assert self.ends is not None
        attempt = Attempt[Channel](
            command.plan,
            self.ends,
            verify=lambda sock: open_channel(sock, terms, timing=self.timing),
            nominate=lambda channel: nominate(
                channel, sending=self.spec.sending, timing=self.timing
            ),
            discard=lambda channel: channel.close(),
            log=self.log,
        )

        async def run() -> Winner[Channel] | None:
            await self.turn.take()
            return await attempt.run()

        winner = await self._unless_peer_changes(command, run())
        if winner is None:
            return self._failed(attempt.progress.stood_still)
        if not isinstance(winner, Winner):
            return winner
        how = "listener" if winner.route is Route.HOST else str(command.plan.technique)
        return self._connected(winner.channel, None, winner.route, how, winner)

    async def _over_s3(self, command: Try) -> Command | Connection:
        assert self.owner.fallback is not None
        opening = self.owner.fallback.open(await self._terms(command))
        channel = await self._unless_peer_changes(command, opening)
        if isinstance(channel, Command):
            return channel
        return self._connected(channel, None, Route.S3, "objects", None)

    async def _with_v1(self, command: Try) -> Command | Connection:
        assert self.ends is not None
        attempt = Attempt[socket.socket](
            command.plan,
            self.ends,
            verify=_as_it_is,
            nominate=_at_once,
            discard=sockets.abort,  # with a FIN an old receiver would have an empty stream
            log=self.log,
        )
        holding = asyncio.ensure_future(attempt.run())
        try:
            # An old peer dials once, as soon as it sees our record: hold first (one turn of the
            # loop sends the SYNs), and be seen only then.
            await asyncio.sleep(0)
            if command.show and (changed := await self._show()):
                await drop(holding)
                return changed
        except BaseException:
            await drop(holding)
            raise
        winner = await self._unless_peer_changes(command, holding)
        if winner is None:
            return self._failed(0.0)
        if not isinstance(winner, Winner):
            return winner
        return self._connected(None, winner.channel, winner.route, "hold for v1", winner)

    def _failed(self, stood_still: float) -> Command:
        return self.core.on_attempt_failed(
            self.loop.time(), tried=self._tried(), stood_still=stood_still
        )

    async def _unless_peer_changes(self, command: Try, work: Awaitable[T]) -> T | Command:
        """The work's result; what is to be done instead when the peer's record changes first."""
        working, taken = asyncio.ensure_future(work), False
        try:
            changed = await self._change_during(command, working)
            if changed is not None:
                return changed
            taken = True
            return working.result()
        finally:
            if not taken:
                await drop(working)

    async def _change_during(self, command: Try, working: asyncio.Future[Any]) -> Command | None:
        """What a change of the peer's record asks for; None where the work is done first."""
        changing = asyncio.ensure_future(
            self.owner.watcher.changed(
                self.meeting.peer,
                self.core.place.text,
                # A peer that has fewer attempts behind it is just about to fail, too.
                fastest=FASTEST if command.behind else CHANGE_POLL,
            )
        )
        try:
            with doing(lambda: self.core.describe(tried=self._tried())):
                await asyncio.wait([working, changing], return_when=asyncio.FIRST_COMPLETED)
                if not working.done() and changing.exception() is not None:
                    # The store failed meanwhile; the attempt does not need it.
                    await asyncio.wait([working])
            if working.done():
                return None
            return self.core.on_record(changing.result(), self.loop.time())
        finally:
            await cancel(changing)

    async def _terms(self, command: Try) -> Terms:
        assert self.core.mine is not None
        return Terms(
            key=self.core.mine_slot[0],
            sending=self.spec.sending,
            my_side=self.core.mine.side,
            peer_side=command.peer.side,
            security=command.security,
            job_key=self.config.job_key,
            my_identity=await self.owner.identity if self.owner.identity else None,
            peer_cert=command.peer.cert,
            revision=min(self.core.mine.revision, command.peer.revision),
        )

    def _connected(
        self,
        channel: Channel | None,
        raw: socket.socket | None,
        route: Route,
        how: str,
        winner: Winner[Any] | None,
    ) -> Connection:
        assert self.core.mine is not None
        local = f"{winner.local[0]}:{winner.local[1]}" if winner else "-"
        remote = f"{winner.remote[0]}:{winner.remote[1]}" if winner else "-"
        now = self.loop.time()
        self.core.on_connected(now, route, how, local, remote)
        return Connection(
            channel=channel,
            raw=raw,
            route=route,
            attempt=self.core.mine.attempt,
            technique=how,
            local=local,
            remote=remote,
            registered_at=self.core.registered_at,
            met_at=self.core.met_at,
            connected_at=now,
            _leave=self._leave,
            timing=self.timing,
            node=self.config.node,
        )


def _why(error: BaseException) -> Cause:
    """What the peer is told."""
    if isinstance(error, PunchError):
        return error.cause if error.reported_by_peer else Cause(error.message)
    if isinstance(error, asyncio.CancelledError):
        return Cause(stopped(error))
    return Cause(f"{type(error).__name__}: {error}")


async def _as_it_is(sock: socket.socket) -> socket.socket:
    return sock


async def _at_once(_: socket.socket) -> None:
    return None
