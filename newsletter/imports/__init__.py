"""Imports of uploaded list files: storage, jobs, and the worker that runs them."""
