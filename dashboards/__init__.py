"""Dashboards and alerts for mcp-multi-server, and what makes them."""
