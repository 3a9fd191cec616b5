"""The audience: subscribers, consent, segments, suppression."""
