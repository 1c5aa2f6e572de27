"""One supervised fleet of MCP servers for every client on the machine.

The names below are imported when they are first used: the command line needs none of them, and starts without.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .callbacks import ServerRequestContext
    from .capabilities import ServerCapabilities
    from .client import MultiServerClient
    from .core.settings import ServerConfig
    from .formats import (
        mcp_tools_to_anthropic_format,
        mcp_tools_to_gemini_format,
        mcp_tools_to_openai_format,
        print_capabilities_summary,
    )
    from .logs import configure_logging
    from .sources import MCPServersConfig
    from .sync_client import SyncMultiServerClient
    from .uris import (
        extract_template_variables,
        format_namespace_uri,
        parse_namespace_uri,
        substitute_template_variables,
    )

__version__ = "2.0.0.dev0"

__all__ = [
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
]

_HOMES = {
    "MCPServersConfig": "sources",
    "MultiServerClient": "client",
    "ServerCapabilities": "capabilities",
    "ServerConfig": "core.settings",
    "ServerRequestContext": "callbacks",
    "SyncMultiServerClient": "sync_client",
    "configure_logging": "logs",
    "extract_template_variables": "uris",
    "format_namespace_uri": "uris",
    "mcp_tools_to_anthropic_format": "formats",
    "mcp_tools_to_gemini_format": "formats",
    "mcp_tools_to_openai_format": "formats",
    "parse_namespace_uri": "uris",
    "print_capabilities_summary": "formats",
    "substitute_template_variables": "uris",
}


if not TYPE_CHECKING:  # or a type checker would believe every misspelt name

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
