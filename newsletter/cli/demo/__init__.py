"""The demo: a sandbox, a service and sample data on this machine."""
