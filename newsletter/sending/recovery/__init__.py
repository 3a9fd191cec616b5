"""Recovers after a crash or a restore: departure log, replay, uncertain batches."""
