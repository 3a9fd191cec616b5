"""Imports and exports subscribers."""
