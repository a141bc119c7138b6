"""Every reader on damaged files, a few seconds of what `python -m tests.fuzz.run` does for as long as one likes."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from . import loader, repair, run, seeds
from .guard import FindingError, watched
from .targets import TARGETS, Fuzzed, corpus, opened

READERS = sorted(TARGETS)


@pytest.fixture(scope="module", params=READERS)
def fuzzed(request: pytest.FixtureRequest) -> Iterator[Fuzzed]:
    with opened(request.param) as found:
        yield found


def test_the_corpus_is_what_the_seeds_make(fuzzed: Fuzzed) -> None:
    """Whole files are accepted; "onnx-graph" and "state-dict" have none that are a network."""
    for data in corpus(fuzzed.name):
        fuzzed(data)
    if fuzzed.name not in ("onnx-graph", "state-dict"):
        assert fuzzed.accepted


def test_damage_by_chance(fuzzed: Fuzzed) -> None:
    pool = corpus(fuzzed.name)
    rng = np.random.default_rng(1)
    for _ in range(60):
        fuzzed(run.damaged(pool[int(rng.integers(len(pool)))], rng))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damage_by_hypothesis(fuzzed: Fuzzed, data: st.DataObject) -> None:
    """Bytes changed where hypothesis likes, and bytes that are nothing but its own."""
    pool = corpus(fuzzed.name)
    whole = bytearray(data.draw(st.sampled_from(pool) | st.binary(max_size=200)))
    for position, byte in data.draw(st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=8)):
        if whole:
            whole[position % len(whole)] = byte
    fuzzed(bytes(whole))


@pytest.mark.slow
def test_the_loader_under_libfuzzer(root: Path, tmp_path: Path) -> None:
    """A few seconds of `python -m tests.fuzz.run loader`, so that it goes on working."""
    reason = loader.why_not(tmp_path)
    if reason:
        pytest.skip(reason)
    argv = [sys.executable, "-m", "tests.fuzz.run", "loader", "--seconds", "5", "--findings", str(tmp_path / "found")]
    done = subprocess.run(argv, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.fullmatch(r"loader: ([\d,]+) cases by coverage, .*\n", done.stdout)
    assert found
    assert int(found[1].replace(",", "")) > 20  # the corpus, and more


def test_a_picture_that_says_it_is_huge() -> None:
    whole = bytearray(seeds.all_seeds()["png"][0])
    whole[16:24] = (100_000).to_bytes(4, "big") * 2
    with opened("png") as found:
        assert "100,000 x 100,000" in found(b"\1" + bytes(whole))


def test_repairs_leave_whole_files_as_they_are() -> None:
    made = seeds.all_seeds()
    for name, mend in (("png", repair.png), ("packed", repair.packed), ("torch-zip", repair.zipped),
                       ("safetensors", repair.safetensors)):  # fmt: skip
        for data in made[name]:
            assert mend(data) == data
            assert mend(data[: len(data) // 2]) is not None


def _sleep() -> None:
    end = time.process_time() + 30
    while time.process_time() < end:
        pass


@pytest.mark.parametrize(
    "bad",
    [
        lambda: os.system("true"),
        lambda: subprocess.run(["true"], check=False),
        lambda: socket.create_connection(("127.0.0.1", 9)),
        lambda: Path("/etc/hostname").read_text(),
        lambda: Path("made").write_text("x"),
        tempfile.mkdtemp,
        lambda: Path("x").unlink(),
        lambda: bytearray(1 << 30).__setitem__(slice(None, None, 4096), bytes(1 << 18)),
        _sleep,
    ],
)
def test_the_guard_sees_what_a_reader_must_not_do(
    bad: Callable[[], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").write_text("x")
    monkeypatch.setattr("tests.fuzz.guard.MAX_SECONDS", 0.3)
    with pytest.raises(FindingError), watched(tmp_path):
        bad()
    assert (tmp_path / "x").exists()


def test_the_driver_runs(root: Path, tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "tests.fuzz.run", "--plain", "--seconds", "1", "--findings", str(tmp_path), "png"]
    done = subprocess.run(argv, cwd=root, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("png: ")
    wrong = subprocess.run([*argv[:-1], "gif"], cwd=root, capture_output=True, text=True, check=False, timeout=120)
    assert wrong.returncode == 2
