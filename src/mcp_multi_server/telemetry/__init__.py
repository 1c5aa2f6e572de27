"""Observers of events: the log, metrics and traces."""
