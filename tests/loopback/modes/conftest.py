"""Where the suite's pashlibs live: one rendezvous, one STUN server, one engine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.coturn import coturn
from tests.support.ministack import MiniStack
from tests.support.pashlib_rig import MODES, SECURITIES, World
from tests.support.pashlib_rig import world as make_world
from tests.support.tiers import quick


@pytest.fixture(scope="package")
def world(ministack: MiniStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    with coturn(folder) as (host, port):
        env = {**ministack.env, "PASH_STUN_SERVER": f"{host}:{port}"}
        with make_world(folder, env) as there:
            yield there


@pytest.fixture(params=quick(MODES, 1))
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=SECURITIES)
def security(request: pytest.FixtureRequest) -> str:
    return str(request.param)
