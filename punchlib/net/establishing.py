"""One connection on its way: attempt after attempt, each with fresh ports, a fresh side and record.

The pair of records that stand in the store is an attempt, which both ends make as soon as they see
it. One that fails leaves a new record, `tried`; the other's attempt has then failed too, unless it
was never with the record that was tried: ends may be out of step by seconds, on starved machines.
Each counts its own failures, and the technique is that of the lower count (`ATTEMPTS` of the core,
then S3). An end that restarts comes back with a new side and is followed. Nothing waits beyond the
deadline, and the error says what was seen.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from punchlib.config import Config, Route, Security
from punchlib.core.handshake import Identity, Terms
from punchlib.core.records import Record
from punchlib.core.simultaneous_open import ATTEMPTS, Technique, make_plan, plan_for_v1
from punchlib.errors import NoRoute, PeerNotVerified, PunchError, RendezvousTimeout
from punchlib.net.attempt import Attempt, Log, Winner
from punchlib.net.channel import Channel, nominate, open_channel
from punchlib.net.connection import Connection, Fallback, Spec
from punchlib.net.gather import Ends, open_ports
from punchlib.net.meeting import Meeting
from punchlib.net.stun_client import StunClient
from punchlib.rendezvous.store import RendezvousStore
from punchlib.rendezvous.watcher import FASTEST, Watcher
from punchlib.stopping import doing

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
    report: Callable[[str], None]
    watcher: Watcher
    stun: StunClient


class Establishing:
    """The state of one `establish`."""

    def __init__(self, owner: Shared, spec: Spec) -> None:
        self.owner = owner
        self.spec = spec
        self.config = owner.config
        self.loop = asyncio.get_running_loop()
        self.meeting = Meeting(owner.store, owner.config, spec)
        self.log = Log()
        self.ends: Ends | None = None
        self.registered_at = 0.0
        self.met_at = 0.0

    async def run(self) -> Connection:
        try:
            async with asyncio.timeout(self.config.timeout):
                return await self._run()
        except TimeoutError:
            error = self._too_late()
            await self._leave(error)
            raise error from None
        except BaseException as exc:
            await self._leave(exc)
            raise
        finally:
            if self.ends is not None:
                self.ends.close()

    async def _run(self) -> Connection:
        await self._enter(1)
        meeting = self.meeting
        while True:
            if meeting.peer is None:
                await self._await_peer()
            assert meeting.peer is not None
            peer, text = meeting.peer, meeting.peer_text
            connection = await (self._with_v1 if peer.is_v1 else self._with_v2)(peer)
            if connection is not None:
                return connection
            await meeting.look()
            if meeting.peer_text != text and not meeting.failed_for_peer:
                continue  # It has not tried this pair: it was out of step, or has started anew.
            await self._enter(meeting.mine.attempt + 1, tried=peer.side)
            if meeting.peer_text == text and meeting.mine.attempt > len(ATTEMPTS) + 1:
                meeting.peer = None  # Everything was tried, so the peer is not there: wait for it.

    async def _leave(self, error: BaseException | None) -> None:
        # Also when we are being cancelled.
        await asyncio.shield(asyncio.ensure_future(self.meeting.leave(error)))

    # Rendezvous

    async def _enter(self, attempt: int, *, tried: str = "") -> None:
        """Gathers and registers with fresh ports."""
        if self.ends is not None:
            self.ends.close()
        ready = asyncio.ensure_future(self.owner.store.ready())
        try:
            with doing(lambda: "asking the STUN server for its address"):
                self.ends = await open_ports(self.owner.stun, self.config.routes)
            identity = await self.owner.identity if self.owner.identity is not None else None
            await ready
        finally:
            await _cancel(ready)
        nat = await self.owner.stun.nat()
        self.ends.settle(nat, self.config.routes, on_lambda=self.config.on_lambda)
        mine = Record(
            local_addr=self.ends.local,
            external_addr=self.ends.external,
            side=os.urandom(8).hex(),
            attempt=attempt,
            tried=tried,
            ts=int(time.time() * 1000),
            expires=self.meeting.expires,
            security=self.config.security,
            cert=identity.cert_der if identity else b"",
            candidates=self.ends.candidates,
            nat=self.ends.nat,
        )
        if attempt == 1:
            self._tell_addresses(mine)
        await self._register(mine, refuse_v1_peer=not self.config.v1_refused_by)

    async def _register(self, mine: Record, *, refuse_v1_peer: bool) -> None:
        with doing(lambda: "registering in the rendezvous table"):
            await self.meeting.register(mine, refuse_v1_peer=refuse_v1_peer)
        self.registered_at = self.met_at = self.loop.time()

    async def _await_peer(self) -> None:
        """Waits for the peer's record."""
        while self.meeting.peer is None:
            with doing(lambda: f"waiting for {self._peer()} to register: {self._seen()}"):
                text = await self._unless_mapping_is_lost(
                    self.owner.watcher.changed(self.meeting.peer_slot, self.meeting.peer_text)
                )
            if text is None:
                # What we have registered is no longer true.
                mine = self.meeting.mine
                await self._enter(mine.attempt, tried=mine.tried)
            else:
                self.meeting.take(text)
        self.met_at = self.loop.time()

    async def _unless_mapping_is_lost(self, waiting: Awaitable[T]) -> T | None:
        assert self.ends is not None
        found = asyncio.ensure_future(waiting)
        keeping = [asyncio.ensure_future(self.owner.stun.keep(p)) for p in self.ends.ports]
        try:
            await asyncio.wait([found, *keeping], return_when=asyncio.FIRST_COMPLETED)
            return found.result() if found.done() else None
        finally:
            for task in (found, *keeping):
                await _cancel(task)

    # Attempts

    async def _with_v2(self, peer: Record) -> Connection | None:
        """One attempt; None when it failed or the peer's record changed."""
        assert self.ends is not None
        terms = await self._terms(peer)
        plan = make_plan(
            self.meeting.mine,
            peer,
            second=self.meeting.second,
            sending=self.spec.sending,
            routes=self.config.routes,
        )
        self._tell_peer(peer)
        if plan.technique is Technique.NONE:
            channel = await self._or_peer_changes(self._fallback(peer).open(terms))
            if channel is None:
                return None
            return self._connected(channel, None, Route.S3, "objects", None)
        attempt = Attempt[Channel](
            plan,
            self.ends,
            verify=lambda sock: open_channel(sock, terms),
            nominate=lambda channel: nominate(channel, sending=self.spec.sending),
            discard=lambda channel: channel.close(),
            log=self.log,
        )
        winner = await self._or_peer_changes(attempt.run())
        if winner is None:
            return None
        how = "listener" if winner.route is Route.HOST else str(plan.technique)
        return self._connected(winner.channel, None, winner.route, how, winner)

    async def _with_v1(self, peer: Record) -> Connection | None:
        assert self.ends is not None
        self.owner.report(
            f"pashlib: {self.spec}: the peer speaks the old wire (v1): nothing is authenticated "
            "or encrypted, and a dead peer looks like the end of the stream"
        )
        self._tell_peer(peer)
        plan = plan_for_v1(
            self.meeting.mine, peer, sending=self.spec.sending, seconds=self.config.timeout
        )
        attempt = Attempt[socket.socket](
            plan, self.ends, verify=_as_it_is, nominate=_at_once, discard=_close, log=self.log
        )
        holding = asyncio.ensure_future(attempt.run())
        try:
            # An old peer dials once, as soon as it sees our record: hold first (one turn of the
            # loop sends the SYNs), and be seen only then.
            await asyncio.sleep(0)
            if not self.meeting.visible:
                await self._register(self.meeting.mine, refuse_v1_peer=False)
        except BaseException:
            await _cancel(holding)
            raise
        winner = await self._or_peer_changes(holding)
        if winner is None:
            return None
        return self._connected(None, winner.channel, winner.route, "hold for v1", winner)

    async def _or_peer_changes(self, work: Awaitable[T]) -> T | None:
        """The work's result; None when the peer's record changes first."""
        meeting = self.meeting
        # A peer that has fewer attempts behind it is just about to fail, too.
        behind = meeting.peer is not None and meeting.peer.attempt < meeting.mine.attempt
        working = asyncio.ensure_future(work)
        changing = asyncio.ensure_future(
            self.owner.watcher.changed(
                meeting.peer_slot, meeting.peer_text, fastest=FASTEST if behind else CHANGE_POLL
            )
        )
        try:
            with doing(self._connecting):
                await asyncio.wait([working, changing], return_when=asyncio.FIRST_COMPLETED)
            if not working.done() and changing.exception() is not None:
                # The store failed meanwhile; the attempt does not need it.
                await asyncio.wait([working])
            return working.result() if working.done() else None
        finally:
            await _cancel(working)
            await _cancel(changing)

    async def _terms(self, peer: Record) -> Terms:
        strong = Security.ENCRYPTED in (self.meeting.mine.security, peer.security)
        if strong and not (peer.cert and self.owner.identity):
            raise PeerNotVerified(
                f"{self.spec}: one end asks for encryption, the other has no certificate",
                next_step="set PUNCH_SECURITY alike on all nodes",
            )
        return Terms(
            key=self.meeting.mine_slot.key,
            sending=self.spec.sending,
            my_side=self.meeting.mine.side,
            peer_side=peer.side,
            security=Security.ENCRYPTED if strong else Security.AUTHENTICATED,
            job_key=self.config.job_key,
            my_identity=await self.owner.identity if self.owner.identity else None,
            peer_cert=peer.cert,
        )

    def _fallback(self, peer: Record) -> Fallback:
        if Route.S3 in self.config.routes and self.owner.fallback is not None:
            return self.owner.fallback
        step = "allow the s3 route in PUNCH_ROUTES"
        if Route.S3 in self.config.routes:
            step = "set AWS_BUCKET, so that the stream can go through S3"
        raise NoRoute(
            f"{self.spec}: no direct way to the peer {peer.external_addr}, and no S3 route. "
            f"Tried: {self.log}{self._stun_trouble()}",
            next_step=step,
        )

    # Words

    def _connected(
        self,
        channel: Channel | None,
        raw: socket.socket | None,
        route: Route,
        how: str,
        winner: Winner[Any] | None,
    ) -> Connection:
        connection = Connection(
            channel=channel,
            raw=raw,
            route=route,
            attempt=self.meeting.mine.attempt,
            technique=how,
            local=f"{winner.local[0]}:{winner.local[1]}" if winner else "-",
            remote=f"{winner.remote[0]}:{winner.remote[1]}" if winner else "-",
            registered_at=self.registered_at,
            met_at=self.met_at,
            connected_at=self.loop.time(),
            _leave=self._leave,
        )
        self.owner.report(
            f"pashlib: {self.spec} connected route={route} addr={connection.local} "
            f"peer={connection.remote} setup_ms={connection.setup_ms:.0f} "
            f"attempt={connection.attempt} how={how.replace(' ', '-')}"
        )
        return connection

    def _tell_addresses(self, mine: Record) -> None:
        self.owner.report(f"Get local_addr: {mine.local_addr} external_addr: {mine.external_addr}")
        if Route.PUNCHED in self.config.routes and not mine.candidates:
            self.owner.report(f"pashlib: {self.spec}: not punching{self._stun_trouble()}")

    def _tell_peer(self, peer: Record) -> None:
        self.owner.report(
            f"connecting from {self.meeting.mine.external_addr} to {peer.external_addr}"
        )

    def _stun_trouble(self) -> str:
        failures = self.owner.stun.failures
        return f"; no STUN server told our address ({'; '.join(failures)})" if failures else ""

    def _connecting(self) -> str:
        assert self.meeting.peer is not None
        return (
            f"connecting to {self._peer()} at {self.meeting.peer.external_addr}, "
            f"attempt {self.meeting.mine.attempt}: {self.log}"
        )

    def _peer(self) -> str:
        return f"the peer (key {self.meeting.mine_slot.key!r}, label {self.spec.peer!r})"

    def _seen(self) -> str:
        if self.owner.watcher.last_error is not None:
            return f"the rendezvous failed: {self.owner.watcher.last_error.message}"
        if self.log.pairs:
            return f"attempt {self.meeting.mine.attempt - 1} has failed ({self.log})"
        return self.meeting.problem or "it never registered"

    def _too_late(self) -> PunchError:
        waited = f"{self.config.timeout:.0f} s"
        if self.meeting.peer is None and not self.log.pairs:
            return RendezvousTimeout(
                f"{self.spec}: {self._peer()} did not come within {waited}: {self._seen()}",
                next_step="see whether the peer's node started and how it ended; a longer wait "
                "is PUNCH_TIMEOUT=SECONDS",
            )
        return NoRoute(
            f"{self.spec}: {self._peer()} registered, but no connection came about within "
            f"{waited}. Tried: {self.log}{self._stun_trouble()}",
            next_step="see docs/troubleshooting.md, exit code 4",
        )


async def _cancel(task: asyncio.Future[Any]) -> None:
    if not task.done():
        task.cancel()
        await asyncio.wait([task])


async def _as_it_is(sock: socket.socket) -> socket.socket:
    return sock


async def _at_once(_: socket.socket) -> None:
    return None


def _close(sock: socket.socket) -> None:
    sock.close()
