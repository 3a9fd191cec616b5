"""Pages for issues."""
