"""Statistical significance of two shares: confidence intervals, and Fisher's exact test."""

from collections.abc import Iterator
from itertools import chain
from math import exp, fsum, sqrt
from statistics import NormalDist
from typing import Final

#: The weights of tables that are as probable as the observed one differ in their last digits.
_EQUAL: Final = 1 + 1e-7


def wilson_interval(count: int, people: int, confidence: float) -> tuple[float, float]:
    """The score interval of the share ``count / people``, from 0 to 1.

    E. B. Wilson, Journal of the American Statistical Association 22 (1927). ``people`` is at
    least 1, ``confidence`` lies between 0 and 1.
    """
    z = _quantile(confidence)
    share = count / people
    middle = (share + z * z / (2 * people)) / (1 + z * z / people)
    half = z * sqrt(share * (1 - share) / people + (z / (2 * people)) ** 2) / (1 + z * z / people)
    low = 0.0 if count == 0 else min(share, middle - half)
    high = 1.0 if count == people else max(share, middle + half)
    return max(0.0, low), min(1.0, high)


def ratio_interval(
    first: int, first_people: int, second: int, second_people: int, confidence: float
) -> tuple[float, float]:
    """The interval of (first / first_people) / (second / second_people), on a logarithmic scale.

    D. Katz and others, Biometrics 34 (1978). ``second`` is at least 1; where ``first`` is 0,
    so is the lower end, and the upper end is infinite.
    """
    ratio = (first / first_people) / (second / second_people)
    if not first:
        return 0.0, float("inf")
    error = sqrt(1 / first - 1 / first_people + 1 / second - 1 / second_people)
    width = exp(_quantile(confidence) * error)
    return ratio / width, ratio * width


def fisher_exact(first: int, first_people: int, second: int, second_people: int) -> float:
    """The two-sided p-value: how often chance makes a difference at least as rare, from 0 to 1.

    R. A. Fisher, The Design of Experiments (1935). It adds up the probabilities of all tables
    with these totals that are no more probable than the observed one.
    """
    done = first + second
    lowest, highest = max(0, done - second_people), min(first_people, done)
    # The weights are relative to the highest one, so that none is too large for a float.
    mode = (first_people + 1) * (done + 1) // (first_people + second_people + 2)
    mode = min(max(mode, lowest), highest)

    def upwards() -> Iterator[tuple[int, float]]:
        weight = 1.0
        for count in range(mode, highest):
            weight *= (first_people - count) * (done - count)
            weight /= (count + 1) * (second_people - done + count + 1)
            yield count + 1, weight

    def downwards() -> Iterator[tuple[int, float]]:
        weight = 1.0
        for count in range(mode, lowest, -1):
            weight *= count * (second_people - done + count)
            weight /= (first_people - count + 1) * (done - count + 1)
            yield count - 1, weight

    weights = dict(chain([(mode, 1.0)], upwards(), downwards()))
    limit = weights[first] * _EQUAL
    rare = fsum(weight for weight in weights.values() if weight <= limit)
    return min(1.0, rare / fsum(weights.values()))


def _quantile(confidence: float) -> float:
    """The standard deviations on each side of the mean that hold this part of a normal curve."""
    return NormalDist().inv_cdf((1 + confidence) / 2)
