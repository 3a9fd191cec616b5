"""People of the console, made at NOW."""

from collections.abc import Callable

import pytest
from sqlalchemy import Engine

from newsletter.accounts import users
from newsletter.accounts.models import Role
from newsletter.db.engine import transaction
from tests.conftest import NOW

AddUser = Callable[..., int]


@pytest.fixture
def add_user(database: Engine) -> AddUser:
    """Adds somebody; returns their number."""

    def add(email: str, role: Role = Role.VIEWER, *, max_owners: int = 3, hashed: str = "") -> int:
        with transaction(database) as session:
            return users.add(
                session,
                email,
                name=email.partition("@")[0],
                role=role,
                max_owners=max_owners,
                now=NOW,
                hashed=hashed,
            ).id

    return add
