"""The bridge between an MCP host and the daemon: what it passes on, keeps, asks again and answers itself."""
