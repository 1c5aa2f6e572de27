"""Entries of servers, and what changes each of their fields."""

from typing import Any

from mcp_multi_server.core.config.config import ServerConfig

CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "command": ({}, {"command": "other"}),
    "args": ({}, {"args": ("-v",)}),
    "env": ({}, {"env": {"A": "1"}}),
    "cwd": ({}, {"cwd": "/"}),
    "inherit_env": ({}, {"inherit_env": "all"}),
    "url": ({"url": "http://a"}, {"url": "http://b"}),
    "headers": ({"url": "http://a"}, {"url": "http://a", "headers": {"A": "1"}}),
    "type": ({"url": "http://a"}, {"url": "http://a", "type": "sse"}),
    "protocol": ({}, {"protocol": "legacy"}),
    "may_ask": ({}, {"may_ask": ("roots",)}),
    "timeout": ({}, {"timeout": 1}),
    "hang": ({}, {"hang": "off"}),
    "start_timeout": ({}, {"start_timeout": 1}),
    "stop_timeout": ({}, {"stop_timeout": 1}),
    "refresh_interval": ({}, {"refresh_interval": 1}),
    "include": ({}, {"include": ("a*",)}),
    "exclude": ({}, {"exclude": ("a*",)}),
    "prefix": ({}, {"prefix": "p"}),
    "replace": ({}, {"replace": "stop-first"}),
    "hold": ({}, {"hold": 0}),
    "grace": ({}, {"grace": 0}),
}
"""Fields of an entry before and after, by the field that differs."""


def server(**fields: Any) -> ServerConfig:
    return ServerConfig(**({} if "url" in fields else {"command": "run"}) | fields)
