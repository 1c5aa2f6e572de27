"""ServerCapabilities under the name that version 1 had for its module."""

from .capabilities import ServerCapabilities

__all__ = ["ServerCapabilities"]
