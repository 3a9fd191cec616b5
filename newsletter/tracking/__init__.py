"""Provider events, suppression policy, counters and A/B test results."""
