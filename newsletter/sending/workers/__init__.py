"""Runs the sending: threads on one machine, procrastinate across machines, heartbeats."""
