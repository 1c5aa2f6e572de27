"""One supervised fleet of MCP servers for every client on the machine.

The names below are imported when they are first used: the command line needs none of them, and starts without.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .core.config.settings import ServerConfig
    from .library.callbacks import ServerRequestContext
    from .library.capabilities import ServerCapabilities
    from .library.client import MultiServerClient
    from .library.config import MCPServersConfig
    from .library.formats import (
        mcp_tools_to_anthropic_format,
        mcp_tools_to_gemini_format,
        mcp_tools_to_openai_format,
        print_capabilities_summary,
    )
    from .library.logs import configure_logging
    from .library.sync_client import SyncMultiServerClient
    from .library.uris import (
        extract_template_variables,
        format_namespace_uri,
        parse_namespace_uri,
        substitute_template_variables,
    )

__version__ = "2.0.0rc1"

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
    "MCPServersConfig": "library.config",
    "MultiServerClient": "library.client",
    "ServerCapabilities": "library.capabilities",
    "ServerConfig": "core.config.settings",
    "ServerRequestContext": "library.callbacks",
    "SyncMultiServerClient": "library.sync_client",
    "configure_logging": "library.logs",
    "extract_template_variables": "library.uris",
    "format_namespace_uri": "library.uris",
    "mcp_tools_to_anthropic_format": "library.formats",
    "mcp_tools_to_gemini_format": "library.formats",
    "mcp_tools_to_openai_format": "library.formats",
    "parse_namespace_uri": "library.uris",
    "print_capabilities_summary": "library.formats",
    "substitute_template_variables": "library.uris",
}


if not TYPE_CHECKING:  # or a type checker would believe every misspelt name

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
