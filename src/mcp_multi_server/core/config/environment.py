"""The environment of a child: what it inherits from the daemon, and what its entry adds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Literal

ALWAYS = ("HOME", "LANG", "LC_*", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER")
"""Variables that every child inherits: programs need them to run at all, and none is likely to be a secret."""
NETWORK = (
    "ALL_PROXY",
    "CURL_CA_BUNDLE",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NODE_EXTRA_CA_CERTS",
    "NO_PROXY",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "all_proxy",
    "http_proxy",
    "https_proxy",
    "no_proxy",
)
"""Proxies and certificates, which every child inherits too: without them a program behind a proxy reaches nothing."""
NEVER = (
    "CACHE_DIRECTORY",
    "CONFIGURATION_DIRECTORY",
    "CREDENTIALS_DIRECTORY",
    "FDSTORE",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "LOGS_DIRECTORY",
    "MAINPID",
    "MANAGERPID",
    "MANAGERPIDFDID",
    "MEMORY_PRESSURE_*",
    "NOTIFY_SOCKET",
    "RUNTIME_DIRECTORY",
    "STATE_DIRECTORY",
    "SYSTEMD_EXEC_PID",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
)
"""What systemd tells the daemon alone (systemd.exec(5)): a child that used it would act in the daemon's name."""


def child_environment(
    environ: Mapping[str, str], *, inherit: Iterable[str] | Literal["all"], env: Mapping[str, str | None]
) -> dict[str, str]:
    """The variables of a child: those of `environ` that it may inherit, then `env`, its entry's own, which win.

    `inherit` holds names and `*` globs. A variable that is None in `env` is not inherited. Shell functions (values that
    begin with `()`) are never inherited: a shell would run them.
    """
    wanted = ("*",) if inherit == "all" else (*ALWAYS, *NETWORK, *inherit)
    inherited = {
        name: value
        for name, value in environ.items()
        # NEVER holds for "all" too.
        if _matches(name, wanted) and not _matches(name, NEVER) and not value.startswith("()")
    }
    return {name: value for name, value in (inherited | dict(env)).items() if value is not None}


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
