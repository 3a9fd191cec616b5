"""Segments: the rule language and the saved segments."""
