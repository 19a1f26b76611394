"""How two ends come to a connection: what each has said, and what this one does next.

The pair of records that stand in the store is an attempt, which both ends make as soon as they see
it. One that fails leaves a new record, `tried`; the other's attempt has then failed too, unless it
was never with the record that was tried: ends may be out of step by seconds, on starved machines.
Each counts its own failures, and the technique is that of the lower count (`ATTEMPTS` of the check
list, then S3). An end that restarts comes back with a new side and is followed.

No clock says whether a record is an earlier run's, for clocks are wrong: its owner does. What stood
there when we came and never moves is tried like any other, and waited out; only a record that came,
or that answers one of ours, proves that somebody is there with whom we may fail.

No I/O and no clock here: the caller tells what happened and when, and carries out what comes back.

    command = agreement.start()
    Register → text = agreement.on_gathered(record); agreement.on_registered(…)
    Wait     → agreement.on_record(…), .on_mapping_lost() or, after `seconds`, .on_pause_over(now)
    Look     → agreement.on_record(…)
    Try      → agreement.on_connected(…), .on_attempt_failed(…), or .on_record(…) when it changed
    Fail     → raise its error, leave `agreement.word(…)` in our record's place

The order of it all is one table, `TRANSITIONS`; docs/diagrams/agreement.md shows it.
"""

from __future__ import annotations

from punchlib.config import Config, Route, Security
from punchlib.core import records
from punchlib.core.events import (
    AttemptFailed,
    AttemptStarted,
    Connected,
    Event,
    MappingLost,
    PeerSeen,
    Registered,
    Spec,
    StunAnswered,
)
from punchlib.core.peer_place import SILENT, PeerPlace
from punchlib.core.records import Record, Withdrawal
from punchlib.core.simultaneous_open import ATTEMPTS, Plan, Technique, make_plan, plan_for_v1
from punchlib.core.transitions import (
    TRANSITIONS,
    Command,
    Fail,
    Look,
    Register,
    State,
    Try,
    Wait,
    What,
)
from punchlib.errors import (
    Cause,
    NoRoute,
    PeerNotVerified,
    PunchError,
    RendezvousTimeout,
)

#: Attempts in all: who writes the table must not make us dial for ever.
MOST_ATTEMPTS = 64
#: Seconds: the longest pause after an attempt during which this process stood still, and how much
#: standing still is none.
LONGEST_PAUSE = 5.0
STOOD_STILL = 0.5


class Agreement:
    """One end's part in one connection.

    Args:
        spec: the connection.
        config: this process's configuration.
        fallback: there is a route that needs no reachability (S3).

    Attributes:
        state: where we stand.
        mine: our record, once gathered.
        place: what stands in the peer's place.
        registered_at, met_at: seconds, by the caller's clock; `met_at` is when both were there.
    """

    def __init__(self, spec: Spec, config: Config, *, fallback: bool) -> None:
        self.spec = spec
        self.state = State.GATHERING
        self.mine: Record | None = None
        self.registered_at = self.met_at = 0.0
        scoped = config.scoped(spec.key)
        self.mine_slot = (scoped, spec.me)
        self.place = PeerPlace((scoped, spec.peer), config, str(spec))
        self._config = config
        self._fallback = fallback
        self._next = Register(1, "", not config.v1_refused_by)
        self._visible = False
        self._found: str | None = None  # what stood there when we last registered
        self._pair: tuple[str | None, str] = (None, "")  # the peer's text and side in the attempt
        self._plan: Plan | None = None
        self._sides: set[str] = set()
        self._attempts = 0
        self._tried = ""
        self._stun_trouble = ""
        self._stood_still = 0.0
        self._failure: Fail | None = None
        self._events: list[Event] = []

    # What happens

    def start(self) -> Command:
        """The first command."""
        return self._command()

    def on_gathered(self, mine: Record, *, trouble: str = "") -> str:
        """Our record is made; returns its text, to be registered.

        Args:
            mine: the record.
            trouble: why no STUN server told our address; "" when one did.
        """
        self.mine = mine
        self._sides.add(mine.side)
        self._stun_trouble = trouble
        if mine.attempt == 1 and len(self._sides) == 1:
            cannot = Route.PUNCHED in self._config.routes and not mine.candidates
            self._events.append(
                StunAnswered(
                    self.spec, mine.local_addr, mine.external_addr, trouble if cannot else ""
                )
            )
        return self._signed(mine)

    def on_registered(self, accepted: bool, peer_text: str | None, now: float) -> Command:
        """The store's answer: whether it took our record, and what stands in the peer's place."""
        assert self.mine is not None
        if len(self._sides) == 1:
            self.place.at_first = peer_text
        self.registered_at = self.met_at = now
        self._visible, self._found = accepted, peer_text
        if accepted:
            self._events.append(Registered(self.spec, self.mine.attempt))
        return self.on_record(peer_text, now)

    def on_shown(self, peer_text: str | None, now: float) -> Command | None:
        """Our record is in the store now; None when the command goes on."""
        self._visible, self._found = True, peer_text
        return self.on_record(peer_text, now) if peer_text != self.place.text else None

    def on_record(self, text: str | None, now: float) -> Command:
        """What stands in the peer's place."""
        news = text != self.place.text
        try:
            self.place.take(text, self._sides)
        except PunchError as exc:
            self._failure = Fail(exc, exc.message)
            return self._move(What.OVER, now)
        if news and (peer := self.place.record) is not None:
            self._events.append(PeerSeen(self.spec, peer.external_addr, peer.is_v1))
        return self._move(self._weigh(), now)

    def on_attempt_failed(self, now: float, *, tried: str, stood_still: float = 0.0) -> Command:
        """An attempt's time is up.

        Args:
            now: seconds.
            tried: what all pairs met so far, for people; "" when none was tried.
            stood_still: for how many seconds of the attempt this process did not run.
        """
        assert self.mine is not None
        self._tried, self._stood_still = tried, stood_still
        self._events.append(AttemptFailed(self.spec, self.mine.attempt, tried))
        return self._move(What.ATTEMPT_FAILED, now)

    def on_connected(self, now: float, route: Route, how: str, local: str, remote: str) -> None:
        """A connection is nominated."""
        assert self.mine is not None
        self._move(What.NOMINATED, now)
        setup_ms = (now - self.met_at) * 1000
        self._events.append(
            Connected(self.spec, route, self.mine.attempt, how, local, remote, setup_ms)
        )

    def on_mapping_lost(self, now: float) -> Command:
        """What we have registered is no longer true."""
        assert self.mine is not None
        if self.state is State.WAITING:
            self._next = Register(self.mine.attempt, self.mine.tried, self._next.refuse_v1)
        self._events.append(MappingLost(self.spec))
        return self._move(What.MAPPING_LOST, now)

    def on_pause_over(self, now: float) -> Command:
        """The seconds of a `Wait` are over."""
        return self._move(What.PAUSE_OVER, now)

    def on_deadline(self, now: float, *, tried: str = "", store_trouble: str = "") -> Fail:
        """The time for the whole connection is up."""
        self._tried = tried or self._tried
        waited = f"{self._config.timeout:.0f} s"
        if (self.place.record is None and not self._tried) or not self.place.proved:
            self._fail(
                RendezvousTimeout,
                f"{self._peer()} did not come within {waited}: {store_trouble or self._seen()}",
                "see whether the peer's node started and how it ended; a longer wait "
                "is PUNCH_TIMEOUT=SECONDS",
                word="the other end had waited for too long",
            )
        else:
            self._fail(
                NoRoute,
                f"{self._peer()} registered, but no connection came about within {waited}"
                f"{self._said_of_tries()}",
                "see docs/troubleshooting.md, exit code 4",
                word=f"no connection came about within {waited}",
            )
        failed = self._move(What.OVER, now)
        assert isinstance(failed, Fail)
        return failed

    def take_events(self) -> list[Event]:
        """What has happened since the last call."""
        events, self._events = self._events, []
        return events

    def word(self, exit_code: int, cause: Cause) -> str:
        """What a peer that we have met finds in our record's place; "" when there is none."""
        if not self.place.met:
            return ""
        said = cause.said_by(self._config.node)
        return self._signed(Withdrawal(self.place.met, exit_code, said))

    # What it means

    def _weigh(self) -> What:
        """What the record that was taken means in this state."""
        mine, peer = self.mine, self.place.record
        assert mine is not None
        if peer is None:
            return What.NOBODY
        unmoved = self.place.text == self._pair[0]
        if self.state is State.GATHERING:
            if unmoved and mine.attempt > len(ATTEMPTS) + 1:
                self.place.dismiss()  # it is not there: wait for it
                return What.SPENT
        elif self.state is not State.WAITING and (unmoved or peer.tried == mine.side):
            self._next = Register(mine.attempt + 1, self._pair[1], self._next.refuse_v1)
            starved = self.state is State.LOOKING and self._stood_still > STOOD_STILL
            return What.STARVED if starved else What.AGAIN
        return self._plan_attempt(mine, peer)

    def _plan_attempt(self, mine: Record, peer: Record) -> What:
        if self._attempts >= MOST_ATTEMPTS:
            said = f"{MOST_ATTEMPTS} attempts have failed"
            step = "see docs/troubleshooting.md, exit code 4"
            return self._hopeless(NoRoute, said + self._said_of_tries(), step, word=said)
        if peer.is_v1:
            self._plan = plan_for_v1(
                mine, peer, sending=self.spec.sending, seconds=self._config.timeout
            )
            return What.PEER
        if self._security(peer) == Security.ENCRYPTED and not (peer.cert and mine.cert):
            return self._hopeless(
                PeerNotVerified,
                "one end asks for encryption, the other has no certificate",
                "set PUNCH_SECURITY alike on all nodes",
            )
        self._plan = make_plan(
            mine,
            peer,
            second=self.place.text == self._found,
            sending=self.spec.sending,
            routes=self._config.routes,
        )
        if self._plan.technique is not Technique.NONE or self._fallback:
            return What.PEER
        step = "allow the s3 route in PUNCH_ROUTES"
        if Route.S3 in self._config.routes:
            step = "set AWS_BUCKET, so that the stream can go through S3"
        said = f"no direct way to the peer {peer.external_addr}, and no S3 route"
        return self._hopeless(
            NoRoute, said + self._said_of_tries(), step, word="no direct way, and no S3 route"
        )

    def _hopeless(self, kind: type[PunchError], message: str, step: str, *, word: str = "") -> What:
        """With this record it cannot go well. That is the end, if somebody is there.

        It may be an earlier run's. If it is not, its owner sees ours come, and tells us.
        """
        if self.place.lives(self._sides):
            self._fail(kind, message, step, word=word)
            return What.OVER
        self.place.dismiss(f"{message}; {SILENT}")
        return What.NOBODY

    def _fail(self, kind: type[PunchError], message: str, step: str, *, word: str = "") -> None:
        self._failure = Fail(kind(f"{self.spec}: {message}", next_step=step), word or message)

    # What to do

    def _move(self, what: What, now: float) -> Command:
        came_from, self.state = self.state, TRANSITIONS[self.state, what]
        if (came_from, self.state) == (State.WAITING, State.TRYING):
            self.met_at = now
        return self._command()

    def _command(self) -> Command:
        match self.state:
            case State.GATHERING:
                return self._next
            case State.WAITING:
                return Wait(show=not self._visible)
            case State.LOOKING:
                return Look()
            case State.PAUSING:
                return Wait(min(self._stood_still, LONGEST_PAUSE))
            case State.TRYING:
                return self._try()
            case State.FAILED:
                assert self._failure is not None
                return self._failure
            case _:
                return Wait()

    def _try(self) -> Try:
        assert self.mine is not None and self.place.record is not None and self._plan is not None
        self._attempts += 1
        self._pair = self.place.text, self.place.record.side
        self._events.append(
            AttemptStarted(
                self.spec,
                self.mine.attempt,
                self._plan.technique,
                self.mine.external_addr,
                self.place.record.external_addr,
            )
        )
        return Try(
            self._plan,
            self.place.record,
            self._security(self.place.record),
            behind=self.place.record.attempt < self.mine.attempt,
            show=not self._visible,
        )

    def _security(self, peer: Record) -> Security:
        assert self.mine is not None
        strong = Security.ENCRYPTED in (self.mine.security, peer.security)
        return Security.ENCRYPTED if strong else Security.AUTHENTICATED

    def _signed(self, said: Record | Withdrawal) -> str:
        scope = records.signature_scope(*self.mine_slot)
        return said.to_json(scope=scope, job_key=self._config.job_key)

    # Words

    def describe(self, *, tried: str = "") -> str:
        """What we are at, for people."""
        tried = tried or self._tried
        match self.state:
            case State.WAITING | State.PAUSING:
                return f"waiting for {self._peer()} to register: {self._seen()}"
            case State.TRYING if self.place.record is not None and self.mine is not None:
                return (
                    f"connecting to {self._peer()} at {self.place.record.external_addr}, "
                    f"attempt {self.mine.attempt}: {tried or 'no pair was tried'}"
                )
            case _:
                return str(self.state.value)

    def _peer(self) -> str:
        return f"the peer (key {self.mine_slot[0]!r}, label {self.spec.peer!r})"

    def _seen(self) -> str:
        if self._tried and self.mine is not None:
            silent = "" if self.place.proved else f"; {SILENT}"
            return f"attempt {self.mine.attempt - 1} has failed ({self._tried}){silent}"
        return self.place.problem or "it never registered"

    def _said_of_tries(self) -> str:
        trouble = f"; no STUN server told our address ({t})" if (t := self._stun_trouble) else ""
        return f". Tried: {self._tried or 'no pair was tried'}{trouble}"
