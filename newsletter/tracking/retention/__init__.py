"""Deletes data past its retention."""
