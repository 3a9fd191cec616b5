"""Sends issues: planning, pacing, delivery, recovery."""
