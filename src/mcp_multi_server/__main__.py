"""`python -m mcp_multi_server`."""

from .cli import main

main()
