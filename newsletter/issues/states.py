"""The life of an issue until it may be sent: every state, what it means, what may follow.

The table is total, and the only place where a transition is allowed. An approval is of
one revision: whatever edits the text makes a draft of the issue again.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class IssueState(StrEnum):
    """Where an issue's latest revision stands."""

    #: Being written.
    DRAFT = "draft"
    #: Somebody is asked to read it.
    REVIEW = "review"
    #: May be sent as it is.
    APPROVED = "approved"


class Step(StrEnum):
    """What somebody did with an issue in review."""

    #: Asked for a review.
    REQUESTED = "requested"
    #: Found that it may be sent.
    APPROVED = "approved"
    #: Wants changes, or takes an approval back.
    RETURNED = "returned"


ISSUE_NEXT: Final[Mapping[IssueState, frozenset[IssueState]]] = {
    IssueState.DRAFT: frozenset({IssueState.REVIEW}),
    IssueState.REVIEW: frozenset({IssueState.APPROVED, IssueState.DRAFT}),
    IssueState.APPROVED: frozenset({IssueState.DRAFT}),
}

#: Where each step leads.
LEADS_TO: Final[Mapping[Step, IssueState]] = {
    Step.REQUESTED: IssueState.REVIEW,
    Step.APPROVED: IssueState.APPROVED,
    Step.RETURNED: IssueState.DRAFT,
}
