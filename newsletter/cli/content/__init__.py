"""Commands for issues."""
