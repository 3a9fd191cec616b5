"""Commands for sends and schedules."""
