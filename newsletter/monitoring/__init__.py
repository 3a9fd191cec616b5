"""What monitoring reads of a running process: its health, its readiness and its metrics."""
