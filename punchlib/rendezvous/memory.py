"""A rendezvous store in this process: for tests, and for ends that share a process."""

from __future__ import annotations

from collections.abc import Iterable

from punchlib.core.records import V2_MARK
from punchlib.rendezvous.store import Registered, Slot


class MemoryStore:
    """See `RendezvousStore`. `calls` counts what a real store would be charged for."""

    def __init__(self) -> None:
        self.records: dict[Slot, str] = {}
        self.calls: dict[str, int] = {"register": 0, "read": 0, "remove": 0}

    async def ready(self) -> None:
        return None

    async def register(
        self, mine: Slot, text: str, peer_label: str, *, expires: int, refuse_v1_peer: bool
    ) -> Registered:
        self.calls["register"] += 1
        peer = self.records.get(Slot(mine.key, peer_label))
        if refuse_v1_peer and peer is not None and V2_MARK not in peer:
            return Registered(False, peer)
        self.records[mine] = text
        return Registered(True, peer)

    async def read(self, slots: Iterable[Slot]) -> dict[Slot, str]:
        self.calls["read"] += 1
        return {s: self.records[s] for s in slots if s in self.records}

    async def remove(self, mine: Slot, text: str, *, instead: str = "") -> None:
        self.calls["remove"] += 1
        if self.records.get(mine) == text:
            del self.records[mine]
            if instead:
                self.records[mine] = instead
