"""Reads issue files: front matter, Markdown body, merge fields."""
