"""Checks of what the text says, and of markup that would be shown as text."""
