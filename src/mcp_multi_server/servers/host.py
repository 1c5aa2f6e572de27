"""Who stands for the clients towards the servers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from ..core.config import ServerConfig
from ..core.jsonrpc import Message

if TYPE_CHECKING:
    from .server import Server
    from .session import ServerSession


class Host(Protocol):
    """Who is asked by servers, and told what they log."""

    def capabilities(self, config: ServerConfig) -> Mapping[str, Any]:
        """What this server may ask for, as it is told at the start."""

    def asked(self, server: Server, session: ServerSession, message: Message) -> None:
        """A request of a legacy server's; it is answered, at once or later."""

    def told(self, server: Server, session: ServerSession, message: Message) -> None:
        """A notification that is not about lists or progress."""
