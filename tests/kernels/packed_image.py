"""A packed model whose fields tests can change one by one: structs of format.h over a writable copy of its bytes."""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any

import cffi

from klaus_runtime import headers
from klaus_runtime.pack.structs import const


@cache
def _ffi() -> cffi.FFI:
    ffi = cffi.FFI()
    ffi.cdef(headers.declarations("format.h"))
    return ffi


class PackedImage:
    """Views of the structs write through to `data`; `sign` makes the digest fit again."""

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)

    def _view(self, kind: str, offset: int) -> Any:
        ffi = _ffi()
        size = ffi.sizeof(f"struct klaus_{kind}")
        memory = memoryview(self.data)[offset : offset + size]
        return ffi.cast(f"struct klaus_{kind} *", ffi.from_buffer(memory, require_writable=True))

    @property
    def header(self) -> Any:
        return self._view("file_header", 0)

    def sections(self) -> list[Any]:
        """All of them, in the table's order."""
        return [self._view("section", 64 + 32 * index) for index in range(self.header.section_count)]

    def section(self, kind: str, layer: int = -1) -> Any:
        """The first section of a kind and layer."""
        for section in self.sections():
            if section.kind == const(f"SECTION_{kind}") and section.layer == layer:
                return section
        raise AssertionError(f"no section {kind} of layer {layer}")

    @property
    def network(self) -> Any:
        return self._view("network", self.section("NETWORK").offset)

    def layer(self, index: int) -> Any:
        return self._view("layer", self.section("LAYERS").offset + 256 * index)

    def put(self, kind: str, content: bytes, layer: int = -1) -> None:
        """Overwrites a section's first bytes."""
        section = self.section(kind, layer)
        assert len(content) <= section.bytes
        self.data[section.offset : section.offset + len(content)] = content

    def grow(self, kind: str, content: bytes, layer: int = -1) -> None:
        """Gives a section another content of any length, at the end of the file."""
        section = self.section(kind, layer)
        offset = -(-len(self.data) // 64) * 64
        section.offset, section.bytes = offset, len(content)
        self.data = self.data + bytes(offset - len(self.data)) + content
        self.header.file_bytes = len(self.data)

    def add(self, kind: str, content: bytes, layer: int = -1, layout: int = 0, dtype: int = 0) -> None:
        """One more section, at the end of the file; the others move on by one alignment."""
        count, entry, shift = self.header.section_count, 32, const("ALIGNMENT")
        table_end = 64 + entry * count
        self.data = self.data[:table_end] + bytes(shift) + self.data[table_end:]
        for index in range(count):
            self._view("section", 64 + entry * index).offset += shift
        self.header.section_count = count + 1
        added = self._view("section", table_end)
        added.kind, added.layer, added.layout, added.dtype = const(f"SECTION_{kind}"), layer, layout, dtype
        added.offset = -(-len(self.data) // shift) * shift
        added.bytes = len(content)
        self.data = self.data + bytes(added.offset - len(self.data)) + content
        self.header.file_bytes = len(self.data)

    def sign(self) -> PackedImage:
        self.data[32:64] = hashlib.sha256(self.data[64:]).digest()
        return self
