"""MultiServerClient and SyncMultiServerClient: a program's view of a fleet, its own or a daemon's."""
