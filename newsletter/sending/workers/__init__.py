"""Runs the sending workers: threads on one machine, procrastinate across machines."""
