"""The state machine of an issue: draft, review, approved.

ISSUE_NEXT lists every allowed transition. An approval covers one revision: an edit makes the
issue a draft again.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class IssueState(StrEnum):
    """The state of an issue's latest revision."""

    #: Being written.
    DRAFT = "draft"
    #: A review was requested.
    REVIEW = "review"
    #: It may be sent.
    APPROVED = "approved"


class Step(StrEnum):
    """A step of a review."""

    #: A review was requested.
    REQUESTED = "requested"
    #: The revision was approved.
    APPROVED = "approved"
    #: The reviewer asked for changes, or withdrew an approval.
    RETURNED = "returned"


ISSUE_NEXT: Final[Mapping[IssueState, frozenset[IssueState]]] = {
    IssueState.DRAFT: frozenset({IssueState.REVIEW}),
    IssueState.REVIEW: frozenset({IssueState.APPROVED, IssueState.DRAFT}),
    IssueState.APPROVED: frozenset({IssueState.DRAFT}),
}

#: The state after each step.
LEADS_TO: Final[Mapping[Step, IssueState]] = {
    Step.REQUESTED: IssueState.REVIEW,
    Step.APPROVED: IssueState.APPROVED,
    Step.RETURNED: IssueState.DRAFT,
}
