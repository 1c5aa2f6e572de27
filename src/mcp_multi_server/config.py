"""The models of the config under the name that version 1 had for their module."""

from .core.config.settings import ServerConfig
from .library.config import MCPServersConfig

__all__ = ["MCPServersConfig", "ServerConfig"]
