"""Plans a send: selects recipients, cuts batches, estimates and reschedules."""
