"""Entries and files as other hosts write them: what each key means, and what is said of the rest."""

import json
from typing import Any

import pytest

from mcp_multi_server.core.config.config import Config, ServerConfig, Source, parse
from mcp_multi_server.core.config.plan import Plan
from mcp_multi_server.core.errors import ConfigError

VARIABLES = {"TOKEN": "s3cret", "HOME": "/home/me", "PATH": "/usr/bin"}
FILES = {".env": "KEY=from file\nTOKEN=also\n", "token": "text of a file\n"}
URL = "http://x.test/mcp"


def look(source: Source, name: str) -> str:
    found = VARIABLES if source == "env" else FILES
    if name not in found:
        raise LookupError(f"no {source} {name}")
    return found[name]


def read(top: dict[str, Any]) -> Config:
    return parse(json.dumps(top).encode(), look)


def only(**entry: Any) -> Config:
    """A config with one entry, `a`."""
    return read({"mcpServers": {"a": entry}})


def made(**entry: Any) -> ServerConfig:
    config = only(**entry)
    assert not config.broken, config.broken
    return config.servers["a"]


def problems(config: Config) -> dict[str, str]:
    return {each.field: each.message for found in config.broken.values() for each in found}


def notes(config: Config) -> dict[str, str]:
    return {note.field: note.message for note in config.notes}


# -- where the servers are


@pytest.mark.parametrize(
    ("top", "place"),
    [
        ({"mcpServers": {"a": 1}}, "mcpServers.a"),
        ({"servers": {"a": 1}}, "servers.a"),
        ({"context_servers": {"a": 1}}, "context_servers.a"),
        ({"mcp": {"a": 1}}, "mcp.a"),
        ({"mcp": {"servers": {"a": 1}}}, "mcp.servers.a"),
        ({"mcp": {"servers": {"type": "local", "command": ["x"]}, "a": 1}}, "mcp.a"),
        ({"mcpServers": {}, "servers": {"a": 1}}, "servers.a"),
        ({"mcp": {"allowed": ["a"]}, "mcpServers": {"a": 1}}, "mcpServers.a"),
    ],
)
def test_servers_are_found_where_each_host_keeps_them(top: dict[str, Any], place: str) -> None:
    assert problems(read(top)) == {place: "must be an object"}


def test_of_two_objects_with_servers_the_first_is_used_and_the_other_told() -> None:
    config = read({"mcp": {"c": {"command": "c"}}, "context_servers": {"b": {"command": "b"}}})
    assert config.order == ("b",)
    assert [str(warning) for warning in config.warnings] == [
        "mcp: ignored with its 1 servers, since there is context_servers"
    ]


@pytest.mark.parametrize("held", [None, [], "x", 1])
def test_what_should_hold_the_servers_must_be_an_object(held: Any) -> None:
    with pytest.raises(ConfigError, match="mcp: must be an object"):
        read({"mcp": held})


def test_the_settings_of_another_program_are_one_note() -> None:
    config = read({"context_servers": {}} | {f"setting {number}": 1 for number in range(7)})
    (note,) = config.notes
    assert note.message.startswith('settings of another program, ignored: ["setting 0"], ["setting 1"]')
    assert note.message.endswith("and 2 more")


def test_servers_of_single_projects_are_told() -> None:
    config = read({"mcpServers": {}, "projects": {"/p": {"mcpServers": {"x": {}}}}, "numStartups": 3})
    assert [warning.field for warning in config.warnings] == ["projects"]
    assert not read({"mcpServers": {}, "projects": {"/p": {"mcpServers": {}}, "/q": 1}}).warnings


@pytest.mark.parametrize(
    "filters", [{"mcp": {"allowed": ["a"]}}, {"mcp": {"excluded": ["b"]}}, {"excludeMCPServers": ["b"]}]
)
def test_a_server_that_the_file_turns_off_elsewhere_is_off(filters: dict[str, Any]) -> None:
    config = read({"mcpServers": {"a": {"command": "x"}, "b": {"command": "x"}}} | filters)
    assert {name: server.disabled for name, server in config.servers.items()} == {"a": False, "b": True}
    assert list(notes(config)) == ["mcpServers.b"]


@pytest.mark.parametrize("key", ["_comment", "//", "#", "comment", "$schema"])
def test_a_remark_among_the_servers_is_none(key: str) -> None:
    text = f'{{"mcpServers": {{"{key}": "why", "a": {{"command": "x", "{key}": "why"}}, "_b": {{"command": "y"}}}}}}'
    config = parse(text.encode(), look)
    assert config.order == ("a", "_b")
    assert not config.broken
    assert key == "$schema" or not config.notes


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ('"enabled": false, "enabled": true', "enabled"),
        ('"httpUrl": "http://x", "httpUrl": "http://y"', "httpUrl"),
        ('"environment": {}, "environment": {}', "environment"),
        ('"envFile": ".env", "envFile": ".env"', "envFile"),
        ('"env": {"A": 1, "A": 2}', "env.A"),
        ('"command": {"path": "x", "path": "y"}', "command.path"),
    ],
)
def test_a_key_given_twice_breaks_its_entry_whatever_becomes_of_it(members: str, field: str) -> None:
    text = f'{{"mcpServers": {{"a": {{"command": "x", {members}}}, "b": {{"command": "b"}}}}}}'
    config = parse(text.replace('"command": "x", "command"', '"command"').encode(), look)
    assert list(config.servers) == ["b"]
    assert (f"mcpServers.a.{field}", "given twice") in problems(config).items()


def test_a_remark_may_be_there_twice() -> None:
    config = parse(b'{"mcpServers": {"//": "a", "//": "b", "a": {"command": "x"}}}', look)
    assert list(config.servers) == ["a"]


# -- addresses and types


@pytest.mark.parametrize("key", ["url", "httpUrl", "serverUrl", "baseUrl"])
def test_an_address_has_many_names(key: str) -> None:
    assert made(**{key: URL}) == ServerConfig(url=URL, type="http" if key == "httpUrl" else None)
    assert problems(only(**{key: "x"})) == {f"mcpServers.a.{key}": "must begin with http:// or https://"}


def test_of_two_addresses_one_is_used_and_the_other_told() -> None:
    config = only(httpUrl=URL, url="http://x.test/sse")
    assert config.servers["a"].url == URL
    assert notes(config) == {"mcpServers.a.url": "ignored, since there is httpUrl"}
    config = only(serverUrl="http://y.test", url=URL)
    assert config.servers["a"].url == URL
    assert notes(config) == {"mcpServers.a.serverUrl": "ignored, since there is url"}
    assert not only(serverUrl=URL, url=URL).notes
    assert list(notes(only(httpUrl=URL, serverUrl=URL))) == ["mcpServers.a.serverUrl"]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("SSE", "sse"),
        ("Http", "http"),
        ("HTTP", "http"),
        ("streamableHttp", "http"),
        ("Streamable-HTTP", "http"),
        ("streamable_http", "http"),
        ("streamable http", "http"),
        ("remote", None),
        ("Remote", None),
        ("", None),
        (None, None),
    ],
)
@pytest.mark.parametrize("key", ["type", "transport", "transportType"])
def test_a_type_may_be_written_in_any_way(key: str, kind: str | None, expected: str | None) -> None:
    assert made(url=URL, **{key: kind}).type == expected


@pytest.mark.parametrize("kind", ["stdio", "STDIO", "local", "Local"])
def test_a_local_server_is_one_on_stdio(kind: str) -> None:
    assert made(command="x", type=kind).type == "stdio"


@pytest.mark.parametrize(
    "form",
    [
        {
            "command": "x",
            "url": "",
            "type": "",
            "cwd": "",
            "httpUrl": "",
            "serverUrl": "",
            "envFile": "",
            "headers": {},
        },
        {"command": "x", "url": None, "args": None, "env": None, "timeout": None, "envFile": None, "enabled": None},
    ],
)
def test_what_a_form_leaves_empty_is_absent(form: dict[str, Any]) -> None:
    assert made(**form) == ServerConfig(command="x")


def test_an_empty_command_beside_a_url_is_absent() -> None:
    assert made(command="", args=[], url=URL) == ServerConfig(url=URL)
    assert problems(only(command="", url="")).keys() == {"mcpServers.a.command", "mcpServers.a.url"}


def test_of_a_command_and_a_url_the_type_says_which_is_meant() -> None:
    config = only(type="STDIO", command="x", args=["y"], url=URL)
    assert config.servers["a"] == ServerConfig(type="stdio", command="x", args=["y"])
    assert notes(config) == {"mcpServers.a.url": "ignored, since the type says otherwise"}
    assert made(type="sse", command="x", args=["y"], url=URL) == ServerConfig(type="sse", url=URL)
    assert problems(only(command="x", url=URL)).keys() == {"mcpServers.a.url"}


# -- commands


def test_a_command_may_be_a_list_of_words_or_an_object() -> None:
    assert made(command=["x", "-y", "z"], args=["w"]) == ServerConfig(command="x", args=["-y", "z", "w"])
    assert made(command={"path": "x", "args": ["y"], "env": {"A": 1}}) == ServerConfig(
        command="x", args=["y"], env={"A": "1"}
    )


def test_of_two_environments_ours_is_used_and_what_a_command_has_besides_is_told() -> None:
    config = only(command={"path": "x", "env": {"A": 1}, "shell": True}, env={"B": 2}, environment={"C": 3})
    assert config.servers["a"] == ServerConfig(command="x", env={"B": "2"})
    assert notes(config) == {
        "mcpServers.a.command.shell": "unknown key, ignored",
        "mcpServers.a.environment": "ignored, since there is env",
    }


def test_arguments_in_one_string_are_a_problem_that_says_why() -> None:
    said = "must be a list, one argument a string: no shell splits it"
    assert problems(only(command=["x", "y"], args="-z")) == {"mcpServers.a.args": said}
    assert problems(only(command="x", args="-z")) == {"mcpServers.a.args": said}


def test_errors_name_the_place_that_the_file_has() -> None:
    assert problems(only(command=["x", 1, "${NOPE}"], args=["y", 2], environment={"A": "${B}"})) == {
        "mcpServers.a.command[1]": "must be a string",
        "mcpServers.a.command[2]": "no env NOPE",
        "mcpServers.a.args[1]": "must be a string",
        "mcpServers.a.environment.A": "no env B",
    }
    assert problems(only(command={"path": 1, "args": [2]})) == {
        "mcpServers.a.command.path": "must be a string",
        "mcpServers.a.command.args[0]": "must be a string",
    }
    assert problems(only(url=URL, timeout={"request": 0})) == {"mcpServers.a.timeout.request": "must be greater than 0"}


@pytest.mark.parametrize("written", ["npx -y foo", "/usr/bin/python -m x", "docker run x"])
def test_a_whole_command_line_in_command_is_noted(written: str) -> None:
    assert list(notes(only(command=written))) == ["mcpServers.a.command"]


@pytest.mark.parametrize("written", ["npx", "/opt/My App/run", "~/My App/run", "./a b"])
def test_a_path_with_a_space_is_not(written: str) -> None:
    assert not only(command=written).notes


def test_a_tilde_in_front_of_a_path_is_the_home_directory() -> None:
    server = made(command="~/bin/x", args=["~/a", "~", "~b/c", "a~/b", "--at=~/c"], cwd="~")
    assert server == ServerConfig(
        command="/home/me/bin/x", args=["/home/me/a", "/home/me", "~b/c", "a~/b", "--at=~/c"], cwd="/home/me"
    )
    config = only(command="x", args=["--at=~/c"], env={"AT": "~/c"})
    assert config.servers["a"].env == {"AT": "~/c"}
    assert notes(config).keys() == {"mcpServers.a.args[0]", "mcpServers.a.env.AT"}


# -- environment and headers


def test_numbers_and_switches_are_text_and_null_is_nothing() -> None:
    values = {"A": 3000, "B": 1.5, "C": 2.0, "D": True, "E": False, "F": None, "G": 10**20}
    texts = {"A": "3000", "B": "1.5", "C": "2", "D": "true", "E": "false", "G": str(10**20)}
    assert made(command="x", env=values).env == texts | {"F": None}
    assert made(url=URL, headers=values).headers == texts


@pytest.mark.parametrize("value", [[], {}, float("nan"), float("inf")])
def test_what_is_no_text_is_a_problem(value: Any) -> None:
    assert problems(only(command="x", env={"A": value})) == {"mcpServers.a.env.A": "must be a string"}
    assert problems(only(url=URL, headers={"A": value})) == {"mcpServers.a.headers.A": "must be a string"}


def test_a_name_means_the_entry_s_own_env_first() -> None:
    server = made(
        command="${BIN}",
        args=["Authorization:${TOKEN}", "${env:TOKEN}", "${KEY}"],
        env={"TOKEN": "mine", "BIN": "/opt/${TOKEN}", "PATH": "/opt:${PATH}"},
        envFile=".env",
    )
    assert server.command == "/opt/s3cret"
    assert server.args == ["Authorization:mine", "s3cret", "from file"]
    assert server.env == {"KEY": "from file", "TOKEN": "mine", "BIN": "/opt/s3cret", "PATH": "/opt:/usr/bin"}
    assert made(url="${BASE}/mcp", headers={"A": "Bearer ${K}"}, env={"BASE": "http://x.test", "K": "pa$$"}) == (
        ServerConfig(url=URL, headers={"A": "Bearer pa$$"}, env={"BASE": "http://x.test", "K": "pa$$"})
    )


@pytest.mark.parametrize(
    ("path", "said"), [("nope", "no file nope"), (3, "must be a string"), ("${NOPE}", "no env NOPE")]
)
def test_an_env_file_that_cannot_be_read_breaks_its_entry(path: Any, said: str) -> None:
    assert problems(only(command="x", envFile=path)) == {"mcpServers.a.envFile": said}


@pytest.mark.parametrize(
    "value", ["$GITHUB_TOKEN", "$token", "Bearer $API_KEY", "%APPDATA%", "C:%USER_NAME%x", "{env:KEY}"]
)
def test_what_looks_like_a_variable_and_is_none_stays_and_is_noted(value: str) -> None:
    config = only(command="x", env={"A": value}, args=[value])
    assert (config.servers["a"].env["A"], config.servers["a"].args) == (value, [value])
    assert notes(config).keys() == {"mcpServers.a.env.A", "mcpServers.a.args[0]"}
    assert value.strip("$%") not in str([*map(str, config.notes)])


@pytest.mark.parametrize("value", ["pa$$w0rd", "5$", "a$b", "100%", "%C3%A9%C3", "$$", "$", "$1", "x{env}"])
def test_a_password_is_left_alone(value: str) -> None:
    config = only(command="x", env={"A": value})
    assert config.servers["a"].env == {"A": value}
    assert not config.notes


def test_a_shell_s_own_variables_are_not_noted() -> None:
    assert not only(command="/bin/sh", args=["-c", "echo $HOME_DIR"]).notes


def test_a_bare_name_is_a_variable_in_an_entry_of_gemini_s() -> None:
    assert made(command="x", trust=False, env={"A": "$TOKEN", "B": "pa$$w0rd"}).env == {"A": "s3cret", "B": "pa$$w0rd"}
    assert made(command="x", env={"A": "$TOKEN"}).env == {"A": "$TOKEN"}
    config = only(command="x", httpUrl="", trust=True, args=["$A"], env={"A": "mine", "B": "$A"})
    assert (config.servers["a"].args, config.servers["a"].env["B"]) == (["mine"], "$A")
    assert notes(config).keys() == {"mcpServers.a.trust", "mcpServers.a.env.B"}
    of_gemini = {"mcp": {"allowed": ["a"]}, "mcpServers": {"a": {"command": "x", "args": ["$TOKEN"]}}}
    assert read(of_gemini).servers["a"].args == ["s3cret"]


# -- inputs


def test_an_input_has_the_value_that_the_daemon_object_gives_it() -> None:
    entries = {"a": {"command": "x", "env": {"K": "${input:key}"}}, "b": {"command": "x", "env": {"K": "${input:bad}"}}}
    given = {"key": "${file:token}", "bad": "${NOPE}", "unused": "${ALSO_NOPE}"}
    config = read({"servers": entries, "inputs": [{"id": "key", "default": "x"}], "daemon": {"inputs": given}})
    assert config.servers["a"].env == {"K": "text of a file"}
    assert problems(config) == {"servers.b.env.K": "input bad: no env NOPE"}
    assert not config.notes


def test_the_inputs_of_an_editor_s_settings_count_too() -> None:
    servers = {"a": {"command": "x", "args": ["${input:key}"]}}
    config = read({"mcp": {"servers": servers, "inputs": [{"id": "key", "default": "d"}, {"id": 1}, 2]}})
    assert config.servers["a"].args == ["d"]
    assert list(notes(config)) == ["inputs"]


def test_an_input_without_a_value_breaks_its_entry_in_words_that_say_what_to_do() -> None:
    config = read({"servers": {"a": {"command": "x", "args": ["${input:my key}"]}, "b": {"command": "x"}}})
    assert list(config.servers) == ["b"]
    assert 'give daemon.inputs["my key"] a value' in problems(config)["servers.a.args[0]"]


@pytest.mark.parametrize("inputs", [[], {"key": 1}, {"key": None}])
def test_inputs_of_another_form_are_refused(inputs: Any) -> None:
    with pytest.raises(ConfigError, match=r"daemon\.inputs"):
        read({"servers": {}, "daemon": {"inputs": inputs}})


# -- switches, times, tools, credentials


@pytest.mark.parametrize("key", ["enabled", "isActive"])
def test_a_server_that_its_author_turned_off_is_off(key: str) -> None:
    for value in (False, "false", "No", "off"):
        assert made(command="x", **{key: value}).disabled
        assert made(command="x", disabled=False, **{key: value}).disabled
    assert not made(command="x", **{key: True}).disabled
    assert made(command="x", disabled=True, **{key: True}).disabled
    assert made(**{key: False}) == ServerConfig(disabled=True)
    assert problems(only(command="x", **{key: "perhaps"})) == {f"mcpServers.a.{key}": "must be true or false"}


@pytest.mark.parametrize(
    ("entry", "seconds"),
    [
        ({"timeout": 999}, 999),
        ({"timeout": 1000}, 1),
        ({"timeout": 60000}, 60),
        ({"timeout": 3600000}, 3600),
        ({"timeout": "90000"}, 90),
        ({"timeout": 1200, "trust": True}, 1.2),
        ({"timeout": 1200, "hold": 1}, 1200),
        ({"timeout": 1200, "start_timeout": 1}, 1200),
        ({"timeout": 3600, "alwaysAllow": []}, 3600),
        ({"timeout": 60000, "alwaysAllow": []}, 60),
        ({"startTimeout": 1200}, 60),
    ],
)
def test_a_large_timeout_in_an_entry_for_another_host_is_in_milliseconds(entry: dict[str, Any], seconds: float) -> None:
    config = only(command="x", **entry)
    assert config.servers["a"].timeout == seconds
    is_noted = "mcpServers.a.timeout" in notes(config)
    assert is_noted == (entry.get("timeout") not in (None, seconds))


@pytest.mark.parametrize("timeout", ["soon", True, [], float("nan")])
def test_a_timeout_that_is_none_is_a_problem(timeout: Any) -> None:
    assert problems(only(command="x", timeout=timeout)).keys() == {"mcpServers.a.timeout"}


def test_lists_of_tools_are_include_and_exclude() -> None:
    assert made(command="x", includeTools=["a*"]).include == ("a[*]",)
    assert made(command="x", tools=["*"]).include is None
    assert made(command="x", tools=[]).include == ()
    assert made(command="x", disabledTools=["a"]).exclude == ("a",)
    config = only(command="x", exclude=["b"], disabledTools=["a"], tools={"a": True})
    assert config.servers["a"].exclude == ("b",)
    assert notes(config).keys() == {"mcpServers.a.disabledTools", "mcpServers.a.tools"}


@pytest.mark.parametrize(
    "key",
    [
        "oauth",
        "auth",
        "headersHelper",
        "authProviderType",
        "oauthClientId",
        "authorization_token",
        "bearerToken",
        "bearer_token_env_var",
        "oidc",
        "targetAudience",
        "apiKey",
        "client_secret",
        "token",
    ],
)
def test_credentials_that_are_not_used_are_a_warning(key: str) -> None:
    config = only(url=URL, **{key: {"x": "hunter2"}})
    assert [(warning.field, warning.server) for warning in config.warnings] == [(f"mcpServers.a.{key}", "a")]
    assert not config.notes
    assert "hunter2" not in str(config.warnings)


@pytest.mark.parametrize(("key", "value"), [("oauth", False), ("auth", {}), ("author", "me"), ("autoApprove", [])])
def test_what_holds_no_credentials_is_a_note(key: str, value: Any) -> None:
    config = only(url=URL, **{key: value})
    assert not config.warnings
    assert list(notes(config)) == [f"mcpServers.a.{key}"]


# -- one entry and the others


def test_places_show_any_script_and_hide_what_a_terminal_would_obey() -> None:
    config = read({"mcpServers": {"天气": 1, "می‌خواهم": 1, "👩‍💻": 1, "a\u202eb": 1}})
    assert [*problems(config)] == [
        'mcpServers["天气"]',
        'mcpServers["می\u200cخواهم"]',
        'mcpServers["👩\u200d💻"]',
        'mcpServers["a\\u202eb"]',
    ]
    assert config.order == ("天气", "می‌خواهم", "👩‍💻", '"a\\u202eb"')


def test_an_inherited_environment_can_be_set_for_all_entries() -> None:
    entries = {
        "a": {"command": "x"},
        "b": {"command": "x", "inheritEnv": []},
        "c": {"command": "x", "inheritEnv": "all"},
    }
    config = read({"mcpServers": entries, "daemon": {"inheritEnv": ["AWS_*"]}})
    assert {name: server.inherit_env for name, server in config.servers.items()} == {
        "a": ("AWS_*",),
        "b": (),
        "c": "all",
    }


def test_a_comment_changes_no_server_and_neither_does_the_place_of_the_servers() -> None:
    before = parse(b'{"mcpServers": {"a": {"command": "x", "args": ["y"]}}}', look)
    for text in (
        b'{ // why\n "mcpServers": {"a": {"command": "x", "args": ["y"], /* z */}}}',
        b'{"mcp": {"a": {"type": null, "command": ["x", "y"], "enabled": true}}}',
        b'{"context_servers": {"a": {"source": "custom", "command": "x", "args": ["y"]}}}',
    ):
        assert Plan.between(before, parse(text, look)) == Plan(keep=("a",))
