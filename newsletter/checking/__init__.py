"""Checks of an issue before it is sent."""
