"""One supervised fleet of MCP servers for every client on the machine."""

__version__ = "2.0.0.dev0"
