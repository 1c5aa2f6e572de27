import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcp_multi_server.core.config.config import Source
from mcp_multi_server.core.errors import ConfigError
from mcp_multi_server.daemon.config_file import MAX_BYTES, find, load, lookup_in, read
from mcp_multi_server.files import READ_AGAIN_AFTER, READ_ATTEMPTS

EMPTY = b'{"mcpServers": {}}'
NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mcp_servers.json"
    path.write_bytes(EMPTY)
    path.chmod(0o600)
    return path


@pytest.fixture(autouse=True)
def no_descriptor_is_left_open() -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before


def why_not(path: Path) -> str:
    """Why this config is refused; the message names the file."""
    with pytest.raises(ConfigError) as caught:
        read(str(path))
    (problem,) = caught.value.problems
    assert str(path) in problem.message
    return problem.message


# -- read


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o644, 0o664])
def test_a_file_that_strangers_cannot_write_is_read(file: Path, mode: int) -> None:
    file.chmod(mode)
    assert read(str(file)) == EMPTY


def test_a_file_that_everyone_can_write_is_refused(file: Path) -> None:
    file.chmod(0o646)
    assert "everyone can write it" in why_not(file)


@as_root
def test_a_file_of_another_user_is_refused(file: Path) -> None:
    os.chown(file, NOBODY, NOBODY)
    assert f"it belongs to user {NOBODY}" in why_not(file)


@as_root
def test_a_file_of_root_is_read_by_any_user(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcp_multi_server.daemon.config_file.os.geteuid", lambda: NOBODY)
    assert read(str(file)) == EMPTY


def test_a_file_that_its_group_can_write_is_read_with_a_note(file: Path) -> None:
    assert not load(str(file)).notes
    file.chmod(0o660)
    (note,) = load(str(file)).notes
    assert str(file) in note.message
    assert "group" in note.message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "No such file" in why_not(tmp_path / "none.json")


def test_a_link_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    assert "No such file" in why_not(tmp_path / "link")


def test_a_link_is_followed(file: Path) -> None:
    link = file.with_name("link")
    link.symlink_to(file)
    assert read(str(link)) == EMPTY


def test_a_directory_is_no_config(tmp_path: Path) -> None:
    assert "it is a directory" in why_not(tmp_path)


def test_a_fifo_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert "no regular file" in why_not(tmp_path / "fifo")


def test_a_socket_and_a_device_are_no_config(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        why_not(tmp_path / "socket")
    assert "no regular file" in why_not(Path("/dev/null"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_named(file: Path) -> None:
    file.chmod(0)
    assert "Permission denied" in why_not(file)


def test_a_path_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="NUL byte"):
        read("a\0b")


def test_a_file_of_one_mebibyte_is_read_and_no_more(file: Path) -> None:
    file.write_bytes(b" " * MAX_BYTES)
    assert len(read(str(file))) == MAX_BYTES
    file.write_bytes(b" " * (MAX_BYTES + 1))
    assert "larger than" in why_not(file)


class Writer:
    """Writes to a file while it is being read, as often as it is told."""

    def __init__(self, path: Path, times: int) -> None:
        self.path = path
        self.times = times
        self.reads = 0
        self._read = os.read

    def read(self, descriptor: int, size: int) -> bytes:
        part = self._read(descriptor, size)
        if not part:
            self.reads += 1
            if self.times:
                self.times -= 1
                with self.path.open("ab") as file:
                    file.write(b" ")
        return part


def test_a_file_that_changes_while_it_is_read_is_read_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Writer(file, times=2)
    monkeypatch.setattr("mcp_multi_server.files.os.read", writer.read)
    assert read(str(file)) == EMPTY + b"  "
    assert writer.reads == 3


def test_a_file_that_never_stops_changing_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Writer(file, times=1000)
    monkeypatch.setattr("mcp_multi_server.files.os.read", writer.read)
    assert "kept changing" in why_not(file)
    assert writer.reads == READ_ATTEMPTS
    assert (READ_ATTEMPTS - 1) * READ_AGAIN_AFTER < 0.5


# -- load


def test_variables_come_from_the_environment_from_files_and_from_credentials(file: Path, tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "token").write_text("from a file\n")
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "key").write_text("from systemd")
    args = ["${file:secrets/token}", f"${{file:{tmp_path}/secrets/token}}", "${cred:key}", "${NOPE:-default}"]
    file.write_text(json.dumps({"mcpServers": {"a": {"command": "${NAME}", "args": args}}}))
    config = load(str(file), {"NAME": "run", "CREDENTIALS_DIRECTORY": str(tmp_path / "credentials")})
    assert config.servers["a"].command == "run"
    assert config.servers["a"].args == ["from a file", "from a file", "from systemd", "default"]


def test_relative_files_are_relative_to_the_config_wherever_the_daemon_is(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("found")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    file.write_text('{"mcpServers": {"a": {"command": "${file:token}"}}}')
    assert load("../mcp_servers.json", {}).servers["a"].command == "found"


def test_a_tilde_is_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "token").write_text("at home")
    assert lookup_in("/", {})("file", "~/token") == "at home"


@pytest.mark.parametrize(
    ("source", "name", "message"),
    [
        ("env", "NOPE", "environment variable NOPE is not set"),
        ("file", "nope", "file nope: No such file or directory"),
        ("file", ".", "file .: it is a directory"),
        ("file", "/dev/zero", "file /dev/zero: it is no regular file"),
        ("file", "latin1", "file latin1: not UTF-8 text"),
        ("file", "big", "file big: it is larger than 1 MiB"),
        ("file", "a\0b", "file a\0b: its name holds a NUL byte"),
        ("cred", "nope", "credential nope: No such file or directory"),
        ("cred", "../token", "the name of a credential holds no slash"),
        ("cred", "..", "the name of a credential holds no slash"),
    ],
)
def test_what_a_variable_cannot_stand_for_is_said(source: Source, name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "latin1").write_bytes("é".encode("latin-1"))
    (tmp_path / "big").write_bytes(b" " * (MAX_BYTES + 1))
    look = lookup_in(str(tmp_path), {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    with pytest.raises(LookupError) as caught:
        look(source, name)
    assert caught.value.args == (message,)


def test_without_systemd_there_are_no_credentials() -> None:
    with pytest.raises(LookupError, match="CREDENTIALS_DIRECTORY is not set"):
        lookup_in("/", {})("cred", "key")


def test_a_variable_without_a_value_breaks_its_entry_alone(file: Path) -> None:
    file.write_text('{"mcpServers": {"a": {"command": "${file:nope}"}, "b": {"command": "b"}}}')
    config = load(str(file), {})
    assert list(config.servers) == ["b"]
    assert [str(problem) for problem in config.broken["a"]] == [
        "mcpServers.a.command: file nope: No such file or directory"
    ]


# -- find


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path, dict[str, str]]:
    """The config in the working directory, that of the user, and an environment that leads to the latter."""
    (tmp_path / "work").mkdir()
    user = tmp_path / "xdg" / "mcp-multi-server" / "mcp_servers.json"
    user.parent.mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work" / "mcp_servers.json", user, {"XDG_CONFIG_HOME": str(tmp_path / "xdg")}


def test_the_first_config_that_exists_is_found(places: tuple[Path, Path, dict[str, str]]) -> None:
    here, user, environ = places
    user.write_bytes(EMPTY)
    assert find(None, environ) == str(user)
    here.write_bytes(EMPTY)
    assert find(None, environ) == str(here)


def test_a_config_that_was_named_is_the_one_even_where_it_is_missing(places: tuple[Path, Path, dict[str, str]]) -> None:
    here, _, environ = places
    here.write_bytes(EMPTY)
    named = environ | {"MCP_MULTI_SERVER_CONFIG": "/variable.json"}
    assert find(None, named) == "/variable.json"
    assert find("/argument.json", named) == "/argument.json"
    assert find("argument.json", named) == str(here.with_name("argument.json"))


def test_where_there_is_no_config_the_places_are_listed(
    places: tuple[Path, Path, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, user, environ = places
    system = here.with_name("system.json")
    monkeypatch.setattr("mcp_multi_server.core.paths.SYSTEM_CONFIG", str(system))
    with pytest.raises(ConfigError) as caught:
        find(None, environ)
    assert str(caught.value) == f"no config found; looked for {here}, {user}, {system}"
    system.write_bytes(EMPTY)
    assert find(None, environ) == str(system)
