"""Limits hold over any stretch of time, across processes, and say nothing about whom they limit."""

import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import Engine, func, select

from newsletter.db.engine import open_database, reading, transaction
from newsletter.db.orm import table_of
from subscribers import rate_limit
from subscribers.models import RateLimit
from tests.conftest import NOW

pytestmark = pytest.mark.both_databases

HOUR = timedelta(hours=1)
KEY = rate_limit.key_of(b"secret", "test", "198.51.100.7")


def tries(engine: Engine, times: int, *, key: bytes = KEY, limit: int = 3, now=NOW) -> int:
    """How many of so many tries are allowed, each in a transaction of its own."""
    allowed = 0
    for _ in range(times):
        with transaction(engine) as session:
            allowed += rate_limit.hit(session, key, limit=limit, window=HOUR, now=now)
    return allowed


def test_no_more_than_the_limit_is_allowed(database: Engine) -> None:
    assert tries(database, 10) == 3


def test_keys_do_not_limit_each_other(database: Engine) -> None:
    other = rate_limit.key_of(b"secret", "another purpose", "198.51.100.7")
    assert tries(database, 5) == tries(database, 5, key=other) == 3


def test_no_hour_sees_more_than_the_limit_wherever_it_begins(database: Engine) -> None:
    minute = timedelta(minutes=1)
    allowed = [m for m in range(240) if tries(database, 1, now=NOW + m * minute)]
    for start in range(240):
        assert sum(start <= m < start + 60 for m in allowed) <= 3
    # And it opens again: at most a quarter of an hour late.
    assert len(allowed) >= 3 * (240 // 75)


def test_refused_tries_do_not_lengthen_the_wait(database: Engine) -> None:
    tries(database, 3)
    for minute in range(1, 60):
        tries(database, 1, now=NOW + timedelta(minutes=minute))
    assert tries(database, 1, now=NOW + timedelta(minutes=76)) == 1


def test_a_try_that_is_undone_does_not_count(database: Engine) -> None:
    with pytest.raises(ZeroDivisionError), transaction(database) as session:
        rate_limit.hit(session, KEY, limit=1, window=HOUR, now=NOW)
        raise ZeroDivisionError
    assert tries(database, 1, limit=1) == 1


def test_tries_at_once_count_each_other(database: Engine) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda _: tries(database, 5), range(8))) == 3


def _elsewhere(url: str) -> int:
    engine = open_database(url)
    try:
        return tries(engine, 20, limit=25)
    finally:
        engine.dispose()


@pytest.mark.slow
def test_limits_hold_across_processes(database_url: str) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert sum(pool.map(_elsewhere, [database_url] * 2)) == 25


def test_an_ipv6_home_is_one_network_and_an_ipv4_address_another() -> None:
    assert rate_limit.network_of("2001:db8:1:2::1") == rate_limit.network_of("2001:db8:1:2:ffff::9")
    assert rate_limit.network_of("2001:db8:1:2::1") != rate_limit.network_of("2001:db8:1:3::1")
    assert (
        rate_limit.network_of("::ffff:192.0.2.1")
        == rate_limit.network_of("192.0.2.1")
        == "192.0.2.1"
    )
    assert rate_limit.network_of("fe80::1%eth0") == "fe80::/64"
    assert rate_limit.network_of("not an address") == "not an address"


def test_keys_hide_what_they_stand_for_and_differ_by_secret() -> None:
    assert len(KEY) == 16
    assert rate_limit.key_of(b"other", "test", "198.51.100.7") != KEY


def test_what_limits_nothing_any_more_is_swept_away(database: Engine) -> None:
    tries(database, 1)
    tries(database, 1, now=NOW + 3 * HOUR)
    with transaction(database) as session:
        assert rate_limit.sweep(session, now=NOW + 3 * HOUR) == 1
    with reading(database) as session:
        assert session.scalar(select(func.count()).select_from(table_of(RateLimit))) == 1
