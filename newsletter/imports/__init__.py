"""Uploaded lists of subscribers: storage, jobs and the worker that runs them."""
