"""Overview, open tasks, deliverability, departure logs."""
