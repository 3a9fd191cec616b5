"""Create, change and delete segments.

The audit log names segments and never their rules, which may say something about subscribers.
"""

from datetime import datetime

from newsletter.accounts import audit
from newsletter.accounts.audit import Actor
from newsletter.db.orm import Session
from newsletter.errors import SegmentError
from newsletter.issues.parsing.tracking_flags import Tracked, require_measured
from newsletter.scheduling import schedules
from newsletter.sending.queries import segment_usage
from subscribers.models import Segment
from subscribers.segments import store


def create(
    session: Session,
    name: str,
    expression: str,
    *,
    by: Actor,
    now: datetime,
    tracked: Tracked,
    description: str = "",
) -> Segment:
    """Save a new segment.

    Raises SegmentError if the name is taken, the rule is wrong, or the rule asks for clicks or
    opens that the publication does not measure.
    """
    require_measured(expression, tracked, place=f"segment {name}")
    segment = store.save(session, name, expression, now=now, description=description)
    audit.record(session, by, "segment created", now=now, subject=name)
    return segment


def change(
    session: Session,
    name: str,
    *,
    by: Actor,
    now: datetime,
    tracked: Tracked,
    new_name: str | None = None,
    expression: str | None = None,
    description: str | None = None,
    may_change_audience: bool,
) -> Segment:
    """Rename a segment, or give it another rule or description. None leaves a value as it is.

    A schedule sends to the segment's rule of the moment. So only who may send
    (``may_change_audience``) may change the rule of a segment that a schedule uses. Raises
    SegmentError for that, and as ``create`` does.
    """
    segment = store.find(session, name)
    new_name = segment.name if new_name is None else new_name
    rule = segment.expression if expression is None else expression
    about = segment.description if description is None else description
    require_measured(rule, tracked, place=f"segment {new_name}")
    users = schedules.using_segment(session, name)
    if rule != segment.expression and users and not may_change_audience:
        raise SegmentError(
            f"schedule {users[0]} sends to this segment, so its rule decides who gets issues",
            place=f"segment {name}",
            hint="Ask an approver to change it, or save your rule under another name.",
        )
    changed = store.change(session, name, new_name, rule, now=now, description=about)
    audit.record(session, by, "segment changed", now=now, subject=new_name)
    return changed


def delete(session: Session, name: str, *, by: Actor, now: datetime) -> None:
    """Delete a segment.

    Raises SegmentError while a schedule or an unfinished send includes or excludes it. Finished
    sends keep the rule that they had.
    """
    segment = store.find(session, name)
    if sends := segment_usage.unfinished_sends(session, segment):
        many = len(sends) > 1
        raise SegmentError(
            f"{'sends' if many else 'send'} {', '.join(map(str, sends[:10]))} "
            f"{'use' if many else 'uses'} it and {'are' if many else 'is'} not finished",
            place=f"segment {name}",
            hint="Wait until nothing uses it, or cancel what does. Then delete it.",
        )
    if users := schedules.using_segment(session, name):
        many = len(users) > 1
        raise SegmentError(
            f"{'schedules' if many else 'schedule'} {', '.join(users[:10])} "
            f"{'use' if many else 'uses'} it",
            place=f"segment {name}",
            hint="Choose other segments in the schedule, or delete the schedule.",
        )
    store.delete(session, name)
    audit.record(session, by, "segment deleted", now=now, subject=name)


def create_index(session: Session, attribute: str, *, by: Actor, now: datetime) -> None:
    """Create a database index for an attribute that rules often compare."""
    store.create_index(session, attribute)
    audit.record(session, by, "attribute index created", now=now, subject=attribute)


def drop_index(session: Session, attribute: str, *, by: Actor, now: datetime) -> None:
    """Remove the database index of an attribute, if there is one."""
    store.drop_index(session, attribute)
    audit.record(session, by, "attribute index removed", now=now, subject=attribute)
