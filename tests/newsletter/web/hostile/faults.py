"""Which answers are faults of the service."""


def is_fault(path: str, status: int) -> bool:
    """Whether the service failed; /readyz says with 503 that nothing sends here, which is right."""
    return status >= 500 and not path.startswith("/readyz")
