"""The NEON kernels on this computer's CPU by SIMDe, under AddressSanitizer and UndefinedBehaviorSanitizer.

qemu shows what kernels compute; here every access to memory, shift and cast is watched as well. That reaches the files
*_neon.c, which armv7 shares: *_neon64.c and those of later instruction sets hold assembly of aarch64.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path, PurePosixPath

import numpy as np
import pytest

from tests.kernels.conftest import Klaus, runner
from tests.kernels.library import FLAGS, LIBRARIES
from toolchains import commands, detect
from toolchains.detect import Missing
from toolchains.target import load_targets

HERE = Path(__file__).parent
SANITIZERS = ("-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all")
HEADER = Path("/usr/include/simde/arm/neon.h")
pytestmark = pytest.mark.slow


def sanitizing_compiler(folder: Path) -> list[str]:
    """A compiler whose programs find errors of memory; skips where there is none."""
    clang = detect.clang()
    known = [] if isinstance(clang, Missing) else [list(clang.argv)]
    probe = folder / "probe.c"
    probe.write_text("int main(void) { return 0; }\n")
    for compiler in [*known, list(detect.toolchain_for(load_targets()["host"]).compiler)]:
        argv = [*compiler, *SANITIZERS, str(probe), "-o", str(folder / "probe")]
        if subprocess.run(argv, check=False, capture_output=True).returncode == 0:
            return compiler
    pytest.skip("no compiler here has AddressSanitizer; Debian: libclang-rt-19-dev")


@pytest.fixture(scope="module")
def watched(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Klaus:
    """klaus-run of this computer with the NEON kernels, every access watched."""
    if not HEADER.is_file():
        pytest.skip(f"no {HEADER}; Debian: libsimde-dev")
    folder = tmp_path_factory.mktemp("simde")
    compiler = sanitizing_compiler(folder)
    simde = HERE / "simde"
    flags = [*FLAGS, *SANITIZERS, "-Wall", "-Wextra", "-Werror", "-isystem", str(simde)]
    sources = [
        path
        for path in sorted((root / "kernels").rglob("*.c"))
        if not (found := commands.classify(PurePosixPath(path))).arm64_only
        and found.platform in ("", "linux")
        and path.name not in ("cpu_linux.c", "dispatch.c")
    ]
    assert any(path.stem.endswith("_neon") for path in sources)
    dispatch, program = folder / "dispatch.o", folder / "klaus-run"
    # Only the list of kernels asks whether there is NEON; SIMDe would take the word for a real one.
    listed = [*compiler, *flags, "-D__ARM_NEON", "-c", "kernels/dispatch.c", "-o", str(dispatch)]
    linked = [*compiler, *flags, *map(str, sources), str(simde / "cpu_simde.c"), str(dispatch), "-o", str(program)]
    for argv in (listed, [*linked, *LIBRARIES]):
        done = subprocess.run(argv, cwd=root, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-4000:]
    return runner([program])


def test_every_kernel_of_both_arms_passes_its_check_watched(watched: Klaus, root: Path) -> None:
    lines = re.findall(r"^KLAUS_KERNEL\((\w+), \w+, \w+, neon, arm, ", (root / "kernels/kernels.def").read_text(), re.M)
    said = watched("check", "--isa", "neon")
    assert sorted(record["variant"] for record in said.of("check")) == sorted(lines)
    assert said.one("summary") == {"record": "summary", "passed": len(lines), "failed": 0}


@pytest.mark.parametrize("name", ["every_op", "softmax", "tiny32", "tiny16", "a-depth8-index", "b-depth4-index"])
@pytest.mark.parametrize(("threads", "memory"), [(1, "default"), (3, "default"), (3, "lean")])
def test_whole_networks_watched(
    watched: Klaus, klaus: Klaus, models: dict[str, Path], tmp_path: Path, name: str, threads: int, memory: str
) -> None:
    """What the checker's single calls do not show: kernels on the engine's own memory, one after the other."""
    logits = []
    for number, program in enumerate((watched, klaus)):
        out = tmp_path / f"{number}.f32"
        options = ("--threads", threads, "--memory", memory, "--logits", out)
        program("bench", "--model", models[name], "--runs", 1, *options)
        logits.append(np.fromfile(out, "<f4"))
    np.testing.assert_allclose(logits[0], logits[1], rtol=0, atol=2e-5 * float(np.abs(logits[1]).max()))
    plan = watched("info", "--plan", "--model", models[name]).of("step")
    assert any(step["isa"] == "neon" for step in plan)


@pytest.mark.parametrize("memory", ["default", "lean"])
def test_ten_patches_watched(watched: Klaus, models: dict[str, Path], memory: str) -> None:
    watched("bench", "--model", models["scanned"], "--runs", 1, "--patches", 10, "--memory", memory)
