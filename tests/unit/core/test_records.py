"""The rendezvous record."""

import contextlib
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchlib.config import Security
from punchlib.core import records
from punchlib.core.candidates import Candidate, CandidateType, TransportAddress
from punchlib.core.records import Filtering, Mapping, Nat, Record, RecordError, Withdrawal
from punchlib.errors import Cause, PeerNotVerified, WireMismatch

RECORD = Record(
    TransportAddress("10.20.0.4", 40001),
    TransportAddress("198.51.100.20", 40001),
    side="9f2c000000000001",
    attempt=2,
    ts=1790000000123,
    expires=1790000360,
    security=Security.AUTHENTICATED,
    cert=b"\x30\x82\x01",
    candidates=(
        Candidate(CandidateType.SRFLX, TransportAddress("198.51.100.20", 40001)),
        Candidate(CandidateType.HOST, TransportAddress("10.20.0.4", 50001)),
    ),
    nat=Nat(Mapping.INDEPENDENT, Filtering.DEPENDENT),
)
KEY = b"k" * 32
SCOPE = records.signature_scope("job/k1", "0")


@pytest.mark.parametrize("job_key", [b"", KEY])
def test_round_trip(job_key: bytes) -> None:
    text = RECORD.to_json(scope=SCOPE, job_key=job_key)
    assert records.V2_MARK in text
    assert records.parse(text, scope=SCOPE, job_key=job_key) == RECORD


@pytest.mark.parametrize("job_key", [b"", KEY])
def test_a_withdrawal_round_trips(job_key: bytes) -> None:
    for cause in (Cause("no route\n"), Cause("no route", "worker1")):
        said = Withdrawal(RECORD.side, 4, cause)
        _comes_back(said, job_key)


def _comes_back(said: Withdrawal, job_key: bytes) -> None:
    text = said.to_json(scope=SCOPE, job_key=job_key)
    assert records.V2_MARK in text
    assert records.parse(text, scope=SCOPE, job_key=job_key) == said


def test_a_withdrawal_by_somebody_else_or_of_an_earlier_run_is_no_record() -> None:
    text = Withdrawal(RECORD.side, 4, Cause("")).to_json(scope=SCOPE, job_key=b"another")
    for forged in (text, text.replace('"mac"', '"cam"')):
        with pytest.raises(RecordError, match="not signed"):
            records.parse(forged, scope=SCOPE, job_key=KEY)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
def test_a_withdrawal_may_hold_anything(gone: object) -> None:
    for value in (gone, {"met": gone}, {"exit_code": gone}, {"reason": gone}, {"origin": gone}):
        with contextlib.suppress(RecordError):
            assert isinstance(records.parse(json.dumps({"v": 2, "gone": value})), Withdrawal)


def test_an_old_peer_reads_the_first_two_fields() -> None:
    fields = json.loads(RECORD.to_json())
    assert list(fields)[:2] == ["local_addr", "external_addr"]
    assert fields["external_addr"] == "198.51.100.20:40001"


def test_an_old_peers_record() -> None:
    text = '{"local_addr": "169.254.76.1:5000", "external_addr": "198.51.100.7:5000"}'
    record = records.parse(text)
    assert isinstance(record, Record)
    assert record.is_v1
    assert record.external_addr == TransportAddress("198.51.100.7", 5000)
    assert records.V2_MARK not in text


def test_an_old_peer_is_refused_under_a_job_key() -> None:
    text = '{"local_addr": "10.0.0.1:5000", "external_addr": "198.51.100.7:5000"}'
    with pytest.raises(PeerNotVerified, match="old"):
        records.parse(text, job_key=KEY)


@pytest.mark.parametrize(
    ("scope", "key"),
    [
        (records.signature_scope("job/k2", "0"), KEY),  # moved to another key
        (records.signature_scope("job/k1", "1"), KEY),  # to the other label
        (SCOPE, b"x" * 32),
    ],
)
def test_a_record_signed_otherwise_is_refused(scope: str, key: bytes) -> None:
    text = RECORD.to_json(scope=SCOPE, job_key=KEY)
    with pytest.raises(PeerNotVerified, match="not signed"):
        records.parse(text, scope=scope, job_key=key)


def test_an_unsigned_record_is_refused_under_a_job_key() -> None:
    with pytest.raises(PeerNotVerified):
        records.parse(RECORD.to_json(), scope=SCOPE, job_key=KEY)


def test_every_field_is_signed() -> None:
    fields = json.loads(RECORD.to_json(scope=SCOPE, job_key=KEY))
    for name in set(fields) - {"mac", "v"}:
        changed = dict(fields)
        changed[name] = "10.0.0.9:1" if name.endswith("addr") else None
        with pytest.raises(PeerNotVerified):
            records.parse(json.dumps(changed), scope=SCOPE, job_key=KEY)


def test_a_newer_version_is_named_beside_ours() -> None:
    fields = json.loads(RECORD.to_json()) | {"v": 3}
    with pytest.raises(WireMismatch, match=r"version 3.*up to 2"):
        records.parse(json.dumps(fields))


def test_unknown_fields_and_candidate_types_are_ignored() -> None:
    fields = json.loads(RECORD.to_json())
    fields["novelty"] = [1]
    fields["candidates"].insert(0, {"type": "relay", "addr": "whatever"})
    assert records.parse(json.dumps(fields)) == RECORD


def test_an_unknown_security_is_taken_for_the_strongest() -> None:
    fields = json.loads(RECORD.to_json()) | {"security": "none"}
    read = records.parse(json.dumps(fields))
    assert isinstance(read, Record)
    assert read.security == "encrypted"


def test_what_a_clock_says_of_a_record_may_be_missing() -> None:
    fields = json.loads(RECORD.to_json())
    del fields["expires"], fields["ts"]
    assert records.parse(json.dumps(fields)) == replace(RECORD, expires=0, ts=0)


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", "{}", '{"local_addr": 5}', "{" * 5000, "[" * 100000, '"' + "x" * 10],
)
def test_garbage(text: str) -> None:
    with pytest.raises(RecordError):
        records.parse(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


LINES = st.sampled_from([RECORD.to_json(), RECORD.to_json(scope=SCOPE, job_key=KEY)])
DOCUMENTED = (RecordError, WireMismatch, PeerNotVerified)


@given(LINES, json_values, st.sampled_from([b"", KEY]))
def test_a_signature_may_be_anything(text: str, mac: object, job_key: bytes) -> None:
    """What stands in the table is anybody's; here a MAC that is not ASCII ended a process."""
    for value in (mac, "ñ" * 64, "\ud800" * 64, [[]], None):
        fields = json.loads(text) | {"mac": value}
        for forged in (json.dumps(fields), json.dumps({"gone": {}, "mac": value})):
            with contextlib.suppress(*DOCUMENTED):
                records.parse(forged, scope=SCOPE, job_key=job_key)


@given(LINES, st.data(), st.sampled_from([b"", KEY]))
def test_any_character_may_be_another(text: str, data: st.DataObject, job_key: bytes) -> None:
    at = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(at, min(len(text), at + 20)))
    changed = text[:at] + data.draw(st.text(max_size=20)) + text[end:]
    with contextlib.suppress(*DOCUMENTED):
        records.parse(changed, scope=SCOPE, job_key=job_key)


@pytest.mark.parametrize("job_key", [b"", KEY])
@pytest.mark.parametrize("depth", [10, 900, 990, 2000, 9000, 100_000])
@pytest.mark.parametrize("name", ["novelty", "gone", "local_addr", "candidates", "nat", "mac"])
def test_however_deep_it_is(name: str, depth: int, job_key: bytes) -> None:
    nested = "[" * depth + "]" * depth
    text = RECORD.to_json(scope=SCOPE, job_key=job_key)[:-1] + f',"{name}":{nested}}}'
    with contextlib.suppress(*DOCUMENTED):
        records.parse(text, scope=SCOPE, job_key=job_key)


def test_a_record_has_a_size() -> None:
    text = json.dumps(json.loads(RECORD.to_json()) | {"novelty": "x" * records.MAX_SIZE})
    with pytest.raises(RecordError, match="characters"):
        records.parse(text)


@given(st.sampled_from(list(json.loads(RECORD.to_json()))), json_values)
def test_any_field_may_be_anything(name: str, value: object) -> None:
    text = json.dumps(json.loads(RECORD.to_json()) | {name: value})
    try:
        records.parse(text)
    except (RecordError, WireMismatch):
        return
