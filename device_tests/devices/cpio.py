"""Writes initramfs archives (cpio, format newc), the same bytes for the same entries.

Source of the format: the Linux kernel's Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """One file, folder, link or device node; everything belongs to root and is as old as 1970."""

    mode: int  # type and permissions, as in stat.st_mode
    data: bytes = b""  # a file's contents or a link's target
    device: tuple[int, int] = (0, 0)  # major and minor number of a node


def folder(permissions: int = 0o755) -> Entry:
    """A folder."""
    return Entry(stat.S_IFDIR | permissions)


def file(data: bytes, permissions: int = 0o644) -> Entry:
    """A file."""
    return Entry(stat.S_IFREG | permissions, data)


def link(target: str) -> Entry:
    """A symbolic link."""
    return Entry(stat.S_IFLNK | 0o777, target.encode())


def character_device(major: int, minor: int, permissions: int = 0o600) -> Entry:
    """A character device's node."""
    return Entry(stat.S_IFCHR | permissions, device=(major, minor))


def archive(entries: Mapping[str, Entry]) -> bytes:
    """The entries by path ("etc/passwd"), sorted, and the folders above them; padded: archives can be joined."""
    tree = {path: folder() for path in _parents(entries)} | dict(entries)
    out = bytearray()
    for number, path in enumerate(sorted(tree), start=1):
        _append(out, number, path, tree[path])
    _append(out, 0, "TRAILER!!!", Entry(0))
    return bytes(out.ljust(-(-len(out) // 512) * 512, b"\0"))


def _parents(paths: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for path in paths:
        if path.startswith("/") or ".." in path.split("/"):
            raise ValueError(f"archive paths are relative and plain, not {path!r}")
        parts = path.split("/")
        found.update("/".join(parts[:i]) for i in range(1, len(parts)))
    return found


def _append(out: bytearray, number: int, path: str, entry: Entry) -> None:
    name = path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    # ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
    fields = (number, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, *entry.device, len(name), 0)
    out += b"070701" + b"".join(b"%08X" % field for field in fields) + name
    out += bytes(-len(out) % 4)
    out += entry.data
    out += bytes(-len(out) % 4)
