"""Levels of log messages."""

import pytest

from mcp_multi_server.core.errors import INVALID_PARAMS, RpcError
from mcp_multi_server.core.jsonrpc import Raw
from mcp_multi_server.core.log_levels import LEVELS, level_in, lowest, reaches


@pytest.mark.parametrize("level", LEVELS)
def test_a_level_reaches_those_below_it(level: str) -> None:
    at = LEVELS.index(level)
    assert [reaches(level, least) for least in LEVELS] == [True] * (at + 1) + [False] * (len(LEVELS) - at - 1)


@pytest.mark.parametrize("level", [None, "", "loud", "INFO"])
def test_a_message_of_no_known_level_reaches_everybody(level: str | None) -> None:
    assert reaches(level, "emergency")


def test_the_lowest_is_the_least_important() -> None:
    assert lowest(["error", "notice", "alert"]) == "notice"
    assert lowest([]) is None


def test_a_level_is_read() -> None:
    assert level_in(Raw(b'"notice"'), "params.level") == "notice"


@pytest.mark.parametrize("raw", [None, b'"loud"', b"1", b"null", b'{"level":"info"}'])
def test_what_is_no_level_is_refused_with_those_there_are(raw: bytes | None) -> None:
    with pytest.raises(RpcError) as refused:
        level_in(None if raw is None else Raw(raw), "params.level")
    assert refused.value.code == INVALID_PARAMS
    assert refused.value.message.startswith("params.level must be one of debug, info,")
