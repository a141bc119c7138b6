"""The instruction counter: every class of its decoder by what a real assembler makes, and real programs under it."""

from __future__ import annotations

import ctypes
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from device_tests.devices import Device, counting
from device_tests.devices.counting import CLASSES, COLUMNS, Counts, compile_shared, read_marks
from device_tests.devices.qemu_user import QemuUserDevice
from device_tests.errors import DeviceError, InventoryError, SetupError

# class -> instructions; `: N` behind one is the bytes of memory that it touches.
SNIPPETS = {
    "fmla32": """
        fmla v0.4s, v1.4s, v2.4s
        fmls v0.2s, v1.2s, v2.2s
        fmla v31.4s, v30.4s, v29.s[3]
        fmls v0.2s, v1.2s, v2.s[0]""",
    "fmla16": """
        fmla v0.8h, v1.8h, v2.8h
        fmls v0.4h, v1.4h, v2.4h
        fmla v0.8h, v1.8h, v15.h[7]
        fmls v0.4h, v1.4h, v2.h[0]""",
    "fmlal": """
        fmlal v0.4s, v1.4h, v2.4h
        fmlsl v0.2s, v1.2h, v2.2h
        fmlal2 v0.4s, v1.4h, v2.4h
        fmlsl2 v0.4s, v1.4h, v2.4h
        fmlal v0.4s, v1.4h, v2.h[7]
        fmlsl v0.4s, v1.4h, v2.h[0]
        fmlal2 v0.4s, v1.4h, v2.h[3]
        fmlsl2 v0.4s, v1.4h, v2.h[3]
        bfmlalb v0.4s, v1.8h, v2.8h
        bfmlalt v0.4s, v1.8h, v2.8h
        bfmlalb v0.4s, v1.8h, v2.h[5]
        bfmlalt v0.4s, v1.8h, v2.h[0]""",
    "fmadd": """
        fmadd s0, s1, s2, s3
        fmsub d0, d1, d2, d3
        fnmadd h0, h1, h2, h3
        fnmsub s0, s1, s2, s3
        fmla s0, s1, v2.s[3]
        fmls d0, d1, v2.d[1]
        fmla h0, h1, v2.h[7]""",
    "dot": """
        sdot v0.4s, v1.16b, v2.16b
        udot v0.2s, v1.8b, v2.8b
        usdot v0.4s, v1.16b, v2.16b
        bfdot v0.4s, v1.8h, v2.8h
        sdot v0.4s, v1.16b, v2.4b[3]
        udot v0.4s, v1.16b, v2.4b[0]
        usdot v0.4s, v1.16b, v2.4b[2]
        sudot v0.4s, v1.16b, v2.4b[1]
        bfdot v0.4s, v1.8h, v2.2h[3]""",
    "mmla": """
        smmla v0.4s, v1.16b, v2.16b
        ummla v0.4s, v1.16b, v2.16b
        usmmla v0.4s, v1.16b, v2.16b
        bfmmla v0.4s, v1.8h, v2.8h""",
    "imac": """
        mla v0.4s, v1.4s, v2.4s
        mls v0.16b, v1.16b, v2.16b
        mla v0.8h, v1.8h, v2.h[7]
        mls v0.4s, v1.4s, v2.s[1]
        smlal v0.8h, v1.8b, v2.8b
        smlal2 v0.8h, v1.16b, v2.16b
        umlal v0.4s, v1.4h, v2.4h
        smlsl v0.2d, v1.2s, v2.2s
        umlsl2 v0.8h, v1.16b, v2.16b
        smull v0.8h, v1.8b, v2.8b
        umull2 v0.4s, v1.8h, v2.8h
        sqdmlal v0.4s, v1.4h, v2.4h
        sqdmlsl2 v0.4s, v1.8h, v2.8h
        sqdmull v0.4s, v1.4h, v2.4h
        smlal v0.4s, v1.4h, v2.h[7]
        umlsl2 v0.4s, v1.8h, v2.h[0]
        smull v0.4s, v1.4h, v2.h[3]
        umull v0.4s, v1.4h, v2.h[3]
        sqdmlal v0.4s, v1.4h, v2.h[3]
        sqdmlsl v0.4s, v1.4h, v2.h[3]
        sqdmull v0.4s, v1.4h, v2.h[3]
        sqrdmlah v0.4s, v1.4s, v2.4s
        sqrdmlsh v0.8h, v1.8h, v2.8h
        sqrdmlah v0.4s, v1.4s, v2.s[2]
        sqrdmlsh v0.8h, v1.8h, v2.h[2]""",
    "vector": """
        fmla v0.2d, v1.2d, v2.2d
        fmla v0.2d, v1.2d, v2.d[1]
        fadd v0.4s, v1.4s, v2.4s
        fsub v0.8h, v1.8h, v2.8h
        fmul v0.4s, v1.4s, v2.4s
        fmul v0.4s, v1.4s, v2.s[3]
        fmulx v0.4s, v1.4s, v2.s[3]
        fcmla v0.4s, v1.4s, v2.4s, #90
        fcmla v0.4s, v1.4s, v2.s[1], #270
        fmax v0.4s, v1.4s, v2.4s
        fmin v0.8h, v1.8h, v2.8h
        fmaxnm v0.2s, v1.2s, v2.2s
        fmaxv s0, v1.4s
        faddp v0.4s, v1.4s, v2.4s
        fcmgt v0.4s, v1.4s, #0.0
        fabs v0.4s, v1.4s
        fneg v0.8h, v1.8h
        frecpe v0.4s, v1.4s
        frsqrts v0.4s, v1.4s, v2.4s
        fcvtn v0.4h, v1.4s
        fcvtl2 v0.4s, v1.8h
        scvtf v0.4s, v1.4s
        fcvtas v0.4s, v1.4s
        frintm v0.4s, v1.4s
        add v0.4s, v1.4s, v2.4s
        mul v0.8h, v1.8h, v2.8h
        mul v0.8h, v1.8h, v2.h[3]
        sqrdmulh v0.4s, v1.4s, v2.4s
        sqdmulh v0.4s, v1.4s, v2.s[1]
        pmull v0.8h, v1.8b, v2.8b
        smax v0.16b, v1.16b, v2.16b
        sadalp v0.4s, v1.8h
        saddw v0.4s, v1.4s, v2.4h
        addp v0.4s, v1.4s, v2.4s
        addv b0, v1.16b
        and v0.16b, v1.16b, v2.16b
        orr v0.16b, v1.16b, v1.16b
        bsl v0.16b, v1.16b, v2.16b
        shl v0.4s, v1.4s, #3
        ushr v0.16b, v1.16b, #4
        sqshrn v0.8b, v1.8h, #4
        sshll v0.8h, v1.8b, #0
        srshl v0.4s, v1.4s, v2.4s
        xtn v0.4h, v1.4s
        sqxtun2 v0.16b, v1.8h
        cmeq v0.4s, v1.4s, #0
        cnt v0.16b, v1.16b
        aese v0.16b, v1.16b""",
    "permute": """
        tbl v0.16b, {v1.16b}, v2.16b
        tbl v0.8b, {v1.16b, v2.16b, v3.16b, v4.16b}, v5.8b
        tbx v0.16b, {v1.16b, v2.16b}, v3.16b
        zip1 v0.4s, v1.4s, v2.4s
        zip2 v0.16b, v1.16b, v2.16b
        uzp1 v0.8h, v1.8h, v2.8h
        trn2 v0.2d, v1.2d, v2.2d
        ext v0.16b, v1.16b, v2.16b, #4
        ext v0.8b, v1.8b, v2.8b, #7
        dup v0.4s, v1.s[2]
        dup v0.4s, w1
        dup s0, v1.s[3]
        ins v0.s[1], v1.s[2]
        ins v0.d[1], x1
        umov w0, v1.b[3]
        smov x0, v1.h[3]
        movi v0.4s, #0
        mvni v0.4s, #1
        fmov v0.4s, #1.0
        rev64 v0.4s, v1.4s
        rev32 v0.8h, v1.8h
        rev16 v0.16b, v1.16b""",
    "scalar": """
        fadd s0, s1, s2
        fmul d0, d1, d2
        fdiv s0, s1, s2
        fsqrt s0, s1
        fcmp s0, s1
        fcsel s0, s1, s2, eq
        fcvt d0, s1
        fmov s0, #1.0
        fmov w0, s1
        fmov d0, x1
        scvtf s0, w1
        fcvtzs x0, d1
        scvtf s0, s1
        fabd s0, s1, s2""",
    "vload": """
        ldr q0, [x1] : 16
        ldr d0, [x1, #8] : 8
        ldr s0, [x1], #4 : 4
        ldr h0, [x1, x2] : 2
        ldr b0, [x1, #1]! : 1
        ldur q0, [x1, #-3] : 16
        ldp q0, q1, [x2], #32 : 32
        ldp d0, d1, [x2, #16]! : 16
        ldnp s0, s1, [x2] : 8
        ld1 {v0.4s}, [x1] : 16
        ld1 {v0.8b, v1.8b}, [x1], #16 : 16
        ld1 {v0.4s, v1.4s, v2.4s}, [x1] : 48
        ld1 {v0.4s, v1.4s, v2.4s, v3.4s}, [x1], x2 : 64
        ld2 {v0.4s, v1.4s}, [x1] : 32
        ld3 {v0.8b, v1.8b, v2.8b}, [x1] : 24
        ld4 {v0.16b, v1.16b, v2.16b, v3.16b}, [x1], #64 : 64
        ld1 {v0.s}[1], [x1] : 4
        ld1 {v0.b}[7], [x1], #1 : 1
        ld1 {v0.h}[7], [x1] : 2
        ld1 {v0.d}[1], [x1], x2 : 8
        ld2 {v0.s, v1.s}[3], [x1] : 8
        ld3 {v0.h, v1.h, v2.h}[3], [x1] : 6
        ld4 {v0.d, v1.d, v2.d, v3.d}[1], [x1] : 32
        ld1r {v0.4s}, [x1] : 4
        ld1r {v0.8h}, [x1], #2 : 2
        ld2r {v0.2d, v1.2d}, [x1] : 16
        ld4r {v0.4s, v1.4s, v2.4s, v3.4s}, [x1] : 16
        ldr q0, . : 16
        ldr s0, . : 4""",
    "vstore": """
        str q0, [x1, #16] : 16
        str d0, [x1], #8 : 8
        stur s0, [x1, #-4] : 4
        str b0, [x1, x2] : 1
        stp q0, q1, [x2, #-32]! : 32
        stp s0, s1, [x2] : 8
        st1 {v0.4s, v1.4s}, [x1], #32 : 32
        st1 {v0.s}[2], [x1] : 4
        st3 {v0.4s, v1.4s, v2.4s}, [x1] : 48
        st4 {v0.b, v1.b, v2.b, v3.b}[1], [x1] : 4""",
    "gload": """
        ldr x0, [x1] : 8
        ldr w0, [x1, x2, lsl #2] : 4
        ldrb w0, [x1], #1 : 1
        ldrh w0, [x1, #2]! : 2
        ldrsw x0, [x1] : 4
        ldrsb w0, [x1] : 1
        ldur x0, [x1, #-8] : 8
        ldp x0, x1, [x2] : 16
        ldp w0, w1, [x2], #8 : 8
        ldpsw x0, x1, [x2] : 8
        ldr x0, . : 8
        ldr w0, . : 4
        ldxr x0, [x1] : 8
        ldaxr w0, [x1] : 4
        ldar x0, [x1] : 8
        ldxp x0, x1, [x2] : 16
        ldadd x0, x1, [x2] : 8
        swpal w0, w1, [x2] : 4
        ldapur w0, [x1, #4] : 4
        ldraa x0, [x1] : 8""",
    "gstore": """
        str x0, [x1] : 8
        strb w0, [x1, x2] : 1
        strh w0, [x1], #2 : 2
        stur w0, [x1, #-4] : 4
        stp x0, x1, [sp, #-16]! : 16
        stp w0, w1, [x2] : 8
        stxr w3, x0, [x1] : 8
        stlr x0, [x1] : 8
        stlur x0, [x1, #8] : 8
        stxp w3, x0, x1, [x2] : 16""",
    "prefetch": """
        prfm pldl1keep, [x0, #64]
        prfm pldl2strm, [x0, x1]
        prfum pldl1keep, [x0, #-3]
        prfm pldl1keep, .""",
    "branch": """
        b .
        bl .
        b.ne .
        cbz x0, .
        cbnz w0, .
        tbz x0, #3, .
        tbnz x0, #40, .
        br x0
        blr x0
        ret""",
    "alu": """
        add x0, x1, #4
        sub w0, w1, w2
        subs x0, x0, #1
        madd x0, x1, x2, x3
        smull x0, w1, w2
        udiv x0, x1, x2
        and x0, x1, #15
        orr x0, x1, x2
        lsl x0, x1, #3
        ubfx x0, x1, #3, #4
        csel x0, x1, x2, ne
        cmp x0, x1
        mov x0, #1
        movk x0, #2, lsl #16
        adr x0, .
        adrp x0, .
        clz x0, x1
        rev x0, x1
        ccmp x0, x1, #0, ne
        extr x0, x1, x2, #4""",
    "sve": """
        ptrue p0.s
        fmla z0.s, p0/m, z1.s, z2.s
        add z0.d, z1.d, z2.d
        whilelt p0.s, x0, x1
        cntw x0""",
    "other": """
        nop
        svc #0
        mrs x0, midr_el1
        dmb ish
        isb
        brk #1""",
}


def _lines(snippets: str) -> list[tuple[str, int]]:
    parted = [line.strip().partition(" : ") for line in snippets.strip().splitlines()]
    return [(text, int(size or 0)) for text, _, size in parted]


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], tuple[str, int]]:
    """klaus_decode of a library made of decode.c alone, and its names."""
    path = tmp_path_factory.mktemp("decoder") / "decode.so"
    shim = path.with_name("shim.c")
    shim.write_text(
        '#include "decode.h"\n'
        '#define SHOWN __attribute__((visibility("default")))\n'
        "SHOWN const char *name(uint32_t w); SHOWN uint32_t bytes(uint32_t w);\n"
        "const char *name(uint32_t w) { return klaus_class_names[klaus_decode(w).class]; }\n"
        "uint32_t bytes(uint32_t w) { return klaus_decode(w).bytes; }\n"
    )
    for name in ("decode.c", "decode.h"):
        path.with_name(name).write_bytes((counting.SOURCE / name).read_bytes())
    compile_shared([path.with_name("decode.c"), shim], path)
    library = ctypes.CDLL(str(path))
    library.name.restype = ctypes.c_char_p
    library.name.argtypes = library.bytes.argtypes = (ctypes.c_uint32,)
    return lambda word: (library.name(word).decode(), library.bytes(word))


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[int]]:
    """The snippets as the assembler of zig's clang makes them."""
    folder = tmp_path_factory.mktemp("words")
    source, made = folder / "all.s", folder / "all.o"
    text = ".arch armv8.6-a+fp16+fp16fml+i8mm+bf16+sve+aes+lse+rcpc+pauth\n"
    source.write_text(text + "".join(f"{line}\n" for one in SNIPPETS.values() for line, _ in _lines(one)))
    argv = [sys.executable, "-m", "ziglang", "cc", "-target", "aarch64-linux-musl", "-c", str(source), "-o", str(made)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    code = _text_section(made.read_bytes())
    every = list(struct.unpack(f"<{len(code) // 4}I", code))
    found = {}
    for name, snippets in SNIPPETS.items():
        count = len(_lines(snippets))
        found[name], every = every[:count], every[count:]
    assert not every
    return found


def _text_section(elf: bytes) -> bytes:
    """The bytes of .text, of a little-endian ELF64 object."""
    (table,) = struct.unpack_from("<Q", elf, 0x28)
    size, count, names = struct.unpack_from("<HHH", elf, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", elf, table + i * size) for i in range(count)]
    strings = headers[names][4]
    for name, _, _, _, offset, length in headers:
        if elf[strings + name :].startswith(b".text\0"):
            return elf[offset : offset + length]
    raise AssertionError("no .text")


def test_every_class_has_snippets() -> None:
    assert set(SNIPPETS) == set(CLASSES)


@pytest.mark.parametrize("name", SNIPPETS)
def test_instructions_fall_into_their_class(
    name: str, words: dict[str, list[int]], decoder: Callable[[int], tuple[str, int]]
) -> None:
    found = [(line, *decoder(word)) for (line, _), word in zip(_lines(SNIPPETS[name]), words[name], strict=True)]
    assert found == [(line, name, size) for line, size in _lines(SNIPPETS[name])]


@pytest.mark.parametrize("word", [0, 0xFFFFFFFF, 0x0E000000, 0x04000000, 0x12345678, 0x80000000])
def test_any_word_has_a_class(word: int, decoder: Callable[[int], tuple[str, int]]) -> None:
    name, size = decoder(word)
    assert name in CLASSES
    assert 0 <= size <= 64


def test_sums_of_counts() -> None:
    of = dict.fromkeys(COLUMNS, 0) | {"fmla32": 10, "vload": 4, "prefetch": 3, "alu": 5, "accesses": 8, "permute": 1}
    one = Counts(of)
    assert (one.instructions, one.vector_arithmetic, one.multiply_adds, one.slots) == (20, 11, 10, 11)
    assert Counts.total([one, one, Counts.none()]).slots == 22
    assert Counts(of | {"accesses": 30}).slots == 30
    assert Counts(of | {"alu": 40}).slots == 27


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "columns"),
        ("tag\tfmla32\n", "columns"),
        ("\t".join(("tag", *COLUMNS)) + "\n", "end"),
        ("\t".join(("tag", *COLUMNS)) + "\n10\t1\nexit\n", "no line of counts"),
        ("\t".join(("tag", *COLUMNS)) + "\n-1" + "\t0" * len(COLUMNS) + "\n", "no mark"),
        ("\t".join(("tag", *COLUMNS)) + "\n10" + "\t0" * len(COLUMNS) + "\n", "end"),
        ("\t".join(("tag", *COLUMNS)) + "\n10" + "\t-1" * len(COLUMNS) + "\n", "no line of counts"),
    ],
)
def test_broken_counts_are_refused(text: str, named: str, tmp_path: Path) -> None:
    path = tmp_path / "instructions.tsv"
    path.write_text(text)
    with pytest.raises(DeviceError, match=named):
        read_marks(path)


def test_absent_counts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="no instruction counts"):
        read_marks(tmp_path / "none.tsv")


@pytest.fixture
def counter(make: Callable[..., Device]) -> QemuUserDevice:
    """A qemu-user device that counts; skips where this computer's qemu cannot."""
    if counting.why_not():
        pytest.skip(counting.why_not())
    device = make("qemu-user", count=True, cpu="cortex-a53")
    assert isinstance(device, QemuUserDevice)
    return device


def test_a_program_is_counted_to_the_instruction(counter: QemuUserDevice, probe: Path) -> None:
    remote = counter.root / "probe"
    counter.put(probe, remote, executable=True, timeout_s=10)
    counted = []
    for _ in range(2):
        done = counter.run([str(remote), "args", "x"], timeout_s=60)
        assert (done.exit_status, done.stdout) == (0, b"x\n")
        counted.append(counter.marks())
    assert counted[0] == counted[1]
    assert [mark.tag for mark in counted[0]] == [None]
    assert 1000 < counted[0][0].counts.instructions < 1_000_000


def test_exit_status_comes_through(counter: QemuUserDevice, probe: Path) -> None:
    remote = counter.root / "probe"
    counter.put(probe, remote, executable=True, timeout_s=10)
    assert counter.run([str(remote), "exit", "5"], timeout_s=60).exit_status == 5


def test_describe_shows_the_whole_command(counter: QemuUserDevice) -> None:
    line = counter.describe(["/x", "bench"])
    assert line.startswith("setarch -R ")
    assert "-seed 1 -plugin " in line
    assert line.endswith(" /x bench")


def test_32_bit_programs_are_not_counted(make: Callable[..., Device]) -> None:
    with pytest.raises(InventoryError, match="linux-aarch64 alone"):
        make("qemu-user", "linux-armv7", count=True)


def test_without_the_right_emulator_it_says_so(make: Callable[..., Device], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "find_emulator", lambda: None)
    with pytest.raises(SetupError, match="apt-get install qemu-user"):
        make("qemu-user", count=True)
