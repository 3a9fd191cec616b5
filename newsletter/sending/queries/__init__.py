"""Reads sends for pages and commands; writes nothing."""
