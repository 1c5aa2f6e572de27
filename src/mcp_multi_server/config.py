"""The models of the config under the name that version 1 had for their module."""

from .library.config import MCPServersConfig, ServerConfig

__all__ = ["MCPServersConfig", "ServerConfig"]
