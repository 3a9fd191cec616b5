"""Decides when batches may leave: rates, sending windows, warm-up."""
