"""Ingests provider events: attribution, policy, bounces, bots."""
