"""How long the machine was suspended, from two clocks."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from mcp_multi_server.core.suspend import NOTICED, Clocks, slept

SECONDS = some.floats(0, 1e7)


@pytest.mark.parametrize(
    ("boottime", "monotonic", "expected"),
    [(3.0, 3.0, 0), (3603.0, 3.0, 3600), (8.0, 3.0, 0), (8.5, 3.0, 5.5), (3.0, 8.5, 0), (3600.0, 3600.0, 0)],
)
def test_suspension_is_what_only_the_boot_time_clock_counts(boottime: float, monotonic: float, expected: float) -> None:
    assert slept(Clocks(50.0, 20.0), Clocks(50.0 + boottime, 20.0 + monotonic)) == expected


@given(SECONDS, SECONDS, SECONDS, SECONDS)
def test_time_awake_is_never_taken_for_suspension(
    boottime: float, monotonic: float, awake: float, asleep: float
) -> None:
    found = slept(Clocks(boottime, monotonic), Clocks(boottime + awake + asleep, monotonic + awake))
    assert found == (pytest.approx(asleep, abs=1e-6) if found else 0)
    assert bool(found) == (asleep > NOTICED) or asleep == pytest.approx(NOTICED, abs=1e-6)
