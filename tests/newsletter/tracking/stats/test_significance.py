"""Figures of published tables, and what holds for any."""

from fractions import Fraction
from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newsletter.tracking.stats.significance import fisher_exact, ratio_interval, wilson_interval


@pytest.mark.parametrize(
    ("count", "people", "low", "high"),
    [
        # R. G. Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_shares(count: int, people: int, low: float, high: float) -> None:
    found = wilson_interval(count, people, 0.95)
    assert found == pytest.approx((low, high), abs=0.00005)
    # The same of those who did not.
    assert wilson_interval(people - count, people, 0.95) == pytest.approx(
        (1 - high, 1 - low), abs=5e-5
    )


def test_ratios() -> None:
    # Placebo and aspirin: A. Agresti, An Introduction to Categorical Data Analysis (2007), 2.2.
    assert ratio_interval(189, 11034, 104, 11037, 0.95) == pytest.approx((1.43, 2.30), abs=0.01)
    assert ratio_interval(0, 10, 3, 10, 0.95) == (0.0, float("inf"))


@pytest.mark.parametrize(
    ("table", "p"),
    [
        # The lady who tasted tea: Agresti, section 2.6.2.
        ((3, 4, 1, 4), 0.4857),
        # Twins of convicts: R. A. Fisher, Statistical Methods for Research Workers (1970), 21.02.
        ((2, 12, 15, 18), 0.0005367),
    ],
)
def test_chance(table: tuple[int, int, int, int], p: float) -> None:
    assert fisher_exact(*table) == pytest.approx(p, rel=1e-4)


people = st.integers(1, 40)


@settings(max_examples=300, deadline=None)
@given(people, people, st.data())
def test_chance_is_that_of_whole_numbers(
    first_people: int, second_people: int, data: st.DataObject
) -> None:
    first = data.draw(st.integers(0, first_people))
    second = data.draw(st.integers(0, second_people))
    done = first + second
    ways = {
        count: comb(first_people, count) * comb(second_people, done - count)
        for count in range(max(0, done - second_people), min(first_people, done) + 1)
    }
    exact = Fraction(sum(w for w in ways.values() if w <= ways[first]), sum(ways.values()))
    assert fisher_exact(first, first_people, second, second_people) == pytest.approx(float(exact))


def test_large_samples_are_neither_too_rare_nor_too_many_for_a_float() -> None:
    assert fisher_exact(50_000, 250_000, 50_500, 250_000) == pytest.approx(0.0782485, rel=1e-5)
    assert fisher_exact(0, 250_000, 250_000, 250_000) == 0
