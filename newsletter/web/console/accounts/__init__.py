"""Signing in, users, passwords, two-factor codes, audit log."""
