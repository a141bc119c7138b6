"""What holds for every file of the project: locks, names, contracts, no traces of one machine."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest

LOCKS = {"requirements.txt": ("pyproject.toml", "requirements.in"), "requirements-ios-emulator.txt": ()}
ISAS = ("ref", "neon", "neon_fp16", "neon_dotprod", "neon_i8mm")
# rooms of their own for special cases of another op, whose check and reference cover them
OTHER_OPS_CHECK = {
    "depthwise": "conv",
    "winograd": "conv",
    "full_connect_mapped": "full_connect",
    "pointwise_mapped": "conv",
}
TOP_LEVEL = {
    *(
        "CHANGELOG.md",
        "LICENSE",
        "README.md",
        "THIRD_PARTY_NOTICES.md",
        "devices.example.toml",
        "inv",
        "pyproject.toml",
    ),
    *(
        "requirements-ios-emulator.in",
        "requirements-ios-emulator.txt",
        "requirements.in",
        "requirements.txt",
        "tasks.py",
    ),
    *("device_tests", "docs", "kernels", "klaus_runtime", "reports", "tests", "toolchains"),
    *(".ci", ".clang-format", ".gitignore"),
}
LICENSE_FILES = re.compile(r"(^|/)(LICENSE|NOTICE|THIRD_PARTY)")


def tracked(root: Path, *patterns: str) -> list[str]:
    listed = subprocess.run(["git", "ls-files", *patterns], cwd=root, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("no git checkout")
    return [name for name in listed.stdout.splitlines() if (root / name).is_file()]


def locked(text: str) -> dict[str, list[str]]:
    """Requirement -> its hashes."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in text.splitlines():
        if start := re.match(r"([a-z0-9][a-z0-9._-]*)==(\S+)", line):
            name = start[1]
            found[name] = []
        elif digest := re.match(r"    --hash=(sha256:[0-9a-f]{64})", line):
            found[name].append(digest[1])
        else:
            assert line.startswith("    #") or not line.strip(), f"a line that pins nothing: {line!r}"
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_every_requirement_is_pinned_with_hashes(root: Path, name: str) -> None:
    pins = locked((root / name).read_text())
    assert pins
    assert all(pins.values()), [pin for pin, hashes in pins.items() if not hashes]
    assert "://" not in (root / name).read_text(), "the user's own index holds: no host stands in a lock"


def test_the_lock_holds_everything_pyproject_asks_for(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    pins = locked((root / "requirements.txt").read_text())
    asked = [*project["dependencies"], *project["optional-dependencies"]["dev"], "setuptools"]
    names = [re.split(r"[<>=!~ ;\[]", one)[0].lower().replace("_", "-") for one in asked]
    assert [name for name in names if name not in pins] == []
    emulator = locked((root / "requirements-ios-emulator.txt").read_text())
    assert [one.split("==")[0] for one in project["optional-dependencies"]["ios-emulator"]] == sorted(
        set(emulator) & {"lief", "unicorn"}, reverse=True
    )


def test_everything_imported_is_asked_for(root: Path) -> None:
    """What comes along with another requirement today may be gone with its next version."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    asked = {re.split(r"[<>=!~ ;\[]", one)[0].lower() for one in project["dependencies"]}
    ours = {"tasks", "toolchains", "klaus_runtime", "device_tests", "reports"}
    brings = importlib.metadata.packages_distributions()
    missing = set()
    for name in tracked(root, "tasks.py", "toolchains/*.py", "klaus_runtime/*.py", "device_tests/*.py", "reports/*.py"):
        for node in ast.walk(ast.parse((root / name).read_text())):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [node.module or ""]
            else:
                continue
            tops = {module.partition(".")[0] for module in modules} - sys.stdlib_module_names - ours
            missing |= {(name, top) for top in tops if not asked & {one.lower() for one in brings.get(top, [top])}}
    assert not missing


def test_gpl_packages_are_no_requirement(root: Path) -> None:
    assert "unicorn" not in locked((root / "requirements.txt").read_text())


def test_the_top_level_is_the_house(root: Path) -> None:
    assert {name.split("/")[0] for name in tracked(root)} <= TOP_LEVEL


class Variant(NamedTuple):
    """A line of kernels.def."""

    name: str
    op: str
    dtype: str
    isa: str
    arch: str
    core: str
    tile: str


@pytest.fixture(scope="module")
def variants(root: Path) -> list[Variant]:
    text = (root / "kernels" / "kernels.def").read_text()
    lines = re.findall(r"^KLAUS_KERNEL\(([^)]*)\)", text, re.MULTILINE)
    found = [Variant(*(word.strip() for word in line.split(","))) for line in lines]
    assert found
    return found


def test_variant_names_are_their_columns(variants: list[Variant]) -> None:
    """klaus_<op>_<dtype>_<isa>[_<core>][_<tile>], each column from a closed list."""
    for one in variants:
        words = ["klaus", one.op, one.dtype, one.isa, *(w for w in (one.core, one.tile) if w not in ("any", "none"))]
        assert one.name == "_".join(words)
        assert one.isa in ISAS
        assert one.core in ("any", "inorder", "outoforder")
        assert one.arch in ("any", "arm", "arm64")
        assert re.fullmatch(r"none|\d+x\d+", one.tile)
    assert len({one.name for one in variants}) == len(variants)


def test_each_variant_stands_where_its_name_says(root: Path, variants: list[Variant]) -> None:
    """ops/OP/OP_ISA.c; the type stands before the instruction set where that has kernels of more than one."""
    for one in variants:
        suffix = "neon64" if (one.isa, one.arch) == ("neon", "arm64") else one.isa
        typed = suffix if one.dtype == "f32" else f"{one.dtype}_{suffix}"
        files = [root / "kernels" / "ops" / one.op / f"{one.op}_{words}.c" for words in (suffix, typed)]
        texts = [file.read_text() for file in files if file.is_file()]
        defined = re.compile(rf"^const klaus_variant {one.name} = ", re.MULTILINE)
        assert any(defined.search(text) for text in texts), f"{one.name} stands in none of {files}"


def test_no_kernel_without_reference_and_check(root: Path, variants: list[Variant]) -> None:
    referenced = {one.op for one in variants if one.isa == "ref"}
    for op in {one.op for one in variants} - OTHER_OPS_CHECK.keys():
        assert op in referenced, f"{op} has no reference"
        assert (root / "kernels" / "ops" / op / f"check_{op}.c").exists(), f"{op} has no check"
    assert set(OTHER_OPS_CHECK.values()) <= referenced


def test_kernel_files_are_words_and_an_instruction_set(root: Path) -> None:
    """The suffix decides how a file is compiled, so a misspelt one would be compiled as common C."""
    known = (*ISAS, "neon64")
    for name in tracked(root, "kernels/ops/*/*.c"):
        stem = Path(name).stem
        assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", stem), name
        if any(word in stem for word in ("neon", "fp16", "dotprod", "i8mm")):
            assert stem.endswith(tuple(f"_{isa}" for isa in known)), name


def test_no_trace_of_one_machine(root: Path) -> None:
    """No paths of a home folder or work folder, no private hosts, no secrets."""
    bad = re.compile(
        rb"(?<![\w.])/(?:home|Users)/[a-z]\w+/|" + re.escape(os.fsencode(root)) + rb"\b"
        rb"|BEGIN (?:RSA |OPENSSH |EC )?PRIVATE KEY"
        rb"|(?:ghp|gho|glpat|xoxb)[-_][A-Za-z0-9]{10}|AKIA[0-9A-Z]{16}"
    )
    this = Path(__file__).name
    traces = [
        f"{name}: {found[0].decode()}"
        for name in tracked(root)
        if not name.endswith(this) and (found := bad.search((root / name).read_bytes()))
    ]
    assert traces == []


def test_no_index_host_stands_in_a_file_that_installs(root: Path) -> None:
    for name in tracked(root, "inv", "tasks.py", "toolchains/setup.py", "requirements*", "pyproject.toml", ".ci/*"):
        assert not re.search(r"(?<!emit-)index-url|pypi\.org|://", (root / name).read_text()), name


def test_the_import_contract_holds(root: Path) -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_license_and_notices_stand(root: Path) -> None:
    assert "BSD 3-Clause" in (root / "LICENSE").read_text()
    notices = (root / "THIRD_PARTY_NOTICES.md").read_text()
    for word in ("WordNet", "Apache-2.0", "unicorn", "musl", "scikit-image"):
        assert word in notices
