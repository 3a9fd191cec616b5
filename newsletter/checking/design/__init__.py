"""Checks of the design: client support and contrast."""
