"""The model of one server's lists, and the set-up of logging."""

import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from mcp_types import ListPromptsResult, ListResourcesResult, ListResourceTemplatesResult, ListToolsResult, Tool
from pydantic import ValidationError

from mcp_multi_server.library.capabilities import ServerCapabilities
from mcp_multi_server.library.logs import configure_logging

LOGGER = "mcp_multi_server"
TOOLS = ListToolsResult(tools=[Tool(name="now", input_schema={"type": "object"})])


def test_a_server_has_a_name_and_lists_that_may_be_missing() -> None:
    offered = ServerCapabilities(name="git")
    assert offered.model_dump() == {
        "name": "git",
        "tools": None,
        "resources": None,
        "resource_templates": None,
        "prompts": None,
    }


def test_lists_are_what_the_protocol_calls_results() -> None:
    offered = ServerCapabilities(
        name="git",
        tools=TOOLS,
        resources=ListResourcesResult(resources=[]),
        resource_templates=ListResourceTemplatesResult(resource_templates=[]),
        prompts=ListPromptsResult(prompts=[]),
    )
    assert offered.tools is TOOLS
    assert ServerCapabilities.model_validate_json(offered.model_dump_json(by_alias=True)) == offered


@pytest.mark.parametrize("wrong", [{}, {"name": None}, {"name": "git", "tools": ListPromptsResult(prompts=[])}])
def test_what_is_no_such_list_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ServerCapabilities.model_validate(wrong)


@contextmanager
def root_without_handlers() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    root.handlers[:] = []
    try:
        yield root
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.getLogger(LOGGER).setLevel(logging.NOTSET)


@pytest.mark.parametrize(
    ("level", "number"),
    [("debug", 10), ("INFO", 20), ("Warning", 30), ("WARN", 30), ("fatal", 50), ("notset", 0), ("nonsense", 20)],
)
def test_the_level_is_a_name_in_any_case_and_info_where_it_is_unknown(level: str, number: int) -> None:
    with root_without_handlers():
        configure_logging(level=level)
        assert logging.getLogger(LOGGER).level == number


def test_the_root_logger_gets_one_handler_once() -> None:
    with root_without_handlers() as root:
        configure_logging(level="ERROR")
        configure_logging(level="DEBUG")
        assert len(root.handlers) == 1
        assert root.level == logging.ERROR
        assert logging.getLogger(LOGGER).level == logging.DEBUG


def test_handlers_of_the_program_are_left_alone() -> None:
    with root_without_handlers() as root:
        root.addHandler(own := logging.NullHandler())
        root.setLevel(logging.CRITICAL)
        configure_logging(level="DEBUG")
        assert root.handlers == [own]
        assert root.level == logging.CRITICAL


def test_another_logger_can_be_named_first() -> None:
    with root_without_handlers():
        configure_logging("mcp_multi_server.test", "ERROR")
        assert logging.getLogger("mcp_multi_server.test").level == logging.ERROR
        assert logging.getLogger(LOGGER).level == logging.NOTSET


def written(call: str) -> str:
    """What a program writes that sets up logging by `call` and logs one line."""
    program = (
        f"import logging; from mcp_multi_server.library.logs import configure_logging as c; {call};"
        f"logging.getLogger('{LOGGER}.part').info('hello')"
    )
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True
    ).stderr


def test_records_go_to_stderr_with_time_level_and_logger() -> None:
    line = written("c()")
    assert line[20:] == "INFO     mcp_multi_server.part - hello\n"
    assert line[4] == line[7] == "-"


def test_the_form_of_records_and_dates_can_be_chosen() -> None:
    assert written("c(format='%(asctime)s|%(message)s', datefmt='day')") == "day|hello\n"
    assert written("c(level='ERROR')") == ""
