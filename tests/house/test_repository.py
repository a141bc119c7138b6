"""What holds for every file of the project: locks, names, contracts, no traces of one machine."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

LOCKS = {"requirements.txt": ("pyproject.toml", "requirements.in"), "requirements-ios-emulator.txt": ()}
ISAS = ("ref", "neon", "neon_fp16", "neon_dotprod", "neon_i8mm", "neon64")
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


def test_gpl_packages_are_no_requirement(root: Path) -> None:
    assert "unicorn" not in locked((root / "requirements.txt").read_text())


def test_the_top_level_is_the_house(root: Path) -> None:
    assert {name.split("/")[0] for name in tracked(root)} <= TOP_LEVEL


def test_kernel_file_names_follow_the_grammar(root: Path) -> None:
    """kernels/ops/OP/OP[_dtype]_ISA[_core][_tile].c, and check_OP.c."""
    isa = "|".join(sorted(ISAS, key=len, reverse=True))
    for name in tracked(root, "kernels/ops/*/*.c"):
        op, file = name.split("/")[2:4]
        stem = file.removesuffix(".c")
        variant = rf"{op}(_[a-z0-9]+)*_({isa})(_inorder|_outoforder)?(_\d+x\d+)?"
        assert re.fullmatch(rf"check_{op}|{variant}|{op}(_[a-z0-9]+)*", stem), f"{name}: a name outside the grammar"


def test_every_op_has_a_reference(root: Path) -> None:
    files = [name.split("/")[2:] for name in tracked(root, "kernels/ops/*/*.c")]
    referenced = {op for op, name in files if name.endswith("_ref.c")}
    assert {op for op, _ in files} == referenced


def test_no_trace_of_one_machine(root: Path) -> None:
    """No paths of a home folder or work folder, no private hosts, no secrets."""
    bad = re.compile(
        rb"(?<![\w.])/(?:home|Users)/[a-z]\w+/|/work/(?:main|shared)|/srv/project|/root/\."
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
