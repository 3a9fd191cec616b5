"""Finds, edits and counts subscribers."""
