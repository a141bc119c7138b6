"""Real builds of the small project: the same bytes everywhere, and never more work than the change asks for."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.toolchains.conftest import PROJECT
from toolchains import commands, detect
from toolchains.build import Build, build, read_depfile
from toolchains.errors import BuildError, InputError, SetupError
from toolchains.manifest import read_manifest, sha256_of
from toolchains.target import load_targets

RUNNERS = {
    "host": [],
    "linux-aarch64": ["qemu-aarch64", "-cpu", "cortex-a53"],
    "linux-armv7": ["qemu-arm", "-cpu", "cortex-a7"],
}


def runner(target: str) -> list[str]:
    """How this computer runs a target's programs; skips where it cannot."""
    if not RUNNERS[target]:
        return []
    program, *words = RUNNERS[target]
    found = shutil.which(program) or shutil.which(f"{program}-static")
    if found is None:
        pytest.skip(f"{program} is not installed; ./inv doctor says how to install it")
    return [found, *words]


def made(root: Path, *names: str, out: Path | None = None) -> list[str]:
    """Builds and returns what was done, without the target's name."""
    steps: list[str] = []
    build(names, root=root, out=out or root / "build", progress=steps.append)
    return sorted(step.split(": ", 1)[1] for step in steps)


@pytest.mark.parametrize(
    "target", ["host", *(pytest.param(name, marks=pytest.mark.slow) for name in ("linux-aarch64", "linux-armv7"))]
)
def test_the_program_runs(target: str, small: Callable[[str], Build]) -> None:
    program = small(target).program
    done = subprocess.run([*runner(target), program, "8"], capture_output=True, text=True, check=False, timeout=60)
    system = "apple" if sys.platform == "darwin" and target == "host" else "linux"
    assert done.stdout == f"{system} 8 204 2.71828175 named\n"
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("target", ["host", "linux-aarch64", "linux-armv7", "ios"])
def test_what_a_build_leaves(target: str, small: Callable[[str], Build]) -> None:
    built = small(target)
    assert built.program == built.folder / "klaus-run"
    assert built.library == built.folder / "libklaus.a"
    manifest = read_manifest(built.manifest)
    assert manifest.target == target
    assert set(manifest.files) == {"klaus-run", "libklaus.a", built.shared.name}
    for name, entry in manifest.files.items():
        assert sha256_of(built.folder / name) == entry.sha256
        assert (built.folder / name).stat().st_size == entry.bytes
    assert manifest.compiler_version
    assert "-O3" in manifest.flags["common"]
    assert str(ROOT) not in built.manifest.read_text()
    entries = json.loads(built.compile_commands.read_text())
    assert {"directory", "file", "arguments", "output"} <= set(entries[0])
    assert all((Path(entry["directory"]) / entry["file"]).is_file() for entry in entries)
    assert not list(built.folder.rglob(".new-*"))


@pytest.mark.parametrize("target", ["host", "linux-aarch64", "linux-armv7", "ios"])
def test_two_builds_are_byte_identical(target: str, small: Callable[[str], Build], project: Path) -> None:
    one = small(target)
    (other,) = build([target], root=project, out=project / "elsewhere")
    for path in (one.program, one.library, one.shared, one.manifest):
        assert path.read_bytes() == (other.folder / path.name).read_bytes(), path.name


def test_only_the_public_functions_are_visible(small: Callable[[str], Build]) -> None:
    nm = shutil.which("llvm-nm-19") or shutil.which("llvm-nm") or shutil.which("nm")
    if nm is None:
        pytest.skip("no nm here")
    for target in ("host", "linux-aarch64"):
        argv = [nm, "-D", "--defined-only", str(small(target).shared)]
        lines = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
        assert [line.split()[-1] for line in lines if line] == ["klaus_dot", "klaus_system"]


def test_a_build_does_only_what_changed(project: Path) -> None:
    everything = made(project, "host")
    assert len(everything) == 7
    assert made(project, "host") == []

    source = project / "kernels" / "klaus.c"
    source.touch()
    assert made(project, "host") == []
    text = source.read_text()
    source.write_text(text.replace("position-independent", "relocatable"))  # a comment: the same object
    assert made(project, "host") == ["kernels/klaus.c"]
    source.write_text(text.replace("return os_name()", 'return os_name()[0] ? os_name() : ""'))
    assert made(project, "host") == ["kernels/klaus.c", "klaus-run", "libklaus.a", "libklaus.so"]

    header = project / "kernels" / "program" / "squares.h"
    header.write_text(header.read_text().replace("1.0f", "2.0f"))
    assert made(project, "host") == ["kernels/program/main.c", "klaus-run"]

    (project / "build" / "host" / "libklaus.so").write_bytes(b"damaged")
    assert made(project, "host") == ["libklaus.so"]
    (project / "build" / "host" / "objects" / "klaus.o").unlink()
    assert made(project, "host") == ["kernels/klaus.c"]
    (project / "build" / "host" / "objects" / "klaus.json").write_text("[1]")
    assert made(project, "host") == ["kernels/klaus.c"]


def test_sources_come_and_go(project: Path) -> None:
    made(project, "host")
    extra = project / "kernels" / "extra.c"
    extra.write_text("int extra(void);\nint extra(void) {\n    return 1;\n}\n")
    assert made(project, "host") == ["kernels/extra.c", "klaus-run", "libklaus.a", "libklaus.so"]
    before = (project / "build" / "host" / "libklaus.a").read_bytes()
    extra.unlink()
    assert made(project, "host") == ["klaus-run", "libklaus.a", "libklaus.so"]
    assert not (project / "build" / "host" / "objects" / "extra.o").exists()
    assert b"extra" in before
    assert b"extra" not in (project / "build" / "host" / "libklaus.a").read_bytes()


def test_an_error_is_the_compilers_own_and_leaves_the_old_build(project: Path) -> None:
    made(project, "host")
    before = (project / "build" / "host" / "klaus-run").read_bytes()
    source = project / "kernels" / "klaus.c"
    text = source.read_text()
    source.write_text(text + "int unused(int a) {\n    return b;\n}\n")
    with pytest.raises(BuildError, match=r"host: kernels/klaus\.c: .* failed \(exit code 1\):\n(?s:.*)'b'") as caught:
        build(["host"], root=project, out=project / "build")
    assert caught.value.exit_code == 1
    assert (project / "build" / "host" / "klaus-run").read_bytes() == before
    assert not list((project / "build").rglob(".new-*"))
    source.write_text(text)
    assert made(project, "host") == []


def test_an_undefined_function_stops_the_shared_library(project: Path) -> None:
    source = project / "kernels" / "klaus.c"
    source.write_text(source.read_text().replace("return os_name()", "extern const char *gone(void); return gone()"))
    with pytest.raises(BuildError, match="gone"):
        build(["host"], root=project, out=project / "build")


def test_a_dry_run_prints_commands_and_does_nothing(project: Path) -> None:
    lines: list[str] = []
    (planned,) = build(["host"], root=project, out=project / "build", dry_run=True, say=lines.append)
    assert len(lines) == 7
    assert not (project / "build").exists()
    assert planned.program == project / "build" / "host" / "klaus-run"
    # each line is a command that a shell takes as it stands, spaces in paths included
    for folder in ("objects",):
        (project / "build" / "host" / folder).mkdir(parents=True)
    subprocess.run(["sh", "-ec", "\n".join(lines)], cwd=project, check=True, timeout=120)
    assert planned.program.is_file()


def test_without_names_all_that_can_be_built(project: Path) -> None:
    lines: list[str] = []
    builds = build([], root=project, out=project / "build", dry_run=True, say=lines.append)
    assert [b.target.name for b in builds] == [t.name for t in load_targets().values() if detect.buildable(t)]


def test_wrong_asking_is_answered(project: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no target 'android'"):
        build(["android"], root=project, out=project / "build")
    with pytest.raises(InputError, match="incomplete"):
        build(["host"], root=tmp_path / "nothing", out=tmp_path)


def test_a_missing_compiler_names_the_command(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    detect.clang.cache_clear()
    try:
        with pytest.raises(SetupError, match=r"target ios cannot be built here: clang: .*Mend it with: ") as caught:
            build(["host", "ios"], root=project, out=project / "build")
        assert caught.value.exit_code == 3
        assert not (project / "build").exists()
        assert not detect.buildable(load_targets()["ios"])
    finally:
        detect.clang.cache_clear()


def test_a_computer_without_cc_builds_by_zig(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    detect.host_compiler.cache_clear()
    try:
        (built,) = build(["host"], root=project, out=project / "build")
    finally:
        detect.host_compiler.cache_clear()
    assert read_manifest(built.manifest).compiler == "zig"
    done = subprocess.run([built.program, "4"], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.returncode) == ("linux 4 30 2.71828175 named\n", 1)


def test_a_users_program_links_with_the_library(small: Callable[[str], Build], tmp_path: Path) -> None:
    source = tmp_path / "user.c"
    source.write_text(
        '#include <stdio.h>\n#include "klaus/klaus.h"\nint main(void) { puts(klaus_system()); return 0; }\n'
    )
    for target in ("host", "linux-aarch64"):
        built = small(target)
        toolchain = detect.toolchain_for(built.target)
        program = tmp_path / target
        include = PROJECT / "kernels" / "include"
        argv = commands.example_command(built.target, toolchain, source, include, built.library, program)
        subprocess.run(argv, check=True, timeout=300)
        done = subprocess.run([*runner(target), program], capture_output=True, text=True, check=True, timeout=60)
        assert done.stdout in ("linux\n", "apple\n")


def test_depfiles_with_spaces_and_other_peoples_headers(tmp_path: Path) -> None:
    (tmp_path / "kernels").mkdir()
    rule = tmp_path / "x.d"
    rule.write_text("a/x.o: kernels/x.c \\\n  kernels/../kernels/my\\ own.h \\\n /usr/include/stdio.h\n")
    assert read_depfile(rule, tmp_path) == ["kernels/my own.h", "kernels/x.c"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 99, "files": {}}', '{"schema": 1, "files": {"a": {}}}'])
def test_malformed_manifests_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(text)
    with pytest.raises(InputError, match="build again"):
        read_manifest(path)
    with pytest.raises(InputError, match="build again"):
        read_manifest(tmp_path / "none.json")
