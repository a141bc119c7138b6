"""Signs a Mach-O file ad hoc, as jailbroken iPhones and their dyld ask for: hashes without a certificate.

The bytes follow the public header <kern/cs_blobs.h> of Apple's xnu: a SuperBlob holding a CodeDirectory (version
0x20400, SHA-256 of every 4096-byte page), empty requirements and, where entitlements are given, their property list
and its DER form. All numbers in it are big-endian.
"""

from __future__ import annotations

import hashlib
import plistlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from toolchains import macho
from toolchains.errors import InputError

Entitlement = bool | int | str | list["Entitlement"] | dict[str, "Entitlement"]

SUPER_BLOB, CODE_DIRECTORY, REQUIREMENTS = 0xFADE0CC0, 0xFADE0C02, 0xFADE0C01
ENTITLEMENTS_XML, ENTITLEMENTS_DER = 0xFADE7171, 0xFADE7172
SLOT_DIRECTORY, SLOT_REQUIREMENTS, SLOT_XML, SLOT_DER = 0, 2, 5, 7
VERSION = 0x20400
FLAG_AD_HOC = 2
SHA256 = 2
PAGE_BITS = 12
PAGE = 1 << PAGE_BITS
MAIN_BINARY = 1
SEGMENT_PAGE = 0x4000
_DIRECTORY = struct.Struct(">IIIIIIIIIBBBBIIIIQQQQ")
# What the kernel reads in the directory itself, beside the entitlements.
_EXECUTABLE_FLAGS = {
    "get-task-allow": 0x10,
    "run-unsigned-code": 0x10,
    "com.apple.private.cs.debugger": 0x20,
    "dynamic-codesigning": 0x40,
    "com.apple.private.skip-library-validation": 0x80,
    "com.apple.private.amfi.can-load-cdhash": 0x100,
    "com.apple.private.amfi.can-execute-cdhash": 0x200,
}


@dataclass(frozen=True, slots=True)
class CodeDirectory:
    """What a signature's directory says."""

    identifier: str
    version: int
    flags: int
    code_limit: int  # bytes of the file that are hashed
    page_bytes: int
    executable_flags: int
    special_hashes: Mapping[int, bytes]  # by slot; absent ones left out
    page_hashes: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Signature:
    """A parsed signature: its blobs by slot, headers included."""

    blobs: Mapping[int, bytes]
    directory: CodeDirectory


def _blob(magic: int, body: bytes) -> bytes:
    return struct.pack(">II", magic, 8 + len(body)) + body


def _tlv(tag: int, body: bytes) -> bytes:
    """Tag, length, value of DER."""
    size = len(body)
    if size < 128:
        return bytes((tag, size)) + body
    digits = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(digits))) + digits + body


def _der(value: Entitlement) -> bytes:
    if isinstance(value, bool):
        return _tlv(0x01, b"\xff" if value else b"\0")
    if isinstance(value, int):
        return _tlv(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))
    if isinstance(value, str):
        return _tlv(0x0C, value.encode())
    if isinstance(value, list):
        return _tlv(0x30, b"".join(map(_der, value)))
    if isinstance(value, dict):
        return _tlv(0xB0, b"".join(_tlv(0x30, _der(key) + _der(value[key])) for key in sorted(value)))
    raise InputError(f"entitlements hold a {type(value).__name__}; known are bool, int, str, list and dict")


def der_entitlements(entitlements: Mapping[str, Entitlement]) -> bytes:
    """The DER form of entitlements: version 1, then the dictionary with sorted keys, under application tag 16."""
    return _tlv(0x70, _der(1) + _der(dict(entitlements)))


def _directory(code: bytes, identifier: str, special: Mapping[int, bytes], executable: tuple[int, int, int]) -> bytes:
    """The CodeDirectory blob over `code`; `special` are the other blobs by slot."""
    name = identifier.encode() + b"\0"
    highest = max(special)
    name_at = _DIRECTORY.size
    hashes_at = name_at + len(name) + 32 * highest
    pages = [code[at : at + PAGE] for at in range(0, len(code), PAGE)]
    slots = [hashlib.sha256(special[i]).digest() if i in special else bytes(32) for i in range(highest, 0, -1)]
    body = name + b"".join(slots) + b"".join(hashlib.sha256(page).digest() for page in pages)
    head = _DIRECTORY.pack(
        CODE_DIRECTORY,
        _DIRECTORY.size + len(body),
        VERSION,
        FLAG_AD_HOC,
        hashes_at,
        name_at,
        highest,
        len(pages),
        len(code),
        32,
        SHA256,
        0,
        PAGE_BITS,
        0,  # spare
        0,  # scatter
        0,  # team
        0,  # spare
        0,  # 64-bit limit, for files beyond 4 GB
        *executable,
    )
    return head + body


def _super_blob(blobs: Mapping[int, bytes]) -> bytes:
    at = 12 + 8 * len(blobs)
    index = b""
    for slot in sorted(blobs):
        index += struct.pack(">II", slot, at)
        at += len(blobs[slot])
    return _blob(SUPER_BLOB, struct.pack(">I", len(blobs)) + index + b"".join(blobs[slot] for slot in sorted(blobs)))


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def sign(data: bytes, identifier: str, entitlements: Mapping[str, Entitlement] | None = None) -> bytes:
    """The file with an ad-hoc signature in the place of any it had.

    identifier: name that the signature carries, without NUL. entitlements: rights to claim, or None.
    Raises InputError where `data` is no Mach-O file, or its header has no room for one more load command.
    """
    if not identifier or "\0" in identifier:
        raise InputError(f"signing: {identifier!r} is no identifier; give the program's name")
    image = macho.parse(data)
    text, link = image.segment("__TEXT"), image.segment("__LINKEDIT")
    signed = bytearray(data)
    if image.signature is not None and image.signature_command is not None:
        start, command = image.signature.offset, image.signature_command
        if start + image.signature.size != len(data):
            raise InputError("signing: something stands behind the present signature; link the file again")
    else:
        start, command = _round_up(len(data), 16), image.commands_end
        first = min((s.offset for seg in image.segments for s in seg.sections if s.offset), default=len(data))
        if first - command < 16:
            raise InputError("signing: no room for a load command; link with -headerpad 0x1000")
        struct.pack_into("<II", signed, 16, image.command_count + 1, image.commands_end + 16 - macho.HEADER_BYTES)
        struct.pack_into("<II", signed, command, macho.LC_CODE_SIGNATURE, 16)
    if link.offset + link.file_size != len(data):
        raise InputError("signing: __LINKEDIT is not the end of the file; link the file again")
    signed = signed[:start].ljust(start, b"\0")

    program = image.file_type == macho.EXECUTE
    executable_flags = MAIN_BINARY if program else 0
    blobs = {SLOT_REQUIREMENTS: _blob(REQUIREMENTS, struct.pack(">I", 0))}
    if entitlements is not None:
        blobs[SLOT_XML] = _blob(ENTITLEMENTS_XML, plistlib.dumps(dict(entitlements)))
        if program:
            blobs[SLOT_DER] = _blob(ENTITLEMENTS_DER, der_entitlements(entitlements))
            for key, flag in _EXECUTABLE_FLAGS.items():
                executable_flags |= flag if entitlements.get(key) is True else 0

    def signature() -> bytes:
        executable = (text.offset, text.file_size, executable_flags)
        return _super_blob({SLOT_DIRECTORY: _directory(bytes(signed), identifier, blobs, executable), **blobs})

    size = _round_up(len(signature()), 16)  # its size does not depend on the hashes, only its bytes do
    struct.pack_into("<II", signed, command + 8, start, size)
    link_size = start + size - link.offset
    struct.pack_into("<Q", signed, link.command_offset + 32, _round_up(link_size, SEGMENT_PAGE))
    struct.pack_into("<Q", signed, link.command_offset + 48, link_size)
    return bytes(signed) + signature().ljust(size, b"\0")


def read_signature(image: macho.MachO) -> Signature:
    """Parses the signature of a file; raises InputError where it has none or a malformed one."""
    if image.signature is None:
        raise InputError("signature: the file is not signed; build it again")
    data = image.data[image.signature.offset : image.signature.offset + image.signature.size]
    try:
        magic, length, count = struct.unpack_from(">III", data)
        if magic != SUPER_BLOB or length > len(data) or 12 + 8 * count > length:
            raise InputError(f"signature: no SuperBlob (magic {magic:#x}, {length} of {len(data)} bytes)")
        blobs: dict[int, bytes] = {}
        for slot, at in struct.iter_unpack(">II", data[12 : 12 + 8 * count]):
            (size,) = struct.unpack_from(">I", data, at + 4)
            if slot in blobs or size < 8 or at + size > length:
                raise InputError(f"signature: slot {slot:#x} stands twice or reaches beyond the signature")
            blobs[slot] = data[at : at + size]
        return Signature(blobs, _read_directory(blobs[SLOT_DIRECTORY]))
    except (struct.error, KeyError) as error:
        raise InputError(f"signature: cut off or without a CodeDirectory ({error})") from error


def _read_directory(blob: bytes) -> CodeDirectory:
    fields = _DIRECTORY.unpack_from(blob)
    magic, _, version, flags, hashes_at, name_at, special, pages, limit = fields[:9]
    hash_bytes, kind, _, page_bits = fields[9:13]
    if magic != CODE_DIRECTORY or version < VERSION or hash_bytes != 32 or kind != SHA256:
        raise InputError(f"signature: CodeDirectory {version:#x} with hashes of kind {kind}; SHA-256 is expected")
    if hashes_at + 32 * pages > len(blob) or 32 * special > hashes_at or name_at >= len(blob):
        raise InputError("signature: the CodeDirectory's hashes reach beyond it")

    def hash_at(index: int) -> bytes:
        return blob[hashes_at + 32 * index : hashes_at + 32 * (index + 1)]

    return CodeDirectory(
        identifier=blob[name_at:].split(b"\0")[0].decode("utf-8", "backslashreplace"),
        version=version,
        flags=flags,
        code_limit=limit,
        page_bytes=1 << page_bits,
        executable_flags=fields[-1],
        special_hashes={i: hash_at(-i) for i in range(1, special + 1) if any(hash_at(-i))},
        page_hashes=tuple(hash_at(i) for i in range(pages)),
    )


def check_signature(image: macho.MachO) -> Signature:
    """Recomputes every hash of a file's signature; raises InputError naming the first that is wrong."""
    signature = read_signature(image)
    directory = signature.directory
    if image.signature is None or directory.code_limit != image.signature.offset:
        raise InputError("signature: it does not cover the file up to itself; sign again")
    page = directory.page_bytes
    if len(directory.page_hashes) != -(-directory.code_limit // page):
        raise InputError("signature: it has the wrong number of page hashes; sign again")
    for index, expected in enumerate(directory.page_hashes):
        piece = image.data[index * page : min((index + 1) * page, directory.code_limit)]
        if hashlib.sha256(piece).digest() != expected:
            raise InputError(f"signature: page {index} was changed after signing; sign again")
    for slot, blob in signature.blobs.items():
        if slot != SLOT_DIRECTORY and directory.special_hashes.get(slot) != hashlib.sha256(blob).digest():
            raise InputError(f"signature: the blob in slot {slot} does not match its hash; sign again")
    return signature
