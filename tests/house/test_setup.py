"""The set-up: what it asks, prints and refuses, in a clone with a system of commands made for the test."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from toolchains import setup
from toolchains.errors import SetupError

needs_apt = pytest.mark.skipif(shutil.which("apt-get") is None, reason="needs apt-get: this is no Debian")


def clone_of(root: Path, folder: Path) -> Path:
    """The tracked files as they stand, uncommitted changes included."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, check=True, text=True).stdout
    for name in listed.split("\0"):
        if name and (root / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, folder / name)
    return folder


def commands(folder: Path, *names: str) -> Path:
    """A folder for PATH that holds only these commands."""
    folder.mkdir()
    for name in names:
        place = shutil.which(name)
        assert place, f"this computer has no {name}"
        (folder / name).symlink_to(Path(place).resolve() if name != "python3" else place)
    return folder


@needs_apt
@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, which only root can")
def test_without_root_it_stops_with_one_command_and_changes_nothing(root: Path, tmp_path: Path) -> None:
    clone = clone_of(root, tmp_path / "clone")
    path = commands(tmp_path / "bin", "apt-get", "sh", "dirname", "cksum", "cat")
    # The test's own interpreter may lie where another user cannot look: a system python3 is what inv would find.
    python = next((p for p in ("/usr/bin/python3", "/usr/local/bin/python3") if Path(p).exists()), None)
    if python is None:
        pytest.skip("no system python3")
    (path / "python3").symlink_to(python)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_mode & 0o005 != 0o005:
            folder.chmod(folder.stat().st_mode | 0o055)
    subprocess.run(["chmod", "-R", "a+rwX", str(clone)], check=True)
    before = sorted(p.name for p in clone.iterdir())
    done = subprocess.run(
        [str(path / "sh"), "./inv", "deploy-and-bench"],
        cwd=clone,
        env={"PATH": str(path), "HOME": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        user=65534,
        group=65534,
        extra_groups=[],
    )
    assert done.returncode == 3, done.stderr
    assert "apt-get install -y --no-install-recommends clang-19" in done.stderr
    assert "su -c" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert sorted(p.name for p in clone.iterdir()) == before


def test_mending_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    needs = [need for need in setup.NEEDS if "linux" in need.platforms]
    assert setup.mending_command(needs, "apt").endswith(
        "clang-19 lld-19 llvm-19 qemu-system-arm qemu-user"
    ) or "sudo" in (setup.mending_command(needs, "apt"))
    for how in ("dnf", "pacman", "zypper"):
        command = setup.mending_command(needs, how)
        assert setup.INSTALL[how] in command
        assert "clang" in command
    mac = [need for need in setup.NEEDS if "darwin" in need.platforms]
    assert setup.mending_command(mac, "brew") == "xcode-select --install && brew install qemu"
    assert setup.mending_command(needs, "none") == ""


def test_a_foreign_venv_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    venv = tmp_path / ".venv"
    venv.mkdir()
    (venv / "somebody's work").write_text("precious")
    monkeypatch.setattr(setup, "VENV", venv)
    monkeypatch.setattr(setup, "MARK", venv / "klaus-made")
    with pytest.raises(SetupError, match="was not made by"):
        setup.make_venv()
    assert (venv / "somebody's work").read_text() == "precious"


def test_pip_errors_are_told_not_traced(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.txt"
    wrong.write_text("pip==99999\n")
    with pytest.raises(SetupError, match="pip failed"):
        setup.pip_install(Path(sys.executable), "--no-index", "--require-hashes", "-r", str(wrong))


@pytest.mark.slow
def test_editable_install_in_ones_own_environment(root: Path, tmp_path: Path) -> None:
    """`pip install -e .` in a fresh environment: invoke and klaus work there as they stand."""
    clone = clone_of(root, tmp_path / "clone")
    own = tmp_path / "own"
    subprocess.run([sys.executable, "-m", "venv", str(own)], check=True)
    subprocess.run([own / "bin" / "pip", "install", "-q", "-e", "."], cwd=clone, check=True, timeout=600)
    path = f"{own / 'bin'}{os.pathsep}{os.environ['PATH']}"
    for argv in (["invoke", "--list"], ["invoke", "build", "--target", "ios", "--dry-run"], ["klaus", "--help"]):
        done = subprocess.run(
            argv, cwd=clone, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, f"{argv}: {done.stderr}"
        assert done.stdout


@pytest.mark.slow
def test_inv_makes_the_venv_once_and_is_quick_then(root: Path, tmp_path: Path) -> None:
    clone = clone_of(root, tmp_path / "clone")
    environment = {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "PYTHONPATH")}
    first = subprocess.run(
        ["./inv", "--list"], cwd=clone, env=environment, capture_output=True, text=True, check=False, timeout=600
    )
    assert first.returncode == 0, first.stderr
    assert first.stderr.rstrip().splitlines()[-1] == ". .venv/bin/activate"
    assert "deploy-and-bench" in first.stdout
    second = subprocess.run(
        ["./inv", "--list"], cwd=clone, env=environment, capture_output=True, text=True, check=False, timeout=20
    )
    assert second.returncode == 0
    assert second.stderr == ""
    assert second.stdout == first.stdout


def test_it_asks_only_where_someone_can_answer(root: Path) -> None:
    """The same question at a terminal, with CI set, and without a terminal."""
    program = "from toolchains import setup; import sys; sys.stdout.write(str(setup.someone_is_there()))"

    def answer(stdin: int, stderr: int, **environment: str) -> str:
        base = {key: value for key, value in os.environ.items() if key != "CI"}
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=root,
            env={**base, **environment},
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            check=True,
        )
        return done.stdout

    ours, theirs = os.openpty()
    try:
        assert answer(theirs, theirs) == "True"
        assert answer(theirs, theirs, CI="true") == "False"
        assert answer(subprocess.DEVNULL, theirs) == "False"
        assert answer(theirs, subprocess.DEVNULL) == "False"
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize(
    ("typed", "default", "agreed"),
    [
        *[("\n", True, True), ("\n", False, False), ("y\n", False, True), ("Yes\n", True, True), ("n\n", True, False)],
        *[("", True, False), ("", False, False), ("what\n", True, False)],
    ],
)
def test_only_a_yes_is_a_yes(monkeypatch: pytest.MonkeyPatch, typed: str, default: bool, agreed: bool) -> None:
    """What was typed, "" where the input ended (Ctrl-D) before a line was."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    assert setup.agreed("Really?", default=default) is agreed


@needs_apt
def test_declined_packages_are_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes are shown first; apt-get only simulates until someone has said yes."""
    ran: list[str] = []

    def record(argv: list[str], what: str) -> str:
        ran.append(what)
        return ""

    monkeypatch.setattr(setup, "quietly", record)
    monkeypatch.setattr(setup, "root_prefix", lambda **_: [])
    monkeypatch.setattr(setup, "agreed", lambda _: False)
    with pytest.raises(SetupError, match="declined"):
        setup.install_system(["clang-19"], ask=True)
    assert ran == ["apt-get update", "looking up the packages"]
