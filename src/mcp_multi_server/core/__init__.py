"""Decisions: values in, values out. Nothing here waits, reads a clock, draws a number or does I/O."""
