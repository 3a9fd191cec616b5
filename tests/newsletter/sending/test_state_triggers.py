"""Every transition that the tables do not allow is refused by the database itself."""

from itertools import product

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from newsletter.sending.state_triggers import GUARDED
from tests.newsletter.sending.conftest import make_plan, make_send

pytestmark = pytest.mark.both_databases


@pytest.mark.parametrize("table", GUARDED)
def test_each_pair_of_states_is_allowed_or_refused_as_the_table_says(
    database: Engine, five: list[int], table: str
) -> None:
    make_plan(database, make_send(database), batch_size=5)
    allowed = GUARDED[table]
    for state, target in product(allowed, allowed):
        # The guard is taken off to set the scene, in the transaction that is undone.
        with database.connect() as connection:
            if database.dialect.name == "postgresql":
                connection.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER USER"))
                connection.execute(text(f"UPDATE {table} SET state = '{state}'"))
                connection.execute(text(f"ALTER TABLE {table} ENABLE TRIGGER USER"))
            else:
                trigger = connection.execute(
                    text("SELECT sql FROM sqlite_master WHERE name = :name"),
                    {"name": f"{table}_state"},
                ).scalar_one()
                connection.execute(text(f"DROP TRIGGER {table}_state"))
                connection.execute(text(f"UPDATE {table} SET state = '{state}'"))
                connection.exec_driver_sql(trigger)
            change = text(f"UPDATE {table} SET state = '{target}'")
            if state == target or target in allowed[state]:
                assert connection.execute(change).rowcount
            else:
                with pytest.raises(IntegrityError, match=f"illegal transition of a {table}"):
                    connection.execute(change)
            connection.rollback()
