"""A strict reader of thin 64-bit little-endian Mach-O files: what the signer, the tests and an emulator need.

Facts are those of the public headers <mach-o/loader.h> and <mach-o/nlist.h>. Every offset and size is checked;
anything malformed raises InputError. Addresses are as the file states them, before any slide.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from toolchains.errors import InputError

MAGIC_64 = 0xFEEDFACF
CPU_ARM64 = 0x0100000C
EXECUTE, DYLIB = 2, 6
FLAG_PIE = 0x200000
PLATFORM_IOS = 2
HEADER_BYTES, SEGMENT_BYTES, SECTION_BYTES = 32, 72, 80
MOST_COMMANDS = 4096

LC_SEGMENT_64, LC_LOAD_DYLIB, LC_ID_DYLIB = 0x19, 0xC, 0xD
LC_CODE_SIGNATURE, LC_DYLD_INFO, LC_DYLD_INFO_ONLY = 0x1D, 0x22, 0x80000022
LC_MAIN, LC_BUILD_VERSION, LC_VERSION_MIN_IPHONEOS = 0x80000028, 0x32, 0x25
LC_UUID, LC_LOAD_WEAK_DYLIB, LC_DYLD_CHAINED_FIXUPS, LC_DYLD_EXPORTS_TRIE = 0x1B, 0x80000018, 0x80000034, 0x80000033


@dataclass(frozen=True, slots=True)
class Section:
    """Part of a segment. offset 0: zero-filled, not in the file."""

    segment: str
    name: str
    address: int
    size: int
    offset: int


@dataclass(frozen=True, slots=True)
class Segment:
    """What is mapped as one: `size` bytes at `address`, the first `file_size` of them from `offset` in the file."""

    name: str
    address: int
    size: int
    offset: int
    file_size: int
    protection: int  # initial: 1 read, 2 write, 4 execute
    command_offset: int  # where its load command stands in the file
    sections: tuple[Section, ...]


@dataclass(frozen=True, slots=True)
class Span:
    """A part of the file."""

    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class MachO:
    """A parsed file; `data` is the file itself."""

    data: bytes
    cpu: int
    file_type: int
    flags: int
    command_count: int
    commands_end: int  # offset behind the last load command
    segments: tuple[Segment, ...]
    libraries: tuple[str, ...]
    install_name: str
    entry: int | None  # address of main
    platform: int | None
    minimum_os: str
    uuid: str
    signature: Span | None
    signature_command: int | None  # where LC_CODE_SIGNATURE stands
    rebase: Span
    bind: Span
    lazy_bind: Span
    export: Span
    chained_fixups: bool

    @property
    def is_pie(self) -> bool:
        """Whether the program may be loaded at any address."""
        return bool(self.flags & FLAG_PIE)

    def segment(self, name: str) -> Segment:
        """The segment of that name; raises InputError where there is none."""
        for segment in self.segments:
            if segment.name == name:
                return segment
        raise InputError(f"Mach-O: no segment {name}; found {', '.join(s.name for s in self.segments) or 'none'}")


class Cursor:
    """Reads on within one part of a file; raises InputError at its end, and at once where that part leaves the file."""

    def __init__(self, data: bytes, span: Span, what: str) -> None:
        if span.offset + span.size > len(data):
            raise InputError(f"Mach-O: {what} ends at byte {span.offset + span.size}, the file has {len(data)}")
        self.data, self.at, self.end, self.what = data, span.offset, span.offset + span.size, what

    def byte(self) -> int:
        """The next byte."""
        if self.at >= self.end:
            raise InputError(f"Mach-O: {self.what} is cut off")
        self.at += 1
        return self.data[self.at - 1]

    def number(self) -> int:
        """Unsigned LEB128 of at most 64 bits."""
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if value >= 1 << 64:
                raise InputError(f"Mach-O: {self.what} holds a number of more than 64 bits")
            if not byte & 0x80:
                return value

    def signed(self) -> int:
        """Signed LEB128."""
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if shift > 70:
                raise InputError(f"Mach-O: {self.what} holds a number of more than 64 bits")
            if not byte & 0x80:
                return value - (1 << shift) if byte & 0x40 else value

    def text(self) -> str:
        """A NUL-terminated name."""
        end = self.data.find(b"\0", self.at, self.end)
        if end < 0:
            raise InputError(f"Mach-O: {self.what} holds a name without an end")
        raw, self.at = self.data[self.at : end], end + 1
        return raw.decode("utf-8", "backslashreplace")


def _unpack(form: str, data: bytes, offset: int, what: str) -> tuple[int, ...]:
    if offset < 0 or offset + struct.calcsize(form) > len(data):
        raise InputError(f"Mach-O: {what} is cut off at byte {offset}; the file has {len(data)} bytes")
    return struct.unpack_from(form, data, offset)


def _name(raw: bytes) -> str:
    return raw.split(b"\0")[0].decode("utf-8", "backslashreplace")


def _version(packed: int) -> str:
    return f"{packed >> 16}.{packed >> 8 & 255}" + (f".{packed & 255}" if packed & 255 else "")


def _segment(data: bytes, at: int, size: int) -> Segment:
    address, memory, offset, in_file, _, protection, count, _ = _unpack("<QQQQIIII", data, at + 24, "a segment")
    name = _name(data[at + 8 : at + 24])
    if size != SEGMENT_BYTES + count * SECTION_BYTES:
        raise InputError(f"Mach-O: segment {name!r} claims {count} sections in {size} bytes")
    if offset + in_file > len(data) or in_file > memory or address + memory >= 1 << 64:
        raise InputError(f"Mach-O: segment {name!r} reaches beyond the file or its own memory")
    sections = []
    for index in range(count):
        here = at + SEGMENT_BYTES + index * SECTION_BYTES
        start, length, position = _unpack("<QQI", data, here + 32, "a section")
        if start < address or start + length > address + memory or (position and position + length > len(data)):
            raise InputError(f"Mach-O: section {index} of segment {name!r} reaches beyond it")
        sections.append(Section(name, _name(data[here : here + 16]), start, length, position))
    return Segment(name, address, memory, offset, in_file, protection, at, tuple(sections))


def parse(data: bytes) -> MachO:
    """Reads a whole file; raises InputError where it is no thin arm64 Mach-O or malformed."""
    magic, cpu, _, file_type, count, commands_size, flags, _ = _unpack("<8I", data, 0, "the header")
    if magic != MAGIC_64 or cpu != CPU_ARM64:
        raise InputError(f"Mach-O: expected a thin arm64 file, found magic {magic:#x} and CPU type {cpu:#x}")
    end = HEADER_BYTES + commands_size
    if count > MOST_COMMANDS or end > len(data):
        raise InputError(f"Mach-O: {count} load commands in {commands_size} bytes do not fit {len(data)} bytes")
    segments: list[Segment] = []
    libraries: list[str] = []
    install_name = minimum_os = uuid = ""
    entry_offset = platform = signature_command = None
    signature: Span | None = None
    parts = [Span(0, 0)] * 4  # rebase, bind, lazy bind, export
    chained = False
    at = HEADER_BYTES
    for index in range(count):
        command, size = _unpack("<II", data, at, f"load command {index}")
        if size < 8 or size % 8 or at + size > end:
            raise InputError(f"Mach-O: load command {index} ({command:#x}) has the impossible size {size}")
        body = data[at : at + size]
        if command == LC_SEGMENT_64:
            segments.append(_segment(data, at, size))
        elif command in (LC_LOAD_DYLIB, LC_LOAD_WEAK_DYLIB, LC_ID_DYLIB):
            (start,) = _unpack("<I", body, 8, "a library")
            if command == LC_ID_DYLIB:
                install_name = _name(body[start:])
            else:
                libraries.append(_name(body[start:]))
        elif command == LC_MAIN:
            (entry_offset,) = _unpack("<Q", body, 8, "LC_MAIN")
        elif command == LC_BUILD_VERSION:
            platform, oldest = _unpack("<II", body, 8, "LC_BUILD_VERSION")
            minimum_os = _version(oldest)
        elif command == LC_VERSION_MIN_IPHONEOS:
            (oldest,) = _unpack("<I", body, 8, "LC_VERSION_MIN_IPHONEOS")
            platform, minimum_os = PLATFORM_IOS, _version(oldest)
        elif command == LC_UUID:
            uuid = body[8:24].hex()
        elif command == LC_CODE_SIGNATURE:
            if signature is not None:
                raise InputError("Mach-O: has two code signatures")
            signature, signature_command = Span(*_unpack("<II", body, 8, "LC_CODE_SIGNATURE")), at
        elif command in (LC_DYLD_INFO, LC_DYLD_INFO_ONLY):
            words = _unpack("<10I", body, 8, "LC_DYLD_INFO")
            parts = [Span(*words[i : i + 2]) for i in (0, 2, 6, 8)]
        elif command == LC_DYLD_EXPORTS_TRIE:
            parts[3] = Span(*_unpack("<II", body, 8, "LC_DYLD_EXPORTS_TRIE"))
        elif command == LC_DYLD_CHAINED_FIXUPS:
            chained = True
        at += size
    for span, what in ((s, "dyld information") for s in parts):
        Cursor(data, span, what)  # within the file
    if signature is not None:
        Cursor(data, signature, "the code signature")
    text = next((s for s in segments if s.name == "__TEXT"), None)
    if entry_offset is not None and (text is None or entry_offset >= text.size):
        raise InputError(f"Mach-O: main at offset {entry_offset} lies outside __TEXT")
    return MachO(
        data=data,
        cpu=cpu,
        file_type=file_type,
        flags=flags,
        command_count=count,
        commands_end=at,
        segments=tuple(segments),
        libraries=tuple(libraries),
        install_name=install_name,
        entry=None if entry_offset is None or text is None else text.address + entry_offset,
        platform=platform,
        minimum_os=minimum_os,
        uuid=uuid,
        signature=signature,
        signature_command=signature_command,
        rebase=parts[0],
        bind=parts[1],
        lazy_bind=parts[2],
        export=parts[3],
        chained_fixups=chained,
    )


def read(path: Path) -> MachO:
    """parse() of a file."""
    try:
        return parse(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
