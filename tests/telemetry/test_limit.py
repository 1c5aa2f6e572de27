"""A burst, then so many a second, and no count that is lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mcp_multi_server.telemetry.limit import Limit


@given(st.lists(st.floats(0.0, 3.0), max_size=200))
def test_a_limit_loses_no_count_and_never_exceeds_its_rate(pauses: list[float]) -> None:
    limit, now, admitted, told = Limit(20.0, 0.0), 0.0, 0, 0
    for pause in pauses:
        now += pause
        told += limit.reopen(now)
        admitted += limit.admits(now)
    assert admitted + told + limit.take() == len(pauses)
    assert admitted <= 50 + 20.0 * now
