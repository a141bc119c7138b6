"""Command lines as data: nothing is run here, and no compiler is needed."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from toolchains import commands
from toolchains.commands import Step, classify
from toolchains.target import Target, Toolchain, load_targets

TARGETS = load_targets()
OUT = Path("/out")
ZIG64 = Toolchain("zig", "zig", "1", "linux", "aarch64", ("/z/zig", "cc"), ("/z/zig", "ar"))
ZIG32 = Toolchain("zig", "zig", "1", "linux", "armv7", ("/z/zig", "cc"), ("/z/zig", "ar"))
LLD = Toolchain("lld", "clang", "19", "apple", "aarch64", ("/b/clang",), ("/b/llvm-ar",), ("/b/ld64.lld",), "/z/darwin")
XCODE = Toolchain("xcode", "xcode", "17", "apple", "aarch64", ("xcrun", "clang"), ("xcrun", "libtool"))
GCC = Toolchain("gcc", "gcc", "12", "linux", "x86_64", ("/usr/bin/cc",), ("/usr/bin/ar",))
MAC = Toolchain("clang", "clang", "17", "apple", "aarch64", ("/usr/bin/cc",), ("/usr/bin/ar",))
SOURCES = [
    PurePosixPath(f"kernels/{name}.c")
    for name in (
        "dispatch",
        "engine/plan",
        "ops/dot/dot_ref",
        "ops/dot/dot_neon",
        "ops/dot/dot_neon64",
        "ops/dot/dot_neon_fp16",
        "ops/dot/dot_neon_dotprod",
        "ops/dot/dot_neon_i8mm",
        "os/os_linux",
        "os/os_apple",
        "os/cpu_linux",
        "os/cpu_apple",
        "program/main",
    )
]
CASES = {
    "linux-aarch64": (TARGETS["linux-aarch64"], ZIG64),
    "linux-armv7": (TARGETS["linux-armv7"], ZIG32),
    "ios": (TARGETS["ios"], LLD),
    "ios on a Mac": (TARGETS["ios"], XCODE),
    "host": (TARGETS["host"], GCC),
    "a Mac": (TARGETS["host"], MAC),
}


def compiled(target: Target, toolchain: Toolchain) -> dict[str, Step]:
    """Compilations of the static part by the source's stem."""
    steps = commands.plan(target, toolchain, SOURCES, OUT).compilations
    return {PurePosixPath(step.inputs[0]).stem: step for step in steps if step.output.parent.name == "objects"}


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("linux-aarch64", "dot_neon dot_neon64 dot_neon_dotprod dot_neon_fp16 dot_neon_i8mm os_linux cpu_linux"),
        ("linux-armv7", "dot_neon os_linux cpu_linux"),
        ("ios", "dot_neon dot_neon64 dot_neon_dotprod dot_neon_fp16 dot_neon_i8mm os_apple cpu_apple"),
        ("host", "os_linux cpu_linux"),
        ("a Mac", "dot_neon dot_neon64 dot_neon_dotprod dot_neon_fp16 dot_neon_i8mm os_apple cpu_apple"),
    ],
)
def test_the_name_decides_where_a_file_is_compiled(case: str, expected: str) -> None:
    found = set(compiled(*CASES[case])) - {"dispatch", "plan", "dot_ref", "main"}
    assert found == set(expected.split())


def test_only_neon_files_may_fuse() -> None:
    for case in CASES.values():
        for stem, step in compiled(*case).items():
            assert ("-ffp-contract=off" in step.argv) != ("neon" in stem), stem


@pytest.mark.parametrize(
    ("case", "stem", "flag"),
    [
        ("linux-aarch64", "plan", "-mcpu=generic+fix_cortex_a53_835769"),
        ("linux-aarch64", "dot_neon", "-mcpu=generic+fix_cortex_a53_835769"),
        ("linux-aarch64", "dot_neon_fp16", "-mcpu=generic+v8_2a+fullfp16"),
        ("linux-aarch64", "dot_neon_i8mm", "-mcpu=generic+v8_2a+i8mm"),
        ("linux-armv7", "dot_neon", "-mcpu=cortex_a7"),
        ("ios", "dot_neon", "-mcpu=apple-a7"),
        ("ios", "dot_neon_dotprod", "-mcpu=apple-a13"),
        ("a Mac", "dot_neon_fp16", "-march=armv8.2-a+fp16"),
    ],
)
def test_cpu_flags(case: str, stem: str, flag: str) -> None:
    argv = compiled(*CASES[case])[stem].argv
    assert flag in argv
    assert sum(word.startswith(("-mcpu", "-march")) for word in argv) == 1


def test_zig_without_a_cpu_never_means_this_one() -> None:
    zig_host = Toolchain("zig", "zig", "1", "linux", "aarch64", ("zig", "cc"), ("zig", "ar"))
    steps = compiled(TARGETS["host"], zig_host)
    assert "-mcpu=baseline" in steps["plan"].argv
    assert "-mcpu=generic+v8_2a+dotprod" in steps["dot_neon_dotprod"].argv


def test_every_compilation_is_strict_and_finds_its_headers() -> None:
    for case in CASES.values():
        for step in compiled(*case).values():
            wanted = {"-std=c11", "-O3", "-g0", "-Wall", "-Wextra", "-Werror", "-fvisibility=hidden", "-fPIC"}
            assert wanted <= set(step.argv)
            assert {"-Ikernels/include", "-Ikernels", "-MMD"} <= set(step.argv)
            assert not Path(step.inputs[0]).is_absolute()
    assert compiled(*CASES["ios"])["plan"].argv.count("/z/darwin") == 1
    assert "-Xclang" in compiled(*CASES["linux-aarch64"])["plan"].argv


def test_one_fixed_cpu_at_every_link() -> None:
    """Otherwise zig would compile a musl for each."""
    for name in ("linux-aarch64", "linux-armv7"):
        target, toolchain = CASES[name]
        plan = commands.plan(target, toolchain, SOURCES, OUT)
        for step in (plan.program, plan.shared):
            assert [word for word in step.argv if word.startswith("-mcpu")] == [f"-mcpu={target.cpu}"]
        assert "-static" in plan.program.argv
        assert "-static" not in plan.shared.argv


def test_the_shared_library_is_for_the_boards_own_libc() -> None:
    plan = commands.plan(*CASES["linux-aarch64"], SOURCES, OUT)
    assert "aarch64-linux-gnu.2.28" in plan.shared.argv
    assert "aarch64-linux-musl" in plan.program.argv
    shared = [step for step in plan.compilations if step.output.parent.name == "objects-shared"]
    assert all("aarch64-linux-gnu.2.28" in step.argv for step in shared)
    assert not any("program" in str(step.output) for step in shared)
    assert "-Wl,-soname,libklaus.so" in plan.shared.argv


def test_apple_links() -> None:
    plan = commands.plan(*CASES["ios"], SOURCES, OUT)
    assert plan.program.argv[:7] == ("/b/ld64.lld", "-arch", "arm64", "-platform_version", "ios", "12.0", "12.0")
    assert plan.shared.output.name == "libklaus.dylib"
    assert "@rpath/libklaus.dylib" in plan.shared.argv
    assert (plan.program.sign_as, plan.shared.sign_as, plan.archive.sign_as) == ("klaus-run", "libklaus.dylib", "")
    on_mac = commands.plan(*CASES["ios on a Mac"], SOURCES, OUT)
    assert on_mac.program.argv[:2] == ("xcrun", "clang")
    assert on_mac.archive.argv[:5] == ("xcrun", "libtool", "-static", "-D", "-o")
    assert on_mac.program.sign_as == "klaus-run"


def test_the_program_stays_out_of_the_library() -> None:
    plan = commands.plan(*CASES["host"], SOURCES, OUT)
    program = OUT / "objects" / "program.main.o"
    assert program in plan.program.inputs
    assert program not in plan.archive.inputs
    assert program not in plan.shared.inputs
    assert plan.archive.output in plan.program.inputs


def test_object_names_are_unique() -> None:
    same = [PurePosixPath("kernels/a/x.c"), PurePosixPath("kernels/b/x.c")]
    plan = commands.plan(*CASES["host"], same, OUT)
    assert len({step.output.name for step in plan.compilations}) == 2


def test_symbolic_toolchains_have_no_paths() -> None:
    for target, toolchain in CASES.values():
        source = classify(SOURCES[0])
        flags = commands.source_flags(target, toolchain.symbolic(), source)
        words = [*toolchain.symbolic().compiler, *toolchain.symbolic().archiver, *flags]
        assert not [word for word in words if word.startswith("/")]
