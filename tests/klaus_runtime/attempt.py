"""Trying hostile input: the result, or the one-line message of the InputError; any other exception fails the test."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from klaus_runtime.errors import InputError

T = TypeVar("T")


def attempt(action: Callable[[], T]) -> tuple[T | None, str]:
    """(result, "") or (None, message)."""
    try:
        return action(), ""
    except InputError as error:
        message = str(error)
    assert message
    assert message.isprintable()
    return None, message
