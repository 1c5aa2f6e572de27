"""Log messages of servers, on their way to a program's callback."""

from __future__ import annotations

import asyncio
import logging

import mcp_types as types
from pydantic import ValidationError

from ..core.jsonrpc import Message
from .callbacks import LoggingFnT

LOGS_KEPT = 1000
"""Log messages that wait for the callback; further ones are dropped."""

_log = logging.getLogger("mcp_multi_server.client")


class LogDelivery:
    """Hands the log messages of servers to the program's callback, one after another, in order.

    A session with the fleet makes it and runs it until the session ends. Messages wait here, so that a slow callback
    delays nothing but them.
    """

    def __init__(self, callback: LoggingFnT | None) -> None:
        self._callback = callback
        self._messages: asyncio.Queue[Message] = asyncio.Queue(LOGS_KEPT)
        self._is_dropping = False

    def add(self, message: Message) -> None:
        """Take a log message; dropped if there is no callback, or too many wait for it."""
        if self._callback is None:
            return
        try:
            self._messages.put_nowait(message)
            self._is_dropping = False
        except asyncio.QueueFull:
            # One warning for all that are dropped in a row: it must not become a flood of its own.
            if not self._is_dropping:
                self._is_dropping = True
                _log.warning("the logging callback is slow: log messages of servers are left out")

    async def run(self) -> None:
        """Call the callback with what waits and what comes, until cancelled. What it raises is logged."""
        if self._callback is None:
            return
        while True:
            message = await self._messages.get()
            try:
                params = types.LoggingMessageNotificationParams.model_validate_json(bytes(message.params))
            except ValidationError:
                _log.warning("a log message of a server is left out, as it is malformed")
                continue
            try:
                await self._callback(params)
            except Exception:
                _log.exception("the logging callback failed")
