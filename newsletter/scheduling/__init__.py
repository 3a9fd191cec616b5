"""Schedules, the clock and its tasks."""
