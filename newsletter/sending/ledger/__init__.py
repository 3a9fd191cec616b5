"""Writes the state of sends, batches and deliveries."""
