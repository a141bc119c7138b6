"""Watches a reader at work: what it opens, starts, leaves behind, and how long and how much memory it takes.

Python's audit hooks see every file opened and every process, socket or foreign library asked for; one hook is put in
place for good and sleeps outside of `watched`.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MAX_SECONDS = 8.0  # of this process's own time
MAX_GROWTH_BYTES = 512 << 20  # of the peak of resident memory, in one case

_ROOT = Path(__file__).resolve().parent.parent.parent
_READABLE = (
    str(_ROOT),
    sys.prefix,
    sys.base_prefix,
    "/usr/lib",
    "/usr/share",
    "/proc/",
    "/sys/",
    "/dev/null",
    "/etc/localtime",
)
_FORBIDDEN = (
    "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.startfile", "os.kill",
    "subprocess.Popen", "pty.spawn", "socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto",
    "ctypes.dlopen", "ctypes.call_function", "pickle.find_class", "marshal.loads", "code.__new__", "webbrowser.open",
    "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.chown",
    "shutil.copyfile", "shutil.move", "shutil.rmtree", "shutil.unpack_archive", "tempfile.mkstemp", "tempfile.mkdtemp",
    "urllib.Request", "http.client.connect", "ftplib.connect",
)  # fmt: skip


class FindingError(BaseException):
    """The reader did what it must not; no `except Exception` may hide it."""


class _State:
    folder = ""
    active = False


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _State.active:
        return
    if event in _FORBIDDEN:
        _State.active = False
        raise FindingError(f"asked for {event} {arguments!r:.200}")
    if event == "open":
        path, mode, flags = (*arguments, None, None, None)[:3]
        writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        if isinstance(mode, str) and set(mode) & set("wax+"):
            writes = True
        if isinstance(path, bytes):
            path = os.fsdecode(path)
        if not isinstance(path, str):
            return
        inside = os.path.realpath(path).startswith((_State.folder, *_READABLE))
        if writes or not inside:
            _State.active = False
            raise FindingError(f"opened {path!r:.200} ({mode}, {flags})")


_INSTALLED: list[bool] = []


def _late(_signal: int, _frame: object) -> None:
    raise FindingError(f"took more than {MAX_SECONDS:g} s")


@contextmanager
def watched(folder: Path) -> Iterator[None]:
    """Raises FindingError where the block breaks a rule; `folder` is all that it may read, and stays as it is."""
    if not _INSTALLED:
        sys.addaudithook(_hook)
        _INSTALLED.append(True)
    before = _listing(folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.process_time()
    former = signal.signal(signal.SIGVTALRM, _late)
    signal.setitimer(signal.ITIMER_VIRTUAL, MAX_SECONDS)
    _State.folder, _State.active = str(folder.resolve()), True
    try:
        yield
    finally:
        _State.active = False
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, former)
    if time.process_time() - begun > MAX_SECONDS:
        raise FindingError(f"took {time.process_time() - begun:.1f} s")
    growth = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak)
    if growth > MAX_GROWTH_BYTES:
        raise FindingError(f"took {growth:,} bytes more memory than any case before")
    if _listing(folder) != before:
        raise FindingError(f"left {sorted(_listing(folder))} behind, where {sorted(before)} stood")


def _listing(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(folder)): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in folder.rglob("*")
    }
