"""What a program asks of servers through a client: each request finds its server, and its errors become exceptions."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import mcp_types as types
import msgspec
from pydantic import AnyUrl
from pydantic_core import to_jsonable_python

from ..core.catalog.catalog import Kind
from ..core.errors import METHOD_NOT_FOUND, RpcError
from ..core.uri import namespaced
from .connection import FleetConnection
from .errors import check_level, error_result, in_seconds, is_unknown, mcp_error, read_error
from .listing import Listing
from .logs import set_own_level
from .progress import ProgressFnT


class Requests(ABC):
    """The methods of a client that ask servers for something. `MultiServerClient` is one, and connects."""

    _connection: FleetConnection | None
    _listing: Listing
    _log_level: types.LoggingLevel | None

    async def call_tool(
        self,
        name: str,
        arguments: dict[str, Any] | None = None,
        read_timeout_seconds: float | timedelta | None = None,
        progress_callback: ProgressFnT | None = None,
        *,
        meta: dict[str, Any] | None = None,
        server_name: str | None = None,
    ) -> types.CallToolResult:
        """Call a tool by its listed or qualified name, or by its own name on `server_name`.

        Args:
            name: the tool's name: as `list_tools` has it, or `server__name`.
            arguments: the tool's arguments by name, as its input schema wants them: anything that can be JSON.
            read_timeout_seconds: seconds, or a `timedelta`, that the call may take, more or less than the `timeout` of
                the server's entry. Default: that `timeout` (60 s), renewed by each progress report. `math.inf` for no
                limit.
            progress_callback: awaited with `(progress, total, message)` for each report of progress, in order; `total`
                and `message` are None where the server does not say. The result comes after the last one.
            meta: a dict that goes along as the request's `_meta`.
            server_name: the server whose tool it is; `name` is then the name that this server gives it.

        Returns:
            What the tool returned: `content` (a list of texts, images and so on), `structured_content` (a dict or
            None), `is_error` and `meta`. `is_error` is set if the tool failed, or if there is no such tool or server.

        Raises:
            mcp.MCPError: the server answered with an error of the protocol, the call took too long (code -32001) or is
                longer than `daemon.limits.clientLine` allows (-32600), or the server is away or was lost (-32603); then
                `error.data` has the server, its state, the reason and the time of the next attempt. If the daemon is
                away or was lost, it has the reason, and in `sent` whether it was sent.
            pydantic.ValidationError: what the server returned is no result of a tool.
            RuntimeError: the client is not connected.
            TypeError, ValueError: `read_timeout_seconds` is no time, or `arguments` or `meta` cannot be JSON.

        """
        if server_name is not None:
            if refusal := self._listing.refusal(Kind.TOOL, server_name, name):
                return error_result(refusal)
            name = self._listing.qualified(server_name, name)
        params: dict[str, Any] = {"name": name, "arguments": to_jsonable_python(arguments or {})}
        if meta:
            params["_meta"] = to_jsonable_python(meta)
        try:
            raw = await self._ask_by_name(Kind.TOOL, "tools/call", params, read_timeout_seconds, progress_callback)
        except RpcError as refused:
            if is_unknown(refused, "Unknown tool"):
                return error_result(f"Unknown tool: {name}")
            raise mcp_error(refused) from None
        return types.CallToolResult.model_validate_json(bytes(raw))

    async def read_resource(
        self,
        uri: str | AnyUrl,
        server_name: str | None = None,
        *,
        read_timeout_seconds: float | timedelta | None = None,
    ) -> types.ReadResourceResult:
        """Read a resource.

        Args:
            uri: `server:uri`, as `list_resources` has it, or a URI that leads to one server.
            server_name: the server whose resource it is; `uri` is then the URI that this server gives it.
            read_timeout_seconds: as in `call_tool`.

        Returns:
            Its `contents`: a list, each with `uri`, `mime_type` and `text`, or `blob` in base64.

        Raises:
            mcp.MCPError: as in `call_tool`; code -32601 if there is no such server or no server offers the resource,
                -32602 if its server does not have it.
            pydantic.ValidationError: what the server returned is no content of a resource.
            RuntimeError: the client is not connected.
            TypeError, ValueError: `read_timeout_seconds` is no time.

        """
        target = str(uri)
        if server_name is not None:
            if not self._listing.knows(server_name):
                raise mcp_error(RpcError(METHOD_NOT_FOUND, f"Unknown server: {server_name}"))
            target = namespaced(server_name, target)
        try:
            raw = await self._ask("resources/read", {"uri": target}, read_timeout_seconds)
        except RpcError as refused:
            raise mcp_error(read_error(refused, target)) from None
        result = types.ReadResourceResult.model_validate_json(bytes(raw))
        if server_name is not None:  # a URI comes back in the form in which it was asked for
            for content in result.contents:
                content.uri = content.uri.removeprefix(f"{server_name}:")
        return result

    async def get_prompt(
        self,
        name: str,
        arguments: dict[str, str] | None = None,
        server_name: str | None = None,
        *,
        read_timeout_seconds: float | timedelta | None = None,
    ) -> types.GetPromptResult:
        """Get a prompt.

        Args:
            name: the prompt's name: as `list_prompts` has it, or `server__name`.
            arguments: the prompt's arguments by name; their values are strings.
            server_name: the server whose prompt it is; `name` is then the name that this server gives it.
            read_timeout_seconds: as in `call_tool`.

        Returns:
            Its `messages`, each with `role` and `content`, and a `description` or None.

        Raises:
            mcp.MCPError: as in `call_tool`; code -32601 if there is no such server or prompt.
            pydantic.ValidationError: what the server returned is no prompt.
            RuntimeError: the client is not connected.
            TypeError, ValueError: `read_timeout_seconds` is no time, or `arguments` cannot be JSON.

        """
        if server_name is not None:
            if refusal := self._listing.refusal(Kind.PROMPT, server_name, name):
                raise mcp_error(RpcError(METHOD_NOT_FOUND, refusal))
            name = self._listing.qualified(server_name, name)
        params = {"name": name, "arguments": arguments or {}}
        try:
            raw = await self._ask_by_name(Kind.PROMPT, "prompts/get", params, read_timeout_seconds)
        except RpcError as refused:
            if is_unknown(refused, "Unknown prompt"):
                refused = RpcError(METHOD_NOT_FOUND, refused.message)
            raise mcp_error(refused) from None
        return types.GetPromptResult.model_validate_json(bytes(raw))

    async def complete(
        self,
        ref: types.PromptReference | types.ResourceTemplateReference,
        argument: dict[str, str],
        context_arguments: dict[str, str] | None = None,
    ) -> types.CompleteResult:
        """Ask for completions of an argument of a prompt or template.

        Args:
            ref: the prompt or template.
            argument: its `name`, and as `value` what is written of it so far.
            context_arguments: the arguments that are already known, by name.

        Returns:
            In `completion`: `values`, a list of at most 100 strings, `total` and `has_more`.

        Raises:
            mcp.MCPError: as in `call_tool`.
            pydantic.ValidationError: what the server returned is no completion.
            RuntimeError: the client is not connected.

        """
        params: dict[str, Any] = {"ref": ref.model_dump(by_alias=True, exclude_none=True), "argument": argument}
        if context_arguments:
            params["context"] = {"arguments": context_arguments}
        try:
            raw = await self._ask("completion/complete", params)
        except RpcError as refused:
            raise mcp_error(refused) from None
        return types.CompleteResult.model_validate_json(bytes(raw))

    async def set_logging_level(self, level: types.LoggingLevel) -> types.EmptyResult:
        """Have `logging_callback` called with the servers' log messages of this level and above.

        It sets the level of the library's own logger, too, and lasts when the client connects again.

        Args:
            level: `debug`, `info`, `notice`, `warning`, `error`, `critical`, `alert` or `emergency`.

        Returns:
            Nothing in it: `EmptyResult`.

        Raises:
            ValueError: there is no such level.
            mcp.MCPError: the daemon is away.
            RuntimeError: the client is not connected.

        """
        check_level(level)
        try:
            await self._ask("logging/setLevel", {"level": level})
        except RpcError as refused:
            raise mcp_error(refused) from None
        self._log_level = level
        if self._connection is not None:
            self._connection.log_level = level
        set_own_level(level)
        return types.EmptyResult()

    async def _ask_by_name(
        self,
        kind: Kind,
        method: str,
        params: Mapping[str, Any],
        timeout: float | timedelta | None = None,
        progress: ProgressFnT | None = None,
    ) -> msgspec.Raw:
        """The result of a request for a tool or prompt. Raises RpcError.

        A name may be withdrawn from the lists while its server is away. Then the request is made once more by the
        qualified name, which leads to that server: the fleet waits for it, or says why it is away.
        """
        try:
            return await self._ask(method, params, timeout, progress)
        except RpcError as refused:
            qualified = self._listing.withdrawn(kind, params["name"])
            if qualified is None or not is_unknown(refused, f"Unknown {kind.value}"):
                raise
        return await self._ask(method, {**params, "name": qualified}, timeout, progress)

    async def _ask(
        self,
        method: str,
        params: Mapping[str, Any],
        timeout: float | timedelta | None = None,
        progress: ProgressFnT | None = None,
    ) -> msgspec.Raw:
        """A request's result. Raises RpcError, also for a time limit that is over and a session that was lost."""
        if self._connection is None:
            raise RuntimeError("this client is not connected: use `async with`")
        return await self._connection.request(method, params, in_seconds(timeout, "read_timeout_seconds"), progress)
