"""What a child may inherit: an allow-list, what its entry asks for, and never what systemd says to the daemon."""

from collections.abc import Sequence
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_multi_server.core.config.environment import ALWAYS, NETWORK, child_environment

DAEMON = {
    "HOME": "/home/me",
    "PATH": "/usr/bin",
    "LANG": "C.UTF-8",
    "LC_TIME": "de_DE",
    "LC": "not a locale variable",
    "TZ": "UTC",
    "TMPDIR": "/var/tmp",
    "GITHUB_TOKEN": "secret",
    "AWS_REGION": "eu",
    "HTTPS_PROXY": "http://proxy",
    "https_proxy": "http://proxy",
    "NODE_EXTRA_CA_CERTS": "/etc/ca.pem",
    "BASH_FUNC_ls%%": "() { rm -rf /; }",
    "SHELL": "() { :; }",
    "NOTIFY_SOCKET": "/run/systemd/notify",
    "MEMORY_PRESSURE_WATCH": "/sys/fs/cgroup/x",
}
INHERITED = {"HOME", "PATH", "LANG", "LC_TIME", "TZ", "TMPDIR", "HTTPS_PROXY", "https_proxy", "NODE_EXTRA_CA_CERTS"}


@pytest.mark.parametrize(
    ("inherit", "expected"),
    [
        ((), INHERITED),
        (("GITHUB_TOKEN",), INHERITED | {"GITHUB_TOKEN"}),
        (("AWS_*", "ABSENT"), INHERITED | {"AWS_REGION"}),
        (("github_token",), INHERITED),
        ("all", set(DAEMON) - {"BASH_FUNC_ls%%", "SHELL", "NOTIFY_SOCKET", "MEMORY_PRESSURE_WATCH"}),
        (("*",), set(DAEMON) - {"BASH_FUNC_ls%%", "SHELL", "NOTIFY_SOCKET", "MEMORY_PRESSURE_WATCH"}),
    ],
)
def test_a_child_inherits_the_allow_list_and_what_its_entry_names(
    inherit: Sequence[str] | Literal["all"], expected: set[str]
) -> None:
    assert child_environment(DAEMON, inherit=inherit, env={}) == {name: DAEMON[name] for name in expected}


@pytest.mark.parametrize(
    "name",
    [
        "NOTIFY_SOCKET",
        "WATCHDOG_USEC",
        "WATCHDOG_PID",
        "LISTEN_PID",
        "LISTEN_FDS",
        "LISTEN_FDNAMES",
        "FDSTORE",
        "CREDENTIALS_DIRECTORY",
        "INVOCATION_ID",
        "JOURNAL_STREAM",
        "MEMORY_PRESSURE_WRITE",
        "SYSTEMD_EXEC_PID",
        "MANAGERPID",
        "RUNTIME_DIRECTORY",
        "STATE_DIRECTORY",
    ],
)
def test_what_systemd_says_to_the_daemon_reaches_a_child_only_through_its_entry(name: str) -> None:
    daemon = {name: "the daemon's", "HOME": "/"}
    assert name not in child_environment(daemon, inherit="all", env={})
    assert name not in child_environment(daemon, inherit=(name,), env={})
    assert child_environment(daemon, inherit=(), env={name: "mine"})[name] == "mine"


def test_an_entry_overrides_what_is_inherited_and_is_taken_as_it_is() -> None:
    found = child_environment(DAEMON, inherit=(), env={"PATH": "/opt/bin", "F": "() { :; }"})
    assert (found["PATH"], found["F"]) == ("/opt/bin", "() { :; }")


variables = st.dictionaries(
    st.sampled_from(["HOME", "LC_ALL", "TOKEN", "NOTIFY_SOCKET", "X", *ALWAYS]), st.sampled_from(["", "v", "() {"])
)


@given(environ=variables, env=variables, inherit=st.one_of(st.just("all"), st.lists(st.sampled_from(["X", "T*", "*"]))))
def test_every_variable_comes_from_the_entry_or_unchanged_from_the_daemon(
    environ: dict[str, str], env: dict[str, str], inherit: Sequence[str] | Literal["all"]
) -> None:
    found = child_environment(environ, inherit=inherit, env=env)
    assert found.items() >= env.items()
    assert found.items() <= (environ | env).items()
    assert child_environment(environ, inherit="all", env=env).items() >= found.items()


@pytest.mark.parametrize("name", NETWORK)
def test_proxies_and_certificates_are_inherited_unless_the_entry_has_its_own_or_none(name: str) -> None:
    daemon = {name: "theirs", "PATH": "/usr/bin"}
    assert child_environment(daemon, inherit=(), env={})[name] == "theirs"
    assert child_environment(daemon, inherit=(), env={name: "mine"})[name] == "mine"
    assert child_environment(daemon, inherit="all", env={name: None}) == {"PATH": "/usr/bin"}
