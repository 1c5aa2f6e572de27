"""The process: all parts put together, the config file and its watcher, systemd, signals."""
