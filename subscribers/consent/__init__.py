"""Consent records, topics and suppressions."""
