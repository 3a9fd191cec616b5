"""Sends one batch: claims it, renders each recipient, calls the provider, settles the answer."""
