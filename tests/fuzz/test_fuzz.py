"""Some hundred raw requests against a running service; `make fuzz` sends twenty thousand."""

from pathlib import Path

import pytest

from tests.fuzz.__main__ import SETTINGS, fuzz
from tests.fuzz.requests import good_requests
from tests.fuzz.service import running


@pytest.mark.slow
def test_no_bytes_are_a_fault_of_ours(tmp_path: Path) -> None:
    other = {"NEWSLETTER_WEB__FORWARDED_HEADER": "forwarded"}
    with running(tmp_path, **SETTINGS, **other) as service:
        # Every route once, with whatever is done to it.
        requests = len(good_requests(service)) + 100
        found = fuzz(service, requests=requests, seed=20261129)
    assert found.problems() == {}, "\n".join(found.faults[:10])
    assert requests > 250
    assert len(found.statuses) > 6
