"""Checks of the installation: provider account, DNS, host and proxy."""
