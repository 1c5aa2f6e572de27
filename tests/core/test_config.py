"""A config file as a value: what loads, what is refused, and how problems are told."""

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mcp_multi_server.core.config.config import Config, LimitsConfig, MetricsConfig, ServerConfig, Source, parse
from mcp_multi_server.core.config.plan import Plan
from mcp_multi_server.core.errors import ConfigError, Problem

VARIABLES = {"TOKEN": "s3cret", "SECONDS": "7", "YES": "true"}


def look(source: Source, name: str) -> str:
    if source == "env" and name in VARIABLES:
        return VARIABLES[name]
    raise LookupError(f"no {source} {name}")


def read(text: str | dict[str, Any]) -> Config:
    return parse((text if isinstance(text, str) else json.dumps(text)).encode(), look)


def only(**entry: Any) -> Config:
    """A config with one entry, `a`."""
    return read({"mcpServers": {"a": entry}})


def told(config: Config, server: str = "a") -> dict[str, str]:
    """The problems of a server, by field within its entry."""
    assert server not in config.servers
    assert all(problem.server == server for problem in config.broken[server])
    return {problem.field.removeprefix(f"mcpServers.{server}"): problem.message for problem in config.broken[server]}


def refused(text: str | dict[str, Any]) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        read(text)
    return {problem.field: problem.message for problem in caught.value.problems}


# -- files of other hosts


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        pytest.param(
            {"mcpServers": {"fs": {"command": "npx", "args": ["-y", "server-filesystem", "/tmp"], "env": {"A": "1"}}}},
            ServerConfig(command="npx", args=("-y", "server-filesystem", "/tmp"), env={"A": "1"}),
            id="Claude Desktop",
        ),
        pytest.param(
            {"mcpServers": {"api": {"type": "http", "url": "https://x.test/mcp", "headers": {"X": "Bearer ${TOKEN}"}}}},
            ServerConfig(type="http", url="https://x.test/mcp", headers={"X": "Bearer s3cret"}),
            id="Claude Code, http",
        ),
        pytest.param(
            {"mcpServers": {"api": {"type": "sse", "url": "${BASE:-http://localhost:1}/sse"}}},
            ServerConfig(type="sse", url="http://localhost:1/sse"),
            id="Claude Code, sse",
        ),
        pytest.param(
            {"mcpServers": {"api": {"type": "stdio", "command": "run", "args": [], "env": {}}}},
            ServerConfig(type="stdio", command="run"),
            id="Claude Code, stdio",
        ),
        pytest.param(
            {"mcpServers": {"api": {"url": "http://localhost:3000/mcp"}}},
            ServerConfig(url="http://localhost:3000/mcp"),
            id="Cursor",
        ),
        pytest.param(
            {"mcpServers": {"api": {"command": "run", "args": ["x"], "env": None, "cwd": None, "url": None}}},
            ServerConfig(command="run", args=("x",)),
            id="a dump of an SDK's parameters",
        ),
        pytest.param(
            {"servers": {"api": {"type": "stdio", "command": "run"}}},
            ServerConfig(type="stdio", command="run"),
            id="VS Code",
        ),
    ],
)
def test_files_of_other_hosts_load_without_a_note(file: dict[str, Any], expected: ServerConfig) -> None:
    config = read(file)
    assert list(config.servers.values()) == [expected]
    assert not config.broken
    assert not config.notes


@pytest.mark.parametrize("spelling", ["http", "streamable-http", "streamableHttp", "streamable_http"])
def test_every_spelling_of_streamable_http_is_http(spelling: str) -> None:
    assert only(url="http://x.test", type=spelling).servers["a"].type == "http"


def test_keys_of_other_hosts_are_ignored_with_a_note_and_not_expanded() -> None:
    entry = {"command": "run", "autoApprove": ["x"], "gallery": "${NOPE}", "_why": "x", "source": "custom"}
    config = read({"servers": {"a": entry}, "theme": "dark", "$schema": "./x.json", "_comment": "mine"})
    assert config.servers == {"a": ServerConfig(command="run")}
    assert {note.field: note.message for note in config.notes} == {
        "theme": "unknown key, ignored",
        "servers.a.autoApprove": "ignored: whether a person is asked before a call is up to the client",
        "servers.a.gallery": "unknown key, ignored",
    }


def test_mcp_servers_wins_over_servers_with_a_warning() -> None:
    config = read({"servers": {"b": {"command": "b"}}, "mcpServers": {"a": {"command": "a"}}})
    assert config.order == ("a",)
    assert config.warnings == (Problem("servers", "ignored with its 1 servers, since there is mcpServers"),)


def test_the_daemon_gives_entries_the_times_that_they_do_not_give() -> None:
    given = {"command": "x", "timeout": 5, "hang": "off"}
    daemon = {"timeout": 300, "hang": 7}
    config = read({"mcpServers": {"a": {"command": "x"}, "b": given}, "daemon": daemon})
    assert [(each.timeout, each.hang) for each in config.servers.values()] == [(300.0, 7.0), (5.0, "off")]
    assert [(each.timeout, each.hang) for each in only(command="x").servers.values()] == [(60.0, 120.0)]


@pytest.mark.parametrize("daemon", [{"timeout": 300}, {"hang": "off"}])
def test_another_time_of_the_daemon_updates_the_servers_that_give_none_and_replaces_none(daemon: Any) -> None:
    servers = {"a": {"command": "x"}, "b": {"command": "x", "timeout": 5, "hang": 9}}
    before, after = read({"mcpServers": servers}), read({"mcpServers": servers, "daemon": daemon})
    assert Plan.between(before, after) == Plan(update=("a",), keep=("b",))


def test_a_timeout_that_looks_like_milliseconds_gets_a_note() -> None:
    config = only(command="run", timeout=60000, hold=1)
    assert config.servers["a"].timeout == 60000
    assert [(note.field, note.server) for note in config.notes] == [("mcpServers.a.timeout", "a")]
    assert not only(command="run", timeout=3600, hold=1).notes


def test_a_byte_order_mark_is_ignored() -> None:
    assert parse(b'\xef\xbb\xbf{"mcpServers": {}}', look).order == ()


# -- refused as a whole

UNPRINTABLE = "the name of a server must be printable, and not empty"
AS_JSON = "write the servers as JSON, in an object mcpServers"


@pytest.mark.parametrize(
    ("text", "field", "message"),
    [
        ("", "", "the file is empty"),
        (" \n\t", "", "the file is empty"),
        ("[]", "", "must be a JSON object"),
        ("null", "", "must be a JSON object"),
        ("{}", "mcpServers", "missing: the object with the servers (other hosts: servers, context_servers, mcp)"),
        ('{"mcpServers": []}', "mcpServers", "must be an object"),
        ('{"servers": null}', "servers", "must be an object"),
        ('{\n  "mcpServers": tru}', "", "line 2, column 17: not JSON: expecting value"),
        ('{"mcpServers": "a\nb"}', "", "line 1, column 18: not JSON: invalid control character"),
        ("{'mcpServers': {}}", "", "line 1, column 2: not JSON: expecting property name enclosed in double quotes"),
        ('{"mcpServers": {}}\n /* none', "", "line 2, column 2: a comment without its end"),
        ('{ // none,\n "mcpServers" {}}', "", "line 2, column 15: not JSON: expecting ':' delimiter"),
        ('[mcp_servers.time]\ncommand = "uvx"', "", f"this is TOML, not JSON: {AS_JSON}"),
        ('# Codex\nmodel = "x"', "", f"this is TOML, not JSON: {AS_JSON}"),
        ("mcpServers:\n  time:\n", "", f"this is YAML, not JSON: {AS_JSON}"),
        ('{"mcpServers": {"a": {"timeout": 1' + "1" * 5000 + "}}}", "", "holds a number of too many digits"),
        ("[" * 100_000, "", "nested too deeply"),
        ('{"mcpServers": {}, "mcpServers": {}}', "mcpServers", "given twice"),
        ('{"mcpServers": {}, "daemon": {}, "daemon": {}}', "daemon", "given twice"),
        ('{"mcpServers": {"a": {"command": "x"}, "a": {"command": "x"}}}', "mcpServers.a", "two servers of this name"),
    ],
)
def test_an_unusable_file_is_refused_with_what_is_wrong_and_where(text: str, field: str, message: str) -> None:
    assert refused(text) == {field: message}


@pytest.mark.parametrize("name", ["", " ", "\\n", "\\ud800", "\\u202e"])
def test_a_server_whose_name_cannot_be_shown_is_broken_alone(name: str) -> None:
    config = read(f'{{"mcpServers": {{"{name}": {{"command": "x"}}, "b": {{"command": "b"}}}}}}')
    assert list(config.servers) == ["b"]
    (shown,) = config.broken
    assert shown == f'"{name}"'
    assert [(problem.field, problem.message) for problem in config.broken[shown]] == [
        (f'mcpServers["{name}"]', UNPRINTABLE)
    ]


def test_bytes_that_are_no_utf8_are_refused_with_their_line() -> None:
    for data, line in ((b'{"mcpServers":\n {"\xff": {}}}', 2), ("{}".encode("utf-16"), 1)):
        with pytest.raises(ConfigError, match=f"line {line}: not UTF-8 text"):
            parse(data, look)


@pytest.mark.parametrize(
    ("daemon", "field", "message"),
    [
        (None, "", "must be an object"),
        ([], "", "must be an object"),
        ({"naming": "short"}, ".naming", "must be 'bare' or 'qualified'"),
        ({"collisions": "middle"}, ".collisions", "must be 'first' or 'last'"),
        ({"separator": ""}, ".separator", "may hold only letters, digits and _ - . /, 1 to 16 of them"),
        ({"separator": " "}, ".separator", "may hold only letters, digits and _ - . /, 1 to 16 of them"),
        ({"hold": -1}, ".hold", "must be at least 0"),
        ({"hold": "soon"}, ".hold", "must be a number"),
        ({"hold": True}, ".hold", "must be a number"),
        ({"grace": 1e300}, ".grace", "must be at most 1000000"),
        ({"timeout": 0}, ".timeout", "must be greater than 0"),
        ({"hang": "never"}, ".hang", "must be a number or 'off'"),
        ({"hang": True}, ".hang", "must be a number or 'off'"),
        ({"hang": 0}, ".hang", "must be greater than 0 or 'off'"),
        ({"firstList": 26}, ".firstList", "must be at most 25"),
        ({"firstList": "off"}, ".firstList", "must be a number"),
        ({"drain": []}, ".drain", "must be a number"),
        ({"metrics": "off"}, ".metrics", "must be an object"),
        ({"metrics": {"listen": ":9464"}}, ".metrics.listen", 'must be HOST:PORT, [IPV6]:PORT or "off"'),
        ({"metrics": {"listen": "localhost:70000"}}, ".metrics.listen", 'must be HOST:PORT, [IPV6]:PORT or "off"'),
        ({"metrics": {"listen": "::1:9464"}}, ".metrics.listen", 'must be HOST:PORT, [IPV6]:PORT or "off"'),
        ({"metrics": {"listen": 9464}}, ".metrics.listen", "must be a string"),
        ({"metrics": {"listen": "${NOPE}"}}, ".metrics.listen", "no env NOPE"),
        ({"metrics": {"allowedHosts": "x"}}, ".metrics.allowedHosts", "must be a list"),
        ({"access": {"users": [0, "alice", -1]}}, ".access.users[2]", "must be a string or at least 0"),
        ({"access": {"groups": [True]}}, ".access.groups[0]", "must be a string or a whole number"),
        ({"access": {"admins": [""]}}, ".access.admins[0]", "must be at least one character long or a whole number"),
        ({"access": {"allowDescendants": "perhaps"}}, ".access.allowDescendants", "must be true or false"),
        ({"limits": {"clients": 0}}, ".limits.clients", "must be at least 1"),
        ({"limits": {"inFlight": 1.5}}, ".limits.inFlight", "must be a whole number"),
        ({"limits": {"serverLine": 1 << 40}}, ".limits.serverLine", "must be at most 1073741824"),
        ({"limits": {"clientLine": 10}}, ".limits.clientLine", "must be at least 1024"),
        ({"limits": {"outgoing": 1 << 20}}, ".limits.outgoing", "must be at least clientLine and serverLine"),
        ({"limits": {"partialLine": 0}}, ".limits.partialLine", "must be greater than 0"),
        ({"log": {"level": "loud"}}, ".log.level", "must be 'debug', 'info', 'warning' or 'error'"),
        ({"log": {"format": "xml"}}, ".log.format", "must be 'auto', 'json' or 'console'"),
    ],
)
def test_a_bad_daemon_object_is_refused_with_its_field(daemon: Any, field: str, message: str) -> None:
    assert refused({"mcpServers": {}, "daemon": daemon}) == {f"daemon{field}": message}


def test_a_key_given_twice_within_daemon_is_refused() -> None:
    assert refused(
        '{"mcpServers": {}, "daemon": {"log": {"level": "info", "level": "info"}, "hold": 1, "hold": 1}}'
    ) == {
        "daemon.log.level": "given twice",
        "daemon.hold": "given twice",
    }


def test_every_problem_of_a_refused_file_is_told_at_once() -> None:
    file = {"mcpServers": {"a": {}, "b": {"command": 1}}, "daemon": {"hold": -1, "log": {"level": 1}}}
    assert list(refused(file)) == [
        "daemon.hold",
        "daemon.log.level",
        "mcpServers.a",
        "mcpServers.b.command",
    ]


def test_unknown_keys_of_daemon_are_ignored_with_a_note() -> None:
    config = read({"mcpServers": {}, "daemon": {"colour": 1, "metrics": {"listen": "off", "path": "${NOPE}"}}})
    assert config.daemon.metrics.listen == "off"
    assert config.notes == (
        Problem("daemon.colour", "unknown key, ignored"),
        Problem("daemon.metrics.path", "unknown key, ignored"),
    )


@pytest.mark.parametrize(
    ("entries", "second"),
    [
        ({"a.b": {}, "a_b": {}}, "a_b"),
        ({"a.b": {}, "a b": {}}, '["a b"]'),
        ({"a": {"prefix": "b"}, "b": {}}, "b"),
        ({"a": {"prefix": "x"}, "b": {"prefix": "${P:-x}"}}, "b"),
    ],
)
def test_of_two_servers_whose_qualified_names_coincide_the_later_is_broken(
    entries: dict[str, Any], second: str
) -> None:
    config = read({"mcpServers": {name: {"command": "x"} | entry for name, entry in entries.items()}})
    first, later = config.order
    assert list(config.servers) == [first]
    (problem,) = config.broken[later]
    assert problem.field == (f"mcpServers{second}" if second.startswith("[") else f"mcpServers.{second}")
    assert f'"{first}"' in problem.message


@pytest.mark.parametrize(
    "harmless", [{"disabled": True}, {"prefix": "x"}, {"prefix": "x", "timeout": -1}, {"timeout": -1}]
)
def test_servers_with_names_of_their_own_do_not_coincide(harmless: dict[str, Any]) -> None:
    config = read({"mcpServers": {"a.b": {"command": "x"}, "a_b": {"command": "x"} | harmless}})
    assert config.order == ("a.b", "a_b")


# -- entries


@pytest.mark.parametrize(
    ("entry", "field", "message"),
    [
        ({}, "", "needs a command or a url"),
        ({"type": "http"}, "", "needs a command or a url"),
        ({"command": "x", "url": "http://x"}, ".url", "is given besides command: a server has one of them"),
        ({"command": []}, ".command", "is an empty list: it names no program"),
        ({"command": ["npx", 1]}, ".command[1]", "must be a string"),
        ({"command": True}, ".command", "must be a string"),
        ({"command": ""}, ".command", "must be at least one character long"),
        ({"command": "a\0b"}, ".command", "holds a NUL byte"),
        ({"command": "x", "args": "-v x"}, ".args", "must be a list, one argument a string: no shell splits it"),
        ({"command": "x", "args": {}}, ".args", "must be a list"),
        ({"command": "x", "args": ["a", 1]}, ".args[1]", "must be a string"),
        ({"command": "x", "args": ["a\0"]}, ".args[0]", "holds a NUL byte"),
        ({"command": "x", "args": [["a"]]}, ".args[0]", "must be a string"),
        ({"command": "x", "env": []}, ".env", "must be an object"),
        ({"command": "x", "env": {"PORT": [1]}}, ".env.PORT", "must be a string"),
        ({"command": "x", "env": {"A=B": "1"}}, '.env["A=B"]', "is no name for an environment variable"),
        ({"command": "x", "env": {"": "1"}}, '.env[""]', "is no name for an environment variable"),
        ({"command": "x", "env": {"A\0": "1"}}, r'.env["A\u0000"]', "holds a NUL byte"),
        ({"command": "x", "env": {"A": "\0"}}, ".env.A", "holds a NUL byte"),
        ({"command": "x", "env": {"A": "${NOPE}"}}, ".env.A", "no env NOPE"),
        ({"command": "x", "env": {"A": "${file:nope}"}}, ".env.A", "no file nope"),
        ({"command": "x", "cwd": 1}, ".cwd", "must be a string"),
        ({"command": "x", "inheritEnv": "some"}, ".inheritEnv", "must be 'all'"),
        ({"command": "x", "inheritEnv": ["A", 1]}, ".inheritEnv[1]", "must be a string"),
        ({"command": "x", "type": "http"}, ".type", "is http, which needs a url, not a command"),
        ({"url": "http://x", "type": "stdio"}, ".type", "is stdio, which needs a command, not a url"),
        ({"url": "http://x", "type": "ws"}, ".type", "must be 'stdio', 'http' or 'sse'"),
        ({"url": "ftp://x"}, ".url", "must begin with http:// or https://"),
        ({"url": "x.test/mcp"}, ".url", "must begin with http:// or https://"),
        ({"url": "http://"}, ".url", "names no host, or a port that is none"),
        ({"url": "http://x:99999"}, ".url", "names no host, or a port that is none"),
        ({"url": "http://[::1"}, ".url", "names no host, or a port that is none"),
        ({"url": "http://x/\n"}, ".url", "holds a space or a control character"),
        ({"url": "http://x", "headers": {"a b": "1"}}, '.headers["a b"]', "is no name for an HTTP header"),
        ({"url": "http://x", "headers": {"A": {}}}, ".headers.A", "must be a string"),
        ({"command": "x", "timeout": 0}, ".timeout", "must be greater than 0"),
        ({"command": "x", "timeout": -1}, ".timeout", "must be greater than 0"),
        ({"command": "x", "timeout": float("nan")}, ".timeout", "must be a finite number"),
        ({"command": "x", "timeout": float("inf")}, ".timeout", "must be a finite number"),
        ({"command": "x", "timeout": 1e10}, ".timeout", "must be at most 1000000"),
        ({"command": "x", "timeout": 10**400}, ".timeout", "must be a number"),
        ({"command": "x", "timeout": "soon"}, ".timeout", "must be a number"),
        ({"command": "x", "timeout": True}, ".timeout", "must be a number"),
        ({"command": "x", "startTimeout": 0}, ".startTimeout", "must be greater than 0"),
        ({"command": "x", "stopTimeout": 0}, ".stopTimeout", "must be greater than 0"),
        ({"command": "x", "refreshInterval": 0}, ".refreshInterval", "must be greater than 0"),
        ({"command": "x", "hold": -1}, ".hold", "must be at least 0"),
        ({"command": "x", "grace": {}}, ".grace", "must be a number"),
        ({"command": "x", "protocol": "new"}, ".protocol", "must be 'auto', 'legacy' or 'modern'"),
        ({"command": "x", "replace": "never"}, ".replace", "must be 'overlap' or 'stop-first'"),
        ({"command": "x", "prefix": "a.b"}, ".prefix", "may hold only letters, digits, _ and -, at least one"),
        ({"command": "x", "prefix": ""}, ".prefix", "may hold only letters, digits, _ and -, at least one"),
        ({"command": "x", "include": "git_*"}, ".include", "must be a list"),
        ({"command": "x", "exclude": [1]}, ".exclude[0]", "must be a string"),
        ({"command": "x", "disabled": "maybe"}, ".disabled", "must be true or false"),
        ({"command": "x", "stop_timeout": 1, "stopTimeout": 1}, ".stopTimeout", "given twice"),
    ],
)
def test_a_broken_entry_is_told_with_its_field_and_disables_only_itself(
    entry: dict[str, Any], field: str, message: str
) -> None:
    config = read({"mcpServers": {"a": entry, "b": {"command": "b"}}})
    assert told(config) == {field: message}
    assert config.servers == {"b": ServerConfig(command="b")}
    assert config.order == ("a", "b")


@pytest.mark.parametrize("entry", [None, [], "run", 1, True])
def test_an_entry_that_is_no_object_is_broken(entry: Any) -> None:
    assert told(read({"mcpServers": {"a": entry}})) == {"": "must be an object"}


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "\0", "é", "\x7f"])
def test_a_header_value_that_no_request_can_carry_is_a_problem(value: str) -> None:
    assert list(told(only(url="http://x", headers={"A": value}))) == [".headers.A"]


@pytest.mark.parametrize("value", [" a", "a\t", "a\n", "a\r\n"])
def test_space_around_a_header_value_is_no_part_of_it(value: str) -> None:
    assert only(url="http://x", headers={"A": value}).servers["a"].headers == {"A": "a"}


def test_half_a_surrogate_pair_is_no_text() -> None:
    assert list(told(read(r'{"mcpServers": {"a": {"command": "x", "args": ["\ud83d"]}}}'))) == [".args[0]"]
    assert only(command="x", args=["😀"]).servers["a"].args == ["😀"]


def test_a_key_given_twice_within_an_entry_breaks_only_the_entry() -> None:
    text = '{"mcpServers": {"a": {"command": "x", "command": "y", "env": {"K": "1", "K": "2"}, "foo": 1, "foo": 2}}}'
    assert told(read(text)) == {".command": "given twice", ".env.K": "given twice"}


def test_a_command_that_is_wrong_still_counts_as_given() -> None:
    assert told(only(command=1, url="http://x")).keys() == {".command", ".url"}
    assert told(only(command=1)).keys() == {".command"}


def test_all_problems_of_all_entries_are_found_in_one_pass() -> None:
    config = read(
        {
            "mcpServers": {
                "a": {"args": [1, "${NOPE}"], "timeout": 0, "env": {"A": "${ALSO_NOPE}"}, "type": "x"},
                "b": {"url": "http://x", "command": "x", "hold": -1},
            }
        }
    )
    assert told(config).keys() == {"", ".args[0]", ".args[1]", ".timeout", ".env.A", ".type"}
    assert told(config, "b").keys() == {".url", ".hold"}


def test_a_disabled_entry_needs_nothing_and_its_problems_are_notes() -> None:
    config = only(disabled=True, url="${NOPE}", timeout=-1)
    assert config.servers == {"a": ServerConfig(disabled=True)}
    assert not config.broken
    assert [note.field for note in config.notes] == ["mcpServers.a.url", "mcpServers.a.timeout"]
    assert only(disabled=True).servers["a"].disabled


def test_numbers_and_switches_can_come_from_variables() -> None:
    server = only(command="x", timeout="${SECONDS}", disabled="${YES}", args=["$${HOME}", "${TOKEN}"]).servers["a"]
    assert (server.timeout, server.disabled, server.args) == (7.0, True, ["${HOME}", "s3cret"])


def test_keys_are_not_expanded() -> None:
    assert only(command="x", env={"${TOKEN}": "1"}).servers["a"].env == {"${TOKEN}": "1"}


def test_both_spellings_of_a_key_are_understood() -> None:
    assert only(command="x", startTimeout=1).servers == only(command="x", start_timeout=1).servers


# -- the value


def test_every_setting_arrives() -> None:
    config = read(
        {
            "mcpServers": {"a": {"command": "x", "inheritEnv": "all", "include": [], "replace": "stop-first"}},
            "daemon": {
                "naming": "qualified",
                "separator": ".",
                "collisions": "last",
                "hold": 0,
                "metrics": {"listen": "[::1]:0", "allowedHosts": ["x"]},
                "access": {"users": ["alice", 7], "allowDescendants": True},
                "limits": {"inFlight": 3, "clientLine": 2048},
                "log": {"level": "debug", "format": "json"},
            },
        }
    )
    server, daemon = config.servers["a"], config.daemon
    assert (server.inherit_env, server.include, server.replace) == ("all", (), "stop-first")
    assert (daemon.naming, daemon.separator, daemon.collisions, daemon.hold) == ("qualified", ".", "last", 0.0)
    assert daemon.metrics == MetricsConfig(listen="[::1]:0", allowed_hosts=("x",))
    assert (daemon.access.users, daemon.access.allow_descendants) == (("alice", 7), True)
    assert daemon.limits == LimitsConfig(in_flight=3, client_line=2048)
    assert (daemon.log.level, daemon.log.format) == ("debug", "json")


@pytest.mark.parametrize("listen", ["127.0.0.1:9464", "[::1]:1", "localhost:0", "off"])
def test_metrics_are_served_at_an_address_and_a_port_or_not_at_all(listen: str) -> None:
    assert MetricsConfig(listen=listen).listen == listen


def test_the_same_bytes_make_equal_configs_and_an_edit_another() -> None:
    text = '{"mcpServers": {"a": {"command": "x"}, "b": {}}}'
    assert read(text) == read(text)
    assert read(text) != read(text.replace('"x"', '"y"'))
    assert read(text).sha256 != read(text + " ").sha256
    assert read(text).servers == read(text + " ").servers


def test_the_order_is_that_of_the_file() -> None:
    assert read('{"mcpServers": {"z": {"command": "x"}, "m": {}, "a": {"command": "x"}}}').order == ("z", "m", "a")


def test_a_prefix_is_the_name_made_fit_or_what_the_entry_says() -> None:
    config = read({"mcpServers": {"my.server": {"command": "x"}, "b": {"command": "x", "prefix": "B"}, "c d": {}}})
    assert [config.prefix_of(name) for name in config.order] == ["my_server", "B", "c_d"]


def test_a_broken_entry_keeps_what_it_was_before() -> None:
    before = read({"mcpServers": {"a": {"command": "x", "prefix": "p"}, "b": {"command": "x"}}})
    after = read({"mcpServers": {"a": {"command": 1}, "c": {}}}).keeping(before)
    assert after.servers == {"a": before.servers["a"]}
    assert set(after.broken) == {"a", "c"}
    assert after.prefix_of("a") == "p"
    assert before.keeping(None) is before


def test_an_entry_that_did_not_change_keeps_its_names_from_one_that_did() -> None:
    before = read({"mcpServers": {"b": {"command": "b"}, "a_b": {"command": "x"}}})
    added = {"a b": {"command": "y"}, "b": {"command": "b", "prefix": "a_b"}, "a_b": {"command": "x"}}
    after = read({"mcpServers": added}).keeping(before)
    assert after.servers == before.servers
    assert after.broken.keys() == {"a b", "b", "a_b"}
    assert '"a_b", which runs' in after.broken["a b"][0].message
    assert after.order == ("a b", "b", "a_b")


def test_a_config_cannot_be_changed() -> None:
    config = only(command="x")
    with pytest.raises(TypeError):
        config.servers["b"] = ServerConfig(command="x")  # type: ignore[index]  # that is the point
    with pytest.raises(ValidationError):
        config.servers["a"].timeout = 1


# -- secrets

SECRET = "hunter2"
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from([SECRET, f"${{{SECRET}}} ${{", "\0" + SECRET]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["K", "k k", "list"]), inner, max_size=3)
    ),
    max_leaves=5,
)
OF_OTHERS = [
    "httpUrl",
    "serverUrl",
    "enabled",
    "isActive",
    "envFile",
    "environment",
    "tools",
    "includeTools",
    "transport",
]
OF_OTHERS += ["oauth", "trust", "alwaysAllow", "source", "settings", "_remark"]
KEYS = [*ServerConfig.model_fields, "startTimeout", "other", *OF_OTHERS]
ENTRIES = st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6)
PLACES = st.sampled_from(["mcpServers", "servers", "context_servers", "mcp"])


@given(PLACES, ENTRIES, VALUES)
def test_whatever_an_entry_holds_it_is_read_or_told_without_its_values(
    place: str, entry: dict[str, Any], daemon: Any
) -> None:
    def nothing(source: Source, name: str) -> str:
        raise LookupError("undefined")

    try:
        config = parse(json.dumps({place: {"a": entry}, "daemon": {"hold": daemon}}).encode(), nothing)
        broken = (problem for found in config.broken.values() for problem in found)
        problems = (*config.notes, *config.warnings, *broken)
    except ConfigError as failure:
        problems = failure.problems
    assert SECRET not in str([*map(str, problems)])


def test_secrets_are_not_in_a_repr() -> None:
    shown = repr(only(command="x", args=[SECRET], env={"A": SECRET})) + repr(
        only(url=f"http://u:{SECRET}@x", headers={"A": SECRET})
    )
    assert SECRET not in shown


def test_a_server_made_in_code_is_checked_without_showing_its_values() -> None:
    with pytest.raises(ValidationError) as caught:
        ServerConfig(command="x", env={"A": f"{SECRET}\0"})
    assert SECRET not in str(caught.value)
    with pytest.raises(ValidationError, match="needs a command or a url"):
        ServerConfig()


def test_reading_a_config_imports_no_event_loop_and_no_sdk() -> None:
    heavy = {"anyio", "asyncio", "mcp", "mcp_types", "prometheus_client", "structlog", "watchfiles"}
    code = f"import sys, mcp_multi_server.core.config.plan; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == "[]"
