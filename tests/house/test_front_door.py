"""The front door: inv, the tasks and what they promise."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from invoke.context import Context
from invoke.exceptions import Exit

import tasks
from device_tests.errors import InventoryError

NAMES = [
    *("bench", "build", "check", "clean", "count", "deploy", "deploy-and-bench", "devices.enrol", "devices", "doctor"),
    *("fetch-model", "mca", "models", "nightly", "quant-table", "quantize", "report", "test"),
]


class Ended(NamedTuple):
    code: int
    stdout: str
    stderr: str


Tasks = Callable[..., Ended]


@pytest.fixture
def run_tasks(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Tasks:
    """tasks.py as ./inv runs it, in this process: a new one for each of these cases would take a minute."""
    monkeypatch.chdir(root)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: str) -> Ended:
        code = 0
        try:
            tasks.main(arguments)
        except SystemExit as end:
            code = int(end.code or 0)
        said = capsys.readouterr()
        return Ended(code, said.out, said.err)

    return run


def test_list_reads_like_a_manual(run_tasks: Tasks) -> None:
    listed = run_tasks("--list")
    assert listed.code == 0, listed.stderr
    lines = [line for line in listed.stdout.splitlines() if line.startswith("  ")]
    helps = {}
    for line in lines:
        found = re.fullmatch(r"  (\S+)(?: \((\S+)\))? {2,}(\S.*)", line)
        assert found, f"help of more than one line at 80 columns: {line!r}"
        helps[found[2] or found[1]] = found[3]
    assert sorted(helps) == sorted(NAMES)
    assert all(text.endswith(".") and len(text) > 15 for text in helps.values())


@pytest.mark.parametrize("task", NAMES)
def test_every_option_says_what_it_is(run_tasks: Tasks, task: str) -> None:
    shown = run_tasks(task, "--help")
    assert shown.code == 0, shown.stderr
    options = shown.stdout.partition("Options:")[2]
    for line in options.splitlines():
        if re.match(r"  -", line):
            assert re.search(r"  --?\S+(, --\S+)?(=\w+)? +\S", line), f"{task}: an option without help: {line!r}"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("no-such-task", "no-such-task"),
        ("build --no-such-option", "--no-such-option"),
        ("build --target no-such-target", "'no-such-target'"),
        ("build --target", "--target: a value is missing"),
        ("build --target linux-aarch64 --target", "--target: a value is missing"),
        ("build --target --dry-run", "--target: a value is missing"),
        ("deploy-and-bench --suite --dry-run", "--suite: a value is missing"),
        ("deploy-and-bench --dry-run --model", "--model: a value is missing"),
        ("deploy --device= --dry-run", "--device: a value is missing"),
        ("build --jobs many", "--jobs 'many': give a whole number"),
        ("build --jobs -3", "jobs -3: give 1 or more"),
        ("build --jobs", "--jobs: a value is missing"),
        ("deploy-and-bench --dry-run --photos a\x1b]0;evil\x07", "a\\x1b]0;evil\\x07"),
        ("devices --inventory a\x1b[2J.toml", "a\\x1b[2J.toml"),
        ("quantize a\x1b[2J", "a\\x1b[2J"),
        ("build --no\x1b[2J", "\\x1b[2J"),
        ("no\x1b[2J", "\\x1b[2J"),
        ("deploy-and-bench --device no-such-device --dry-run", "'no-such-device'"),
        ("deploy-and-bench --suite timing --suite no-such-suite --dry-run", "'no-such-suite'"),
        ("deploy-and-bench --scheme no-such-scheme --dry-run", "'no-such-scheme'"),
        ("deploy-and-bench --profile slow --dry-run", "'slow'"),
        ("deploy-and-bench --crop left --dry-run", "'left'"),
        ("deploy-and-bench --model no-such-model --dry-run", "'no-such-model'"),
        ("deploy-and-bench --photos no-such-folder --dry-run", "no-such-folder"),
        ("devices --inventory no-such-file.toml", "no-such-file.toml"),
        ("devices.enrol no-such-device", "'no-such-device'"),
        ("quantize no-such-model", "no-such-model"),
        ("report --run no-such-run", ""),
    ],
)
def test_wrong_usage_ends_with_2_and_one_message(run_tasks: Tasks, arguments: str, named: str) -> None:
    done = run_tasks(*arguments.split())
    assert done.code == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert named in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not set(done.stdout + done.stderr) & set("\x1b\x07\r")


def test_a_bug_ends_with_5_and_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    @tasks._command()
    def broken(_: Context) -> int:
        raise ZeroDivisionError("a bug")

    with pytest.raises(Exit) as end:
        broken(Context())
    assert end.value.code == 5
    assert "ZeroDivisionError: a bug" in capsys.readouterr().err


def test_an_error_of_many_lines_keeps_them_and_reaches_the_terminal_harmless() -> None:
    @tasks._command()
    def refused(_: Context) -> int:
        raise InventoryError("the compiler said:\n\tx.c:1: \x1b]0;evil\x07\u202e\r\n  ^~~ é")

    with pytest.raises(Exit) as end:
        refused(Context())
    assert end.value.code == 2
    assert str(end.value).splitlines() == [
        "error: the compiler said:",
        r"        x.c:1: \x1b]0;evil\x07\u202e\r",
        "  ^~~ é",
    ]


def test_doctor_names_a_command_for_what_is_missing(root: Path, tmp_path: Path) -> None:
    for tool in ("git", "apt-get", "sh"):
        place = shutil.which(tool)
        if place:
            (tmp_path / tool).symlink_to(place)
    argv = [sys.executable, "tasks.py", "doctor"]
    environment = {**os.environ, "PATH": str(tmp_path)}
    done = subprocess.run(argv, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert "MISSING" in done.stdout
    if (tmp_path / "apt-get").exists():
        command = "apt-get install -y --no-install-recommends clang-19 lld-19 llvm-19 qemu-system-arm qemu-user"
        assert command in done.stdout


def test_inv_is_plain_sh_and_quick_once_set_up(root: Path) -> None:
    text = (root / "inv").read_text()
    assert text.startswith("#!/bin/sh\n")
    assert os.access(root / "inv", os.X_OK)
    subprocess.run(["sh", "-n", "inv"], cwd=root, check=True)
    bash_only = re.findall(r"\[\[|\blocal \b|\bfunction \b|<<<|\bsource \b|\$'", text)
    assert not bash_only
