"""More figures of people (bounces, blocks, drops, who left where): alarms count people, not events."""

from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

_WHAT = (
    "CASE kind WHEN 'bounce' THEN 'people_bounced' WHEN 'blocked' THEN 'people_blocked' "
    "WHEN 'dropped' THEN 'people_dropped' WHEN 'unsubscribe' THEN 'left_here' "
    "ELSE 'left_at_provider' END"
)
_KINDS = "('bounce', 'blocked', 'dropped', 'unsubscribe', 'group_unsubscribe')"
_NEW = (
    "what IN ('people_bounced', 'people_blocked', 'people_dropped', 'left_here', "
    "'left_at_provider') AND link = ''"
)


def upgrade() -> None:
    # Events that are gone already belong to sends whose figures are final.
    people = "INSERT INTO person_count (send_id, subscriber_id, what, domain, link, count)"
    of = f"FROM event WHERE subscriber_id IS NOT NULL AND kind IN {_KINDS}"
    for statement in (
        f"{people} SELECT coalesce(send_id, 0), subscriber_id, {_WHAT}, domain, '', count(*) {of} GROUP BY 1, 2, 3, 4",
        f"INSERT INTO send_count (send_id, what, count) SELECT send_id, what, count(*) FROM person_count WHERE {_NEW} GROUP BY 1, 2",  # noqa: S608
        f"INSERT INTO part_count (send_id, part, value, what, count) SELECT send_id, 'domain', domain, what, count(*) FROM person_count WHERE {_NEW} GROUP BY 1, 3, 4",  # noqa: S608
    ):
        op.execute(statement)
