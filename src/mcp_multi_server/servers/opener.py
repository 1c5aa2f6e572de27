"""Opens the transport that an entry of the config asks for."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import anyio.to_thread

from ..core.config.settings import LimitsConfig, ServerConfig
from ..processes.reaper import Reaper
from ..transport import Receiver, Transport
from ..transport.link import Flusher
from ..transport.stdio import StdioSpec, open_stdio


class TransportOpener:
    """Opens transports to servers, as their entries say: a child process, streamable HTTP, or the older SSE.

    The fleet makes it, and each server calls it for each transport. `limits` are those of the moment; `environ` is
    what children inherit from.
    """

    def __init__(
        self,
        limits: Callable[[], LimitsConfig],
        flusher: Flusher,
        environ: Mapping[str, str],
        reaper: Reaper | None = None,
    ) -> None:
        self._limits = limits
        self._flusher = flusher
        self._environ = environ
        self._reaper = reaper or Reaper()

    @asynccontextmanager
    async def __call__(self, kind: str, config: ServerConfig, receiver: Receiver) -> AsyncIterator[Transport]:
        """Open it; raises Lost where the server cannot be reached."""
        limits = self._limits()
        if kind == "stdio":
            async with open_stdio(
                _stdio_spec(config),
                receiver,
                flusher=self._flusher,
                line_cap=limits.server_line,
                out_cap=limits.outgoing,
                environ=self._environ,
                reaper=self._reaper,
            ) as child:
                yield child
        else:
            # Importing the HTTP client takes 50 ms and 4 MiB: in a thread, and only where a server needs it.
            module = await anyio.to_thread.run_sync(importlib.import_module, f"mcp_multi_server.transport.{kind}")
            open_remote = module.open_http if kind == "http" else module.open_sse
            async with open_remote(module.HttpSpec.of(config), receiver, line_cap=limits.server_line) as remote:
                yield remote


def _stdio_spec(config: ServerConfig) -> StdioSpec:
    assert config.command is not None
    return StdioSpec(
        command=config.command,
        args=config.args,
        env=config.env,
        cwd=config.cwd,
        inherit_env=config.inherit_env,
        stop_timeout=config.stop_timeout,
    )
