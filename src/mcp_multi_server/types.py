"""ServerCapabilities under the name that version 1 had for its module."""

from .library.capabilities import ServerCapabilities

__all__ = ["ServerCapabilities"]
