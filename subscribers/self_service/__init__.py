"""What subscribers do themselves: preferences, data access, erasure."""
