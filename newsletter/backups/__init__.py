"""Backups: a folder each, with a copy of the database, the uploaded lists, and a manifest."""
