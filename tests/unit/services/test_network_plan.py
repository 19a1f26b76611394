"""The network plan is refused where Docker would take a network away from this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from services import network_plan

ENV = Path(__file__).parents[3] / ".env"
#: As Linux shows it: the default route, a /24 on eth0, 10.8.0.0/16 by a gateway.
ROUTES = """Iface	Destination	Gateway	Flags	RefCnt	Use	Metric	Mask	MTU	Window	IRTT
eth0	00000000	01010A0A	0003	0	0	0	00000000	0	0	0
eth0	006433C6	00000000	0001	0	0	0	00FFFFFF	0	0	0
tun0	0000080A	0101A8C0	0003	0	0	0	0000FFFF	0	0	0
br-0123456789ab	00001FAC	00000000	0001	0	0	0	00FFFFFF	0	0	0
"""
FREE = {"PUNCH_VPC": "10.9.1", "PUNCH_CORE": "10.9.2"}


@pytest.fixture(autouse=True)
def routes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "route"
    file.write_text(ROUTES)
    monkeypatch.setattr(network_plan.machine_routes, "__defaults__", (file,))
    return file


def test_the_plan_names_every_network_and_the_environment_wins() -> None:
    plan = network_plan.read(ENV, {"PUNCH_VPC": "10.1.2", "HOME": "/"})
    assert set(plan) == set(network_plan.NAMES)
    assert plan["PUNCH_VPC"] == "10.1.2"
    assert plan["PUNCH_CORE"] == "198.18.0"


def test_routes_are_read_as_the_kernel_writes_them() -> None:
    found = [str(route) for route in network_plan.machine_routes()]
    assert found == [
        "198.51.100.0/24 dev eth0",
        "10.8.0.0/16 via 192.168.1.1 dev tun0",
        "172.31.0.0/24 dev br-0123456789ab",
    ]


def test_a_free_plan_passes() -> None:
    network_plan.check(FREE)


@pytest.mark.parametrize(
    ("prefix", "route"),
    [
        ("198.51.100", "198.51.100.0/24 dev eth0"),
        ("10.8.200", "10.8.0.0/16 via 192.168.1.1 dev tun0"),
    ],
)
def test_an_overlap_is_refused_and_both_are_named(prefix: str, route: str) -> None:
    with pytest.raises(SystemExit) as refused:
        network_plan.check({**FREE, "PUNCH_LAMBDA": prefix})
    assert f"PUNCH_LAMBDA={prefix}" in str(refused.value)
    assert route in str(refused.value)


def test_our_own_bridges_do_not_count() -> None:
    plan = {**FREE, "PUNCH_LAMBDA": "172.31.0"}
    with pytest.raises(SystemExit):
        network_plan.check(plan)
    network_plan.check(plan, {"br-0123456789ab"})


@pytest.mark.parametrize("prefix", ["10.1", "10.1.2.3", "300.1.1", "a.b.c", ""])
def test_what_is_no_network_is_refused(prefix: str) -> None:
    with pytest.raises(SystemExit, match="PUNCH_LAMBDA"):
        network_plan.check({"PUNCH_LAMBDA": prefix})


def test_the_same_network_twice_is_refused() -> None:
    with pytest.raises(SystemExit, match="PUNCH_VPC"):
        network_plan.check({"PUNCH_VPC": "10.9.1", "PUNCH_CORE": "10.9.1"})


def test_a_machine_without_routes_to_read_has_none(tmp_path: Path) -> None:
    assert list(network_plan.machine_routes(tmp_path / "missing")) == []
