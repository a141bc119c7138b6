"""The comparisons that the exactness claim rests on notice what they must."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.klaus_runtime.golden import assert_ranks, difference, worst_difference

GOOD = np.array([[[1.0, -4.0], [0.0, 2.0]]], np.float32)
RANKS = [(1, 0.6), (0, 0.3), (2, 0.1)]


def _changed(value: float) -> np.ndarray:
    other = GOOD.copy()
    other[0, 1, 0] = value
    return other


def test_a_difference_is_a_part_of_the_largest_value() -> None:
    assert difference(GOOD, GOOD) == 0
    assert difference(_changed(1.0), GOOD) == 0.25
    assert worst_difference(iter([GOOD, _changed(-2.0), GOOD]), iter([GOOD] * 3)) == 0.5


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("swap", [False, True], ids=["got", "wanted"])
def test_what_is_no_number_fails(value: float, swap: bool) -> None:
    pair = (GOOD, _changed(value)) if swap else (_changed(value), GOOD)
    with pytest.raises(AssertionError, match="infinite or not a number"):
        difference(*pair)
    with pytest.raises(AssertionError, match="infinite or not a number"):
        worst_difference([GOOD, pair[0], GOOD], [GOOD, pair[1], GOOD])


@pytest.mark.parametrize(
    "compare",
    [
        lambda: difference(GOOD[:, :1], GOOD),
        lambda: difference(GOOD, np.zeros_like(GOOD)),
    ],
    ids=["another size", "nothing but zeros"],
)
def test_what_cannot_be_compared_fails(compare: Callable[[], float]) -> None:
    with pytest.raises(AssertionError):
        compare()


@pytest.mark.parametrize("counts", [(1, 2), (2, 1), (0, 1)])
def test_missing_and_surplus_layers_fail(counts: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="zip"):
        worst_difference(iter([GOOD] * counts[0]), iter([GOOD] * counts[1]))


def test_ranks() -> None:
    good = np.array([0.3, 0.6, 0.1], np.float32)
    assert_ranks(good, RANKS, first=2)
    assert_ranks(good * np.float32(1 + 1e-5), RANKS, first=2)
    for id_, value in ((0, np.nan), (1, np.inf), (2, 0.1001), (1, 0.2)):
        bad = good.copy()
        bad[id_] = value
        with pytest.raises(AssertionError):
            assert_ranks(bad, RANKS, first=2)
