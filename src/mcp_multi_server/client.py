"""MultiServerClient under the name that version 1 had for its module."""

from .library.client import MultiServerClient

__all__ = ["MultiServerClient"]
