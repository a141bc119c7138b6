"""Processes that another one started, so that nothing outlives a job that was ended by force. Linux; elsewhere none."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path


def descendants(pid: int) -> list[int]:
    """Children, their children and so on, as the kernel lists them now; also those in sessions of their own."""
    found: list[int] = []
    waiting = [pid]
    while waiting:
        for child in _children(waiting.pop()):
            if child not in found:
                found.append(child)
                waiting.append(child)
    return found


def end_all(pids: list[int]) -> None:
    """SIGKILL for those that are still there."""
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def _children(pid: int) -> list[int]:
    children: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError, ValueError):
            children += [int(word) for word in task.read_text().split()]
    return children
