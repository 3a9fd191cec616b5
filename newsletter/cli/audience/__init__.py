"""Commands for subscribers, segments, topics and suppressions."""
