"""The injected cold start of a worker (services/lambda/local_entry.py)."""

from __future__ import annotations

import importlib
import random
import statistics

import pytest

# `lambda` is a keyword: the folder cannot be named in an import statement.
cold_start = importlib.import_module("services.lambda.local_entry").cold_start


def drawn(text: str, count: int = 20_000) -> list[float]:
    rng = random.Random(7)
    return sorted(cold_start(text, rng) for _ in range(count))


@pytest.mark.parametrize("text", ["", "  "])
def test_nothing_means_none(text: str) -> None:
    assert cold_start(text, random.Random()) == 0.0


def test_a_number_is_the_same_for_each_worker() -> None:
    assert set(drawn("0.15", 100)) == {0.15}


def test_uniform_fills_its_bounds() -> None:
    values = drawn("uniform:0.1,0.4")
    assert 0.1 <= values[0] < 0.101 and 0.399 < values[-1] <= 0.4
    assert statistics.mean(values) == pytest.approx(0.25, rel=0.02)


def test_lognormal_has_the_median_and_the_percentile_that_it_is_given() -> None:
    values = drawn("lognormal:0.152,0.38")
    assert statistics.median(values) == pytest.approx(0.152, rel=0.02)
    assert values[int(len(values) * 0.99)] == pytest.approx(0.38, rel=0.05)


def test_rare_ones_take_their_own_time() -> None:
    values = drawn("0.1;0.01*10")
    assert set(values) == {0.1, 10.0}
    assert values.count(10.0) == pytest.approx(200, rel=0.3)


@pytest.mark.parametrize(
    "text",
    [
        "soon",
        "-1",
        "nan",
        "1e9",
        "normal:1,2",
        "uniform:1",
        "lognormal:0,1",
        "lognormal:2,1",
        "1;x*2",
    ],
)
def test_what_is_not_understood_is_shown_with_the_forms(text: str) -> None:
    with pytest.raises(ValueError, match="lognormal:MEDIAN,P99") as caught:
        cold_start(text, random.Random())
    assert repr(text) in str(caught.value)
