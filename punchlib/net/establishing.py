"""One connection on its way: attempt after attempt, each with fresh ports, a fresh side and record.

When an attempt fails, both ends move on to the next one (`ATTEMPTS` of the core, then S3); an end
that restarts comes back with a new side and is followed. Nothing waits beyond the deadline, and the
error says what was seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from punchlib.config import Config
from punchlib.core import records
from punchlib.core.candidates import Route
from punchlib.core.handshake import Identity, Terms
from punchlib.core.records import GRACE, Record, RecordError
from punchlib.core.simultaneous_open import Technique, make_plan, plan_for_v1
from punchlib.errors import NoRoute, PeerNotVerified, PunchError, RendezvousTimeout, escape
from punchlib.net import sockets
from punchlib.net.attempt import Attempt, Log, Winner
from punchlib.net.channel import Channel, nominate, open_channel
from punchlib.net.connection import Connection, Fallback, Spec
from punchlib.net.gather import Ends, open_ports
from punchlib.net.stun_client import StunClient
from punchlib.rendezvous.store import RendezvousStore, Slot
from punchlib.rendezvous.watcher import Watcher

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
        self.expires = int(time.time() + self.config.timeout) + GRACE
        scoped = f"{self.config.job_id}/{spec.key}" if self.config.job_id else spec.key
        self.mine_slot = Slot(scoped, spec.me)
        self.peer_slot = Slot(scoped, spec.peer)
        self.log = Log()
        self.ends: Ends | None = None
        self.mine = Record(sockets.SOMEWHERE, sockets.SOMEWHERE)
        self.mine_text = ""
        self.visible = False
        self.registered_at = 0.0
        self.met_at = 0.0
        self.peer: Record | None = None
        self.peer_text: str | None = None
        self.problem = ""

    async def run(self) -> Connection:
        try:
            async with asyncio.timeout(self.config.timeout):
                return await self._run()
        except TimeoutError:
            await self._withdraw()
            raise self._too_late() from None
        except BaseException:
            await self._withdraw()
            raise
        finally:
            if self.ends is not None:
                self.ends.close()

    async def _run(self) -> Connection:
        second = await self._enter(1)
        while True:
            if self.peer is None:
                second = await self._await_peer()
            assert self.peer is not None
            if self.peer.is_v1:
                connection = await self._with_v1(self.peer)
            else:
                connection = await self._with_v2(self.peer, second)
            if connection is not None:
                return connection
            # The attempt has failed, or the peer has moved on to another record meanwhile.
            tried = self.peer_text
            self._take(await self._read_peer())
            if self.peer_text != tried and self.peer and self.peer.attempt <= self.mine.attempt:
                # It has started anew, and its registration has found our record: it is second.
                second = False
                continue
            next_attempt = max(self.mine.attempt + 1, self.peer.attempt if self.peer else 0)
            second = await self._enter(next_attempt)
            if self.peer_text == tried:
                self.peer = None  # Still the record that has failed: wait for the next.

    # Rendezvous

    async def _enter(self, attempt: int) -> bool:
        """Gathers and registers with fresh ports; whether we are second (`peer` is there)."""
        if self.ends is not None:
            self.ends.close()
        ready = asyncio.ensure_future(self.owner.store.ready())
        try:
            self.ends = await open_ports(self.owner.stun, self.config.routes)
            identity = await self.owner.identity if self.owner.identity is not None else None
            await ready
        finally:
            await _cancel(ready)
        nat = await self.owner.stun.nat()
        self.ends.settle(nat, self.config.routes, on_lambda=self.config.on_lambda)
        self.mine = Record(
            local_addr=self.ends.local,
            external_addr=self.ends.external,
            side=os.urandom(8).hex(),
            attempt=attempt,
            ts=int(time.time() * 1000),
            expires=self.expires,
            security=self.config.security,
            cert=identity.cert_der if identity else b"",
            candidates=self.ends.candidates,
            nat=self.ends.nat,
        )
        self.mine_text = self.mine.to_json(
            scope=records.signature_scope(*self.mine_slot), job_key=self.config.job_key
        )
        if attempt == 1:
            self._tell_addresses()
        await self._register(refuse_v1_peer=self.config.wire != "v2")
        return self.peer is not None

    async def _register(self, *, refuse_v1_peer: bool) -> None:
        answer = await self.owner.store.register(
            self.mine_slot,
            self.mine_text,
            self.spec.peer,
            expires=self.expires + GRACE,
            refuse_v1_peer=refuse_v1_peer,
        )
        self.visible = answer.accepted
        self.registered_at = self.met_at = self.loop.time()
        self._take(answer.peer)

    async def _await_peer(self) -> bool:
        """Waits for the peer's record; whether it was there when ours was written."""
        second = False
        while self.peer is None:
            text = await self._unless_mapping_is_lost(
                self.owner.watcher.changed(self.peer_slot, self.peer_text)
            )
            if text is None:
                # What we have registered is no longer true.
                second = await self._enter(self.mine.attempt)
            else:
                self._take(text)
                second = False
        self.met_at = self.loop.time()
        return second

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

    async def _read_peer(self) -> str | None:
        return (await self.owner.store.read([self.peer_slot])).get(self.peer_slot)

    def _take(self, text: str | None) -> None:
        """Takes the peer's record; a stale one or garbage is remembered and waited out."""
        self.peer_text, self.peer = text, None
        if text is None:
            return
        scope = records.signature_scope(*self.peer_slot)
        try:
            record = records.parse(text, scope=scope, job_key=self.config.job_key)
        except RecordError as exc:
            self.problem = f"what is there is no record: {escape(str(exc), 200)}"
            return
        if not record.is_fresh(time.time()):
            age = time.time() - record.ts / 1000
            self.problem = f"there is only a record of an earlier run, written {age:.0f} s ago"
            return
        if record.is_v1 and self.config.wire == "v2":
            raise PeerNotVerified(
                f"{self.spec}: the peer is an old (v1) pashlib, and PUNCH_WIRE=v2 refuses it",
                next_step="upgrade the peer, or allow it with PUNCH_WIRE=auto",
            )
        self.problem = ""
        self.peer = record

    async def _withdraw(self) -> None:
        if self.visible:
            with contextlib.suppress(PunchError):
                await asyncio.shield(self._forget())

    def _forget(self) -> asyncio.Future[None]:
        return asyncio.ensure_future(self.owner.store.remove(self.mine_slot, self.mine_text))

    # Attempts

    async def _with_v2(self, peer: Record, second: bool) -> Connection | None:
        """One attempt; None when it failed or the peer's record changed."""
        assert self.ends is not None
        terms = await self._terms(peer)
        plan = make_plan(
            self.mine,
            peer,
            second=second,
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
        plan = plan_for_v1(self.mine, peer, sending=self.spec.sending, seconds=self.config.timeout)
        attempt = Attempt[socket.socket](
            plan, self.ends, verify=_as_it_is, nominate=_at_once, discard=_close, log=self.log
        )
        holding = asyncio.ensure_future(attempt.run())
        try:
            # An old peer dials once, as soon as it sees our record: hold first (one turn of the
            # loop sends the SYNs), and be seen only then.
            await asyncio.sleep(0)
            if not self.visible:
                await self._register(refuse_v1_peer=False)
        except BaseException:
            await _cancel(holding)
            raise
        winner = await self._or_peer_changes(holding)
        if winner is None:
            return None
        return self._connected(None, winner.channel, winner.route, "hold for v1", winner)

    async def _or_peer_changes(self, work: Awaitable[T]) -> T | None:
        """The work's result; None when the peer's record changes first."""
        working = asyncio.ensure_future(work)
        changing = asyncio.ensure_future(
            self.owner.watcher.changed(self.peer_slot, self.peer_text, fastest=CHANGE_POLL)
        )
        try:
            await asyncio.wait([working, changing], return_when=asyncio.FIRST_COMPLETED)
            if not working.done() and changing.exception() is not None:
                # The store failed meanwhile; the attempt does not need it.
                await asyncio.wait([working])
            return working.result() if working.done() else None
        finally:
            await _cancel(working)
            await _cancel(changing)

    async def _terms(self, peer: Record) -> Terms:
        strong = "encrypted" in (self.mine.security, peer.security)
        if strong and not (peer.cert and self.owner.identity):
            raise PeerNotVerified(
                f"{self.spec}: one end asks for encryption, the other has no certificate",
                next_step="set PUNCH_SECURITY alike on all nodes",
            )
        return Terms(
            key=self.mine_slot.key,
            sending=self.spec.sending,
            my_side=self.mine.side,
            peer_side=peer.side,
            security="encrypted" if strong else "authenticated",
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
            attempt=self.mine.attempt,
            technique=how,
            local=f"{winner.local[0]}:{winner.local[1]}" if winner else "-",
            remote=f"{winner.remote[0]}:{winner.remote[1]}" if winner else "-",
            registered_at=self.registered_at,
            met_at=self.met_at,
            connected_at=self.loop.time(),
            _forget=self._forget,
        )
        self.owner.report(
            f"pashlib: {self.spec} connected route={route} addr={connection.local} "
            f"peer={connection.remote} setup_ms={connection.setup_ms:.0f} "
            f"attempt={connection.attempt} how={how.replace(' ', '-')}"
        )
        return connection

    def _tell_addresses(self) -> None:
        self.owner.report(
            f"Get local_addr: {self.mine.local_addr} external_addr: {self.mine.external_addr}"
        )
        if Route.PUNCHED in self.config.routes and not self.mine.candidates:
            self.owner.report(f"pashlib: {self.spec}: not punching{self._stun_trouble()}")

    def _tell_peer(self, peer: Record) -> None:
        self.owner.report(f"connecting from {self.mine.external_addr} to {peer.external_addr}")

    def _stun_trouble(self) -> str:
        failures = self.owner.stun.failures
        return f"; no STUN server told our address ({'; '.join(failures)})" if failures else ""

    def _too_late(self) -> PunchError:
        waited = f"{self.config.timeout:.0f} s"
        where = f"key {self.mine_slot.key!r}, label {self.spec.peer!r}"
        if self.peer is None and not self.log.pairs:
            seen = self.problem or "it never registered"
            if self.owner.watcher.last_error is not None:
                seen = f"the rendezvous failed: {self.owner.watcher.last_error.message}"
            return RendezvousTimeout(
                f"{self.spec}: the peer ({where}) did not come within {waited}: {seen}",
                next_step="see whether the peer's node started and how it ended; a longer wait "
                "is PUNCH_TIMEOUT=SECONDS",
            )
        return NoRoute(
            f"{self.spec}: the peer ({where}) registered, but no connection came about within "
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
