"""What the README and the docs say is run: commands exist, links lead somewhere, the C example works."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from device_tests import inventory
from device_tests.devices import debian
from klaus_runtime.pack import pack, read_packed
from klaus_runtime.registry import load_model
from toolchains import detect
from toolchains.target import load_targets

if TYPE_CHECKING:
    from toolchains.build import Build

PAGES = ["README.md", "CHANGELOG.md", "THIRD_PARTY_NOTICES.md"]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def pages(root: Path) -> list[Path]:
    return [*(root / name for name in PAGES), *sorted((root / "docs").rglob("*.md"))]


def test_links_lead_to_files(root: Path) -> None:
    for page in pages(root):
        for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_invoke_commands_of_the_pages_exist(root: Path) -> None:
    """Every `./inv TASK --option` that stands in a block is known to the tasks, its options too."""
    seen = set()
    for page in pages(root):
        for _, block in BLOCK.findall(page.read_text()):
            for line in block.splitlines():
                found = re.match(r"(?:\$ )?(?:\./inv|invoke) (.*?)(?: +#.*)?$", line)
                if found:
                    seen.add(found[1])
    assert seen
    for words in sorted(seen):
        task, *rest = shlex.split(words)
        if task.startswith("-"):
            continue
        shown = subprocess.run(
            [sys.executable, "tasks.py", task, "--help"], cwd=root, capture_output=True, text=True, check=False
        )
        assert shown.returncode == 0, f"./inv {words}: {shown.stderr}"
        for option in rest:
            if option.startswith("--"):
                assert option.split("=")[0] in shown.stdout, f"./inv {words}: no option {option}"


def test_toml_blocks_are_inventories(root: Path, tmp_path: Path) -> None:
    for page in pages(root):
        for kind, block in BLOCK.findall(page.read_text()):
            if kind == "toml":
                file = tmp_path / "devices.toml"
                file.write_text(block)
                assert inventory.load(file, cache=tmp_path, environ={}).devices


def test_shell_blocks_run_as_they_stand(root: Path) -> None:
    """In order, in the project's folder, as after `. .venv/bin/activate`."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    ran = 0
    for page in pages(root):
        for kind, block in BLOCK.findall(page.read_text()):
            if kind == "sh":
                done = subprocess.run(
                    ["sh", "-eu", "-c", block], cwd=root, env=environment, capture_output=True, text=True, check=False
                )
                assert done.returncode == 0, f"{page.name}: {block}{done.stderr}"
                ran += 1
    assert ran
    assert len(list((root / "build" / "docs" / "layers").glob("layer-*.f32"))) == 12


def test_c_excerpts_stand_in_their_files(root: Path) -> None:
    """What a page shows of a source is in it, line by line: a page must not grow old unseen."""
    found = 0
    for page in pages(root):
        for name, excerpt in re.findall(
            r"^`([\w./]+)`:\n\n```c\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL
        ):
            assert excerpt in (root / name).read_text(), f"{page.name}: {name} has no longer:\n{excerpt}"
            found += 1
    assert found


@pytest.fixture(scope="module")
def packed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small golden net as a packed model."""
    source = next(iter(sorted((root / "tests" / "data").rglob("*fp32*.sqlite3"))), None)
    if source is None:
        pytest.skip("no golden net in tests/data")
    return pack(load_model(str(source)), tmp_path_factory.mktemp("example") / "tiny.klaus")


def test_the_c_example_builds_and_runs(root: Path, built: Callable[[str], Build], packed: Path, tmp_path: Path) -> None:
    example = root / "docs" / "examples" / "classify.c"
    assert len(example.read_text().splitlines()) <= 40
    library = built("host").library
    toolchain = detect.toolchain_for(load_targets()["host"])
    program = tmp_path / "classify"
    flags = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-I", str(root / "kernels" / "include")]
    inputs = [str(example), str(library), "-lm", "-lpthread"]
    subprocess.run([*toolchain.compiler, *flags, *inputs, "-o", str(program)], check=True)
    rows, cols, channels = read_packed(packed).input_shape
    tensor = tmp_path / "x.f32"
    np.linspace(-1, 1, rows * cols * channels, dtype=np.float32).tofile(tensor)
    done = subprocess.run([program, packed, tensor], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 5
    short = tmp_path / "short.f32"
    short.write_bytes(b"\0" * 8)
    for arguments in ([], [packed, short], [short, tensor]):
        done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert done.stderr.startswith("classify: ")


def test_the_example_of_the_readme_is_the_file(root: Path) -> None:
    example = (root / "docs" / "examples" / "classify.c").read_text()
    blocks = [block for kind, block in BLOCK.findall((root / "README.md").read_text()) if kind == "c"]
    assert example in blocks


def test_the_readme_has_a_place_for_a_report(root: Path) -> None:
    before, opening, rest = (root / "README.md").read_text().partition("\n<!-- report -->\n")
    _, closing, after = rest.partition("<!-- end of report -->\n")
    assert opening
    assert closing
    assert "report -->" not in before + after


def test_the_cron_line_of_the_readme_runs_in_a_fresh_clone(root: Path, tmp_path: Path) -> None:
    """Its shell opens the log before anything could make its folder."""
    (line,) = re.findall(r"^[\d *]{9,}  (cd .*)$", (root / "README.md").read_text(), re.MULTILINE)
    (tmp_path / "inv").write_text("#!/bin/sh\necho called with $*\n")
    (tmp_path / "inv").chmod(0o755)
    command = line.replace("/path/to/klaus", shlex.quote(str(tmp_path)))
    subprocess.run(["sh", "-c", command], check=True)
    assert (tmp_path / "results" / "nightly.log").read_text() == "called with nightly --yes\n"


def test_the_mirror_variable_is_documented(root: Path) -> None:
    assert f'`{debian.MIRROR_ENV}="http' in (root / "docs" / "devices.md").read_text()


def test_ci_calls_the_test_command_of_the_readme(root: Path) -> None:
    assert "./inv test" in (root / "README.md").read_text()
    script = (root / ".ci" / "run").read_text()
    assert "exec ./inv test" in script
    subprocess.run([shutil.which("bash") or "bash", "-n", ".ci/run"], cwd=root, check=True)
