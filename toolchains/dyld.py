"""What the loader does with a Mach-O file: rebases, imports and exports, as dyld's compressed information has them.

Facts are those of the public header <mach-o/loader.h>. Everything is checked to lie in the file and in the memory it
describes, and every list ends; what is malformed raises InputError. Addresses are before any slide.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from toolchains.errors import InputError
from toolchains.macho import Cursor, MachO, Span


@dataclass(frozen=True, slots=True)
class Bind:
    """A pointer that the loader fills with the address of an imported symbol."""

    address: int
    symbol: str
    addend: int
    lazy: bool


def rebases(image: MachO) -> Iterator[int]:
    """Addresses of pointers into the file itself, which move with the slide."""
    _refuse_chained(image)
    yield from _rebase_addresses(image)


def binds(image: MachO) -> Iterator[Bind]:
    """Pointers to imported symbols, lazy ones included."""
    _refuse_chained(image)
    yield from _binds(image, image.bind, lazy=False)
    yield from _binds(image, image.lazy_bind, lazy=True)


def exports(image: MachO) -> dict[str, int]:
    """Exported symbols and their addresses."""
    return dict(_exported(image))


def _refuse_chained(image: MachO) -> None:
    if image.chained_fixups:
        raise InputError("Mach-O: has chained fixups, which are not read here; link for iOS 12 or 13")


def _address(image: MachO, segment: int, offset: int, what: str) -> int:
    """The address of a pointer, checked to lie inside its segment."""
    if segment >= len(image.segments) or offset + 8 > image.segments[segment].size:
        raise InputError(f"Mach-O: {what} points to byte {offset} of segment {segment}, which does not hold it")
    return image.segments[segment].address + offset


def _rebase_addresses(image: MachO) -> Iterator[int]:
    cursor = Cursor(image.data, image.rebase, "the list of rebases")
    segment, offset = len(image.segments), 0
    most = sum(s.size for s in image.segments) // 8
    seen = 0
    while cursor.at < cursor.end:
        byte = cursor.byte()
        opcode, low = byte & 0xF0, byte & 0x0F
        count, skip = 0, 0
        if opcode == 0x00:
            return
        if opcode == 0x10:
            if low != 1:
                raise InputError(f"Mach-O: rebase of kind {low}; only pointers are known")
        elif opcode == 0x20:
            segment, offset = low, cursor.number()
        elif opcode == 0x30:
            offset += cursor.number()
        elif opcode == 0x40:
            offset += 8 * low
        elif opcode == 0x50:
            count = low
        elif opcode == 0x60:
            count = cursor.number()
        elif opcode == 0x70:
            count, skip = 1, cursor.number()
        elif opcode == 0x80:
            count, skip = cursor.number(), cursor.number()
        else:
            raise InputError(f"Mach-O: unknown rebase opcode {byte:#x}")
        seen += count
        if seen > most:
            raise InputError(f"Mach-O: more than {most} rebases, which is more than the file holds pointers")
        for _ in range(count):
            yield _address(image, segment, offset, "a rebase")
            offset = (offset + 8 + skip) % (1 << 64)


def _binds(image: MachO, span: Span, *, lazy: bool) -> Iterator[Bind]:
    cursor = Cursor(image.data, span, "the list of imports")
    segment, offset, addend, symbol = len(image.segments), 0, 0, ""
    most = sum(s.size for s in image.segments) // 8
    seen = 0
    while cursor.at < cursor.end:
        byte = cursor.byte()
        opcode, low = byte & 0xF0, byte & 0x0F
        count, skip = 0, 0
        if opcode == 0x00:
            if not lazy:  # in the lazy list it only ends one entry
                return
        elif opcode in (0x10, 0x30):  # which library: ordinal or special
            pass
        elif opcode == 0x20:
            cursor.number()
        elif opcode == 0x40:
            symbol = cursor.text()
        elif opcode == 0x50:
            if low != 1:
                raise InputError(f"Mach-O: import of kind {low}; only pointers are known")
        elif opcode == 0x60:
            addend = cursor.signed()
        elif opcode == 0x70:
            segment, offset = low, cursor.number()
        elif opcode == 0x80:
            offset = (offset + cursor.number()) % (1 << 64)
        elif opcode == 0x90:
            count = 1
        elif opcode == 0xA0:
            count, skip = 1, cursor.number()
        elif opcode == 0xB0:
            count, skip = 1, 8 * low
        elif opcode == 0xC0:
            count, skip = cursor.number(), cursor.number()
        else:
            raise InputError(f"Mach-O: unknown import opcode {byte:#x}")
        seen += count
        if seen > most:
            raise InputError(f"Mach-O: more than {most} imports, which is more than the file holds pointers")
        for _ in range(count):
            yield Bind(_address(image, segment, offset, f"import {symbol}"), symbol, addend, lazy)
            offset = (offset + 8 + skip) % (1 << 64)


def _exported(image: MachO) -> Iterator[tuple[str, int]]:
    """Walks the export trie; each node is visited once, so that a loop in it ends in an error."""
    if image.export.size == 0:
        return
    base = image.segment("__TEXT").address
    seen: set[int] = set()
    waiting = [(0, "")]
    while waiting:
        node, prefix = waiting.pop()
        if node in seen or node >= image.export.size:
            raise InputError("Mach-O: the list of exports loops or leaves itself")
        seen.add(node)
        here = Span(image.export.offset + node, image.export.size - node)
        cursor = Cursor(image.data, here, "the list of exports")
        terminal = cursor.number()
        if terminal:
            start = cursor.at
            flags = cursor.number()
            if not flags & 0x08:  # a re-export has no address here
                yield prefix, base + cursor.number()
            cursor.at = start + terminal
        for _ in range(cursor.byte()):
            edge = cursor.text()
            waiting.append((cursor.number(), prefix + edge))
