"""Pages for schedules."""
