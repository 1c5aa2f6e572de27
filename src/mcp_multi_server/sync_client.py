"""SyncMultiServerClient under the name that version 1 had for its module."""

from .library.sync_client import SyncMultiServerClient

__all__ = ["SyncMultiServerClient"]
