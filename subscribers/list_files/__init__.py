"""Reads files of subscribers: formats, columns, values, rejected rows."""
