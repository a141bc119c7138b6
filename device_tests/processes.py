"""Processes that another one started, so that nothing outlives a job that was ended by force. Linux; elsewhere none."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import suppress
from functools import cache
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


@cache
def leash() -> tuple[str, ...]:
    """Words before a command that make the kernel kill it once the thread that started it is gone, kill -9 included.

    Empty where setpriv of util-linux 2.33 or later is not there, as on macOS.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return ()
    words = (setpriv, "--pdeathsig", "KILL", "--")
    tried = subprocess.run([*words, "true"], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return words if tried.returncode == 0 else ()


def _children(pid: int) -> list[int]:
    children: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError, ValueError):
            children += [int(word) for word in task.read_text().split()]
    return children
