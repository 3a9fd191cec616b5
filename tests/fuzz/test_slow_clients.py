"""A thousand clients that hold on, and a service that may open 1,024 files."""

import os
import time
from collections.abc import Iterator

import pytest

from tests.fuzz.service import Service, running, until
from tests.fuzz.slow_clients import KINDS, health, holding, one_click

FILES = 1024


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("slow"), files=FILES) as found:
        yield found


#: A crowd that reads a byte a second keeps both cores busy, and so needs them for itself.
BUSY = pytest.mark.skipif(
    "NEWSLETTER_IDLE_MACHINE" not in os.environ,
    reason="needs a machine for itself: set NEWSLETTER_IDLE_MACHINE",
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [pytest.param(one, marks=BUSY) if one == "slow_reader" else one for one in KINDS]
)
def test_others_are_served_while_many_hold_on(service: Service, kind: str) -> None:
    with holding(kind, service.address, 1100):
        for _ in range(5):
            assert health(service.address)[0] == 200
            assert one_click(service.address, service.token)[0] == 200
            assert service.files < FILES - 100
            time.sleep(0.5)
    # Python alone takes 110 MB; of a client that holds on no more than some buffers is kept.
    assert service.memory < 300_000_000
    assert service.log.stat().st_size < 100_000
    # Whoever has gone leaves nothing behind.
    until(lambda: service.files < 100)
