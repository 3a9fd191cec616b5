"""Renders an issue from Markdown to email."""
