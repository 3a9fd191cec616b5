"""Counters and rates of sends, and the results of A/B tests."""
