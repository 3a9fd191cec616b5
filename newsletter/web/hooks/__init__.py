"""Requests from SendGrid: signed events and inbound email."""
