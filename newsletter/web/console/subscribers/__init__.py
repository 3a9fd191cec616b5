"""Pages for subscribers, segments and imports."""
