"""The iOS build: Mach-O files of the right kind, correctly signed, and running on an emulated CPU."""

from __future__ import annotations

import hashlib
import plistlib
import random
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from toolchains import dyld, macho, sign
from toolchains.build import Build
from toolchains.commands import STUB
from toolchains.errors import InputError

IOS = "ios"


@pytest.fixture
def program(small: Callable[[str], Build]) -> macho.MachO:
    return macho.read(small(IOS).program)


@pytest.fixture
def library(small: Callable[[str], Build]) -> macho.MachO:
    return macho.read(small(IOS).shared)


def test_the_program_is_for_iphones(program: macho.MachO) -> None:
    assert (program.file_type, program.platform, program.minimum_os) == (macho.EXECUTE, macho.PLATFORM_IOS, "12.0")
    assert program.is_pie
    assert program.entry is not None
    assert program.libraries == ("/usr/lib/libSystem.B.dylib",)
    assert program.segment("__PAGEZERO").protection == 0
    assert program.segment("__TEXT").protection == 5
    assert all(segment.address % 0x4000 == 0 and segment.size % 0x4000 == 0 for segment in program.segments)
    assert list(dyld.rebases(program))
    assert {"_malloc", "_printf", "_clock_gettime"} <= {bind.symbol for bind in dyld.binds(program)}


def test_the_library_shows_its_public_functions_alone(library: macho.MachO) -> None:
    assert library.file_type == macho.DYLIB
    assert library.install_name == "@rpath/libklaus.dylib"
    assert set(dyld.exports(library)) == {"_klaus_dot", "_klaus_system"}


def test_the_archive_is_of_apples_kind(small: Callable[[str], Build]) -> None:
    data = small(IOS).library.read_bytes()
    assert data.startswith(b"!<arch>\n")
    assert b"__.SYMDEF" in data[:200]
    assert struct.pack("<I", macho.MAGIC_64) in data


def test_lief_agrees(program: macho.MachO, tmp_path: Path) -> None:
    lief = pytest.importorskip("lief", reason="the optional package lief is not installed")
    path = tmp_path / "program"
    path.write_bytes(program.data)
    other = lief.MachO.parse(str(path)).at(0)
    assert other.is_pie == program.is_pie
    assert other.main_command.entrypoint + 0x1_0000_0000 == program.entry
    assert other.build_version.platform == lief.MachO.BuildVersion.PLATFORMS.IOS
    assert {(s.name, s.virtual_address, s.virtual_size) for s in other.segments} == {
        (s.name, s.address, s.size) for s in program.segments
    }
    assert {b.symbol.name for b in other.bindings} == {b.symbol for b in dyld.binds(program)}


# the signature


@pytest.mark.parametrize("which", ["program", "library"])
def test_every_hash_of_the_signature(which: str, request: pytest.FixtureRequest) -> None:
    image: macho.MachO = request.getfixturevalue(which)
    directory = sign.check_signature(image).directory
    assert directory.flags == sign.FLAG_AD_HOC
    assert directory.executable_flags == (sign.MAIN_BINARY if which == "program" else 0)
    assert directory.identifier == ("klaus-run" if which == "program" else "libklaus.dylib")
    # once more, by hand: the pages up to the signature
    assert image.signature is not None
    code = image.data[: image.signature.offset]
    pages = [hashlib.sha256(code[at : at + 4096]).digest() for at in range(0, len(code), 4096)]
    assert list(directory.page_hashes) == pages


def test_entitlements(program: macho.MachO) -> None:
    rights: dict[str, sign.Entitlement] = {
        "get-task-allow": True,
        "com.apple.private.skip-library-validation": True,
        "application-identifier": "org.klaus.run",
        "groups": ["a", "b"],
        "limit": 300,
    }
    signed = sign.sign(program.data, "klaus-run", rights)
    signature = sign.check_signature(macho.parse(signed))
    assert plistlib.loads(signature.blobs[sign.SLOT_XML][8:]) == rights
    assert signature.directory.executable_flags == sign.MAIN_BINARY | 0x10 | 0x80
    assert signature.blobs[sign.SLOT_DER][8:] == sign.der_entitlements(rights)
    assert sign.sign(signed, "klaus-run") == program.data  # signing again replaces, and is deterministic


def test_der_by_hand() -> None:
    # [APPLICATION 16] { INTEGER 1, [CONTEXT 16] { SEQUENCE { UTF8String "a", BOOLEAN TRUE } } }
    assert sign.der_entitlements({"a": True}) == bytes.fromhex("700d 020101 b008 3006 0c0161 0101ff")
    long = sign.der_entitlements({"a": "x" * 300})
    assert long[:2] == b"\x70\x82"
    assert struct.unpack(">H", long[2:4])[0] == len(long) - 4
    assert sign.der_entitlements({"n": 128})[-4:] == bytes.fromhex("02020080")
    with pytest.raises(InputError, match="float"):
        sign.der_entitlements({"a": 1.5})  # type: ignore[dict-item]


def test_an_unsigned_file_gets_its_load_command(small: Callable[[str], Build], tmp_path: Path) -> None:
    linker = shutil.which("ld64.lld-19") or shutil.which("ld64.lld")
    if linker is None:
        pytest.skip("no ld64.lld here")
    target = small(IOS)
    unsigned = tmp_path / "unsigned"
    objects = sorted((target.folder / "objects").glob("*.o"))
    argv = [linker, "-arch", "arm64", "-platform_version", "ios", "12.0", "12.0", "-no_adhoc_codesign"]
    subprocess.run([*argv, "-o", str(unsigned), *map(str, objects), str(STUB)], check=True, timeout=60)
    image = macho.read(unsigned)
    assert image.signature is None
    with pytest.raises(InputError, match="not signed"):
        sign.check_signature(image)
    signed = macho.parse(sign.sign(image.data, "x"))
    assert signed.command_count == image.command_count + 1
    sign.check_signature(signed)


def test_a_changed_byte_is_found(program: macho.MachO) -> None:
    assert program.entry is not None
    at = program.entry - program.segment("__TEXT").address
    damaged = bytearray(program.data)
    damaged[at] ^= 1
    with pytest.raises(InputError, match="was changed after signing"):
        sign.check_signature(macho.parse(bytes(damaged)))


def test_bad_identifiers(program: macho.MachO) -> None:
    for name in ("", "a\0b"):
        with pytest.raises(InputError, match="no identifier"):
            sign.sign(program.data, name)


# malformed files


def everything(data: bytes) -> None:
    """Reads all that can be read of a file."""
    image = macho.parse(data)
    for read in (dyld.rebases, dyld.binds, dyld.exports):
        list(read(image))
    sign.check_signature(image)


def test_truncated_files_are_refused(program: macho.MachO) -> None:
    data = program.data
    for size in [*range(200), *range(200, len(data), 997)]:
        with pytest.raises(InputError):
            everything(data[:size])


def test_flipped_bits_end_in_an_answer(program: macho.MachO) -> None:
    """Every flip is refused: by the parser, or because the signature no longer holds."""
    random_bits = random.Random(1)
    start = program.signature.offset if program.signature else 0
    places = [random_bits.randrange(program.commands_end) for _ in range(1500)]
    places += [random_bits.randrange(start) for _ in range(500)]
    for place in places:
        damaged = bytearray(program.data)
        damaged[place] ^= 1 << random_bits.randrange(8)
        with pytest.raises(InputError):
            everything(bytes(damaged))


def test_damaged_dyld_information_ends_in_an_answer(program: macho.MachO) -> None:
    """Without the signature's help: the opcode readers themselves stay inside the file and end."""
    random_bits = random.Random(2)
    for span in (program.rebase, program.bind, program.lazy_bind, program.export):
        for _ in range(300):
            damaged = bytearray(program.data)
            for _ in range(random_bits.randrange(1, 4)):
                damaged[span.offset + random_bits.randrange(span.size)] = random_bits.randrange(256)
            image = macho.parse(bytes(damaged))
            for read in (dyld.rebases, dyld.binds, dyld.exports):
                try:
                    assert sum(1 for _ in read(image)) < 10_000
                except InputError:
                    continue


def test_files_of_other_kinds(tmp_path: Path) -> None:
    for data in (b"", b"\x7fELF" + bytes(60), struct.pack("<8I", macho.MAGIC_64, 7, 3, 2, 0, 0, 0, 0)):
        with pytest.raises(InputError, match="Mach-O"):
            macho.parse(data)
    with pytest.raises(InputError, match="cannot be read"):
        macho.read(tmp_path / "none")
