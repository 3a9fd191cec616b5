"""The table that says which process holds the clock."""

from datetime import datetime

from subscribers.schema import Field, Model


class Lease(Model, table=True):
    """A job for one process at a time, held until ``until`` unless renewed."""

    __tablename__ = "lease"

    name: str = Field(primary_key=True, max_length=40)
    holder: str = Field(max_length=100)
    until: datetime
