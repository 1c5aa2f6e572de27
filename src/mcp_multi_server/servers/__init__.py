"""Keeps each server alive: one task a server, its session, health, catalogs, and the snapshot that readers see."""
