"""What programs may count on: names, signatures, what the two clients have in common, what importing costs."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from datetime import timedelta
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Unpack, get_type_hints

import pytest
from mcp import Client

import mcp_multi_server
from mcp_multi_server import MultiServerClient, SyncMultiServerClient
from mcp_multi_server.library.callbacks import CallbackOptions, SyncCallbackOptions
from mcp_multi_server.library.version_1 import GONE

TESTS = Path(__file__).parent
TYPED = TESTS / "typing_api.py"
PUBLIC = {
    "MCPServersConfig",
    "MultiServerClient",
    "ServerCapabilities",
    "ServerConfig",
    "ServerRequestContext",
    "SyncMultiServerClient",
    "configure_logging",
    "extract_template_variables",
    "format_namespace_uri",
    "mcp_tools_to_anthropic_format",
    "mcp_tools_to_gemini_format",
    "mcp_tools_to_openai_format",
    "parse_namespace_uri",
    "print_capabilities_summary",
    "substitute_template_variables",
}
SIGNATURES = {
    "__init__": "config_path='mcp_servers.json', *, strict_connect=None, sampling_callback=None, "
    "elicitation_callback=None, list_roots_callback=None, logging_callback=None",
    "from_config": "config_path, *, strict_connect=None, **callbacks",
    "from_dict": "config_dict, *, strict_connect=None, **callbacks",
    "connect": "socket=None, *, timeout=5.0, **callbacks",
    "connect_all": "stack",
    "aclose": "",
    "list_tools": "cursor=None, *, params=None",
    "list_prompts": "cursor=None, *, params=None",
    "list_resources": "cursor=None, use_namespace=True, *, params=None",
    "list_resource_templates": "cursor=None, use_namespace=True, *, params=None",
    "status": "",
    "collisions": "",
    "on_change": "callback",
    "call_tool": "name, arguments=None, read_timeout_seconds=None, progress_callback=None, "
    "*, meta=None, server_name=None",
    "read_resource": "uri, server_name=None, *, read_timeout_seconds=None",
    "get_prompt": "name, arguments=None, server_name=None, *, read_timeout_seconds=None",
    "complete": "ref, argument, context_arguments=None",
    "set_logging_level": "level",
}
PROPERTIES = {"capabilities", "config_path", "prompt_to_server", "strict_connect", "tool_to_server"}
ONLY_ASYNCHRONOUS = {"connect_all", "aclose"}
"""What is about event loops and has no counterpart: a synchronous client is connected once it is made."""
ONLY_SYNCHRONOUS = {"shutdown"}
HEAVY = ("anyio", "asyncio", "httpx2", "mcp", "mcp_types", "msgspec", "prometheus_client", "pydantic", "structlog")


def members(client: type[object]) -> set[str]:
    return {name for name in dir(client) if not name.startswith("_")}


def parameters(function: Any) -> str:
    """The parameters of a method, without their types."""
    found = inspect.signature(function)
    bare = [one.replace(annotation=inspect.Parameter.empty) for one in found.parameters.values() if one.name != "self"]
    return str(found.replace(parameters=bare, return_annotation=inspect.Signature.empty))[1:-1]


def imported(statement: str, among: tuple[str, ...]) -> list[str]:
    """Which of these modules a fresh Python has after a statement."""
    program = f"import sys; {statement}; print(*(name for name in {among!r} if name in sys.modules))"
    return subprocess.check_output([sys.executable, "-c", program], text=True, timeout=30).split()


# --- names -----------------------------------------------------------------------------------------------------------


def test_the_public_names_are_these() -> None:
    assert set(mcp_multi_server.__all__) == PUBLIC
    assert mcp_multi_server.__all__ == sorted(mcp_multi_server.__all__)
    assert set(dir(mcp_multi_server)) >= PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_each_public_name_is_there_and_explained(name: str) -> None:
    found = getattr(mcp_multi_server, name)
    assert found.__name__ == name
    assert found.__doc__


@pytest.mark.parametrize(
    ("module", "names"),
    {
        "client": "MultiServerClient",
        "config": "MCPServersConfig ServerConfig",
        "sync_client": "SyncMultiServerClient",
        "types": "ServerCapabilities",
        "utils": "configure_logging extract_template_variables format_namespace_uri mcp_tools_to_openai_format "
        "parse_namespace_uri print_capabilities_summary substitute_template_variables",
    }.items(),
)
def test_names_are_found_in_the_modules_where_version_1_had_them(module: str, names: str) -> None:
    found = import_module(f"mcp_multi_server.{module}")
    for name in names.split():
        assert getattr(found, name) is getattr(mcp_multi_server, name)


def test_a_star_import_gives_the_public_names() -> None:
    given: dict[str, Any] = {}
    exec("from mcp_multi_server import *", given)
    assert given.keys() - {"__builtins__"} == PUBLIC


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'mcp_multi_server' has no attribute 'MultiServerclient'"):
        getattr(mcp_multi_server, "Multi" + "Serverclient")


# --- signatures ------------------------------------------------------------------------------------------------------


def test_the_client_has_these_members() -> None:
    assert members(MultiServerClient) == (SIGNATURES.keys() - {"__init__"}) | PROPERTIES
    assert {name for name in PROPERTIES if isinstance(getattr(MultiServerClient, name), property)} == PROPERTIES


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_method_takes_these_parameters(name: str) -> None:
    assert parameters(getattr(MultiServerClient, name)) == SIGNATURES[name]


def test_the_synchronous_client_mirrors_the_asynchronous_one() -> None:
    expected = members(MultiServerClient) - ONLY_ASYNCHRONOUS | ONLY_SYNCHRONOUS
    assert members(SyncMultiServerClient) == expected
    assert {name for name in PROPERTIES if isinstance(getattr(SyncMultiServerClient, name), property)} == PROPERTIES


@pytest.mark.parametrize("name", sorted(SIGNATURES.keys() - ONLY_ASYNCHRONOUS - {"__init__"}))
def test_a_mirrored_method_takes_the_same_and_a_timeout_where_it_waits(name: str) -> None:
    original = inspect.signature(getattr(MultiServerClient, name), eval_str=True)
    mirrored = inspect.signature(getattr(SyncMultiServerClient, name), eval_str=True)
    own, its = dict(mirrored.parameters), dict(original.parameters)
    if "callbacks" in its:
        assert its.pop("callbacks").annotation == Unpack[CallbackOptions]
        assert own.pop("callbacks").annotation == Unpack[SyncCallbackOptions]
    if inspect.iscoroutinefunction(getattr(MultiServerClient, name)):
        timeout = own.pop("timeout")
        assert (timeout.default, timeout.annotation) == (None, float | timedelta | None)
    assert list(own.values()) == list(its.values())
    assert mirrored.return_annotation == original.return_annotation


@pytest.mark.parametrize("given", ["servers.json", Path("servers.json")])
def test_a_client_says_which_file_it_was_given_and_how_strict_it_is(given: str | Path) -> None:
    client = MultiServerClient(given, strict_connect=True)
    assert (client.config_path, client.strict_connect) == (Path("servers.json"), True)
    for other in (MultiServerClient.from_dict({"mcpServers": {}}), MultiServerClient.connect("/nowhere")):
        assert (other.config_path, other.strict_connect) == (None, False)


@pytest.mark.parametrize("name", sorted(GONE))
def test_an_attribute_that_version_1_had_says_what_to_use_instead(name: str) -> None:
    for client in (MultiServerClient, SyncMultiServerClient):
        bare = object.__new__(client)
        with pytest.raises(AttributeError, match=f"no attribute '{name}' since version 2: .") as refused:
            getattr(bare, name)
        assert refused.value.name == name
        with pytest.raises(AttributeError, match=r"no attribute 'sesions'$"):
            getattr(bare, "sesions")  # noqa: B009  # a type checker knows that it is not there


def test_both_clients_take_the_callbacks_of_the_sdks_client() -> None:
    names = {name for name in inspect.signature(Client).parameters if name.endswith("_callback")}
    assert names == get_type_hints(CallbackOptions).keys() == get_type_hints(SyncCallbackOptions).keys()
    for client in (MultiServerClient, SyncMultiServerClient):
        parameters = inspect.signature(client).parameters
        assert {name for name in parameters if name.endswith("_callback")} == names
        assert all(parameters[name].kind is inspect.Parameter.KEYWORD_ONLY for name in names)


@pytest.mark.parametrize("client", [MultiServerClient, SyncMultiServerClient])
def test_everything_public_is_explained_and_typed(client: type[object]) -> None:
    for name in members(client):
        member = inspect.getattr_static(client, name)
        function: Any = member.fget if isinstance(member, property) else getattr(client, name)
        assert function.__doc__, name
        found = inspect.signature(function)
        assert found.return_annotation is not inspect.Signature.empty, name
        untyped = [one.name for one in found.parameters.values() if one.annotation is one.empty]
        assert untyped in ([], ["self"]), name


# --- imports ---------------------------------------------------------------------------------------------------------


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert imported("import mcp_multi_server", HEAVY) == []


@pytest.mark.parametrize("name", ["MultiServerClient", "SyncMultiServerClient"])
def test_the_clients_need_the_types_of_the_sdk_and_nothing_else_of_it(name: str) -> None:
    heavy = ("mcp", "httpx2", "structlog", "prometheus_client", "rich", "watchfiles")
    assert imported(f"from mcp_multi_server import {name}", heavy) == []


def test_functions_on_uris_and_logs_need_no_types() -> None:
    names = "extract_template_variables, format_namespace_uri, parse_namespace_uri, configure_logging"
    assert imported(f"from mcp_multi_server import {names}", HEAVY) == []


# --- types -----------------------------------------------------------------------------------------------------------


def test_the_package_says_that_it_is_typed() -> None:
    spec = find_spec("mcp_multi_server")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    assert (Path(spec.submodule_search_locations[0]) / "py.typed").is_file()


def test_the_typed_program_uses_all_of_it() -> None:
    used = TYPED.read_text()
    assert [name for name in (*PUBLIC, *SIGNATURES, *PROPERTIES) if name not in used and name != "__init__"] == []


COMPLAINT = re.compile(r"^\s*(\S+?):(\d+)(?::\d+)?(?: -|:) error: ", re.MULTILINE)
MISTAKES = ("MultiServerClient(3)", "ServerConfig(args=[4])", "mcp_multi_server.Nix")


@pytest.mark.parametrize("checker", [("mypy", "--strict", "--no-error-summary"), ("pyright",)], ids=lambda it: it[0])
def test_a_program_that_uses_all_of_it_is_correctly_typed_and_each_mistake_is_found(
    checker: tuple[str, ...], tmp_path: Path
) -> None:
    """One run for all programs, as a checker needs seconds to read the libraries and nothing for a program more."""
    programs = {tmp_path / "right.py": ""} | {
        tmp_path / f"wrong_{number}.py": mistake for number, mistake in enumerate(MISTAKES)
    }
    for program, mistake in programs.items():
        program.write_text(f"{TYPED.read_text()}\n\n{mistake}\n")
    strict = {"typeCheckingMode": "strict", "venvPath": sys.prefix, "venv": "."}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(strict))
    checked = subprocess.run(
        [sys.executable, "-m", *checker, *map(str, programs)],
        capture_output=True,
        text=True,
        timeout=50,
        cwd=tmp_path if checker == ("pyright",) else TESTS.parents[1],
        env=os.environ | {"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"},  # it would ask the network for a newer version
        check=False,
    )
    found = {(Path(path).name, int(line)) for path, line in COMPLAINT.findall(checked.stdout)}
    expected = {(program.name, len(program.read_text().splitlines())) for program in programs if programs[program]}
    assert found == expected, checked.stdout + checked.stderr
    assert checked.returncode == 1
