"""Outgoing webhooks: endpoints of other programs, and what is sent to them."""
