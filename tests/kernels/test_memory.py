"""Memory modes: the same answers with more or fewer threads, fused or not, and less memory where that is asked for."""

from __future__ import annotations

from itertools import pairwise, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.kernels.conftest import Klaus, Said, emulated, runner

if TYPE_CHECKING:
    from toolchains.build import Build

Models = dict[str, Path]
MODES = ("default", "lean")
CPUS = ("cortex-a53", "cortex-a76")


def _top(said: Said) -> list[tuple[int, float]]:
    return [(entry["id"], entry["probability"]) for entry in said.one("bench")["top"]]


def _steps(run: Klaus, model: Path, *options: object) -> list[dict[str, Any]]:
    return run("info", "--plan", "--model", model, *options).of("step")


@pytest.fixture(scope="module", params=CPUS)
def arm(request: pytest.FixtureRequest, arm_build: Build) -> Klaus:
    """klaus-run on one class of core."""
    return runner(emulated(arm_build.program, "linux-aarch64", request.param))


@pytest.mark.parametrize("name", ["every_op", "scanned", "softmax", "tiny32", "a-depth8-index", "b-depth4-index"])
def test_answers_depend_on_no_number_of_threads(klaus: Klaus, arm: Klaus, models: Models, name: str) -> None:
    for run, mode in product((klaus, arm), MODES):
        patches = (1, 10) if name in ("scanned", "tiny32") else (1,)
        for count in patches:
            options = ("--model", models[name], "--memory", mode, "--runs", 1, "--warmup", 1, "--patches", count)
            one, *more = (_top(run("bench", *options, "--threads", threads)) for threads in (1, 2, 3, 5))
            assert all(answers == one for answers in more), (mode, count)


@pytest.mark.parametrize("name", ["every_op", "scanned", "softmax", "tiny32", "a-depth8-index", "b-depth4-index"])
def test_fused_is_unfused_in_every_mode(klaus: Klaus, arm: Klaus, models: Models, tmp_path: Path, name: str) -> None:
    """The last layer's output, within 1e-5 of its largest value."""
    for run in (klaus, arm):
        logits = {}
        for mode, more in product(MODES, ((), ("--unfused",))):
            path = tmp_path / "logits.f32"
            run("bench", "--model", models[name], "--memory", mode, "--runs", 1, "--logits", path, *more)
            logits[mode, more] = np.fromfile(path, "<f4")
        first = logits["default", ()]
        for found in logits.values():
            assert np.abs(found - first).max() <= 1e-5 * np.abs(first).max()


def test_lean_memory_packs_no_full_connects(arm: Klaus, models: Models) -> None:
    for name in ("a-depth8-index", "b-depth4-index", "tiny16"):
        connects = [s for s in _steps(arm, models[name], "--memory", "lean") if s["op"] == "full_connect"]
        assert connects
        assert all(step["packed_bytes"] == 0 for step in connects)
        assert all("_mapped_" in step["variant"] for step in connects)
    eight = [s for s in _steps(arm, models["a-depth8-index"]) if s["op"] == "full_connect"]
    assert any(step["packed_bytes"] > 0 for step in eight)


def test_what_is_not_needed_again_is_overwritten(klaus: Klaus, models: Models) -> None:
    steps = _steps(klaus, models["every_op"])
    for before, step in pairwise(steps):
        if step["op"] == "lrn":
            assert step["in_place"]
            assert step["output_offset"] == before["output_offset"]
    assert any(step["op"] == "lrn" for step in steps)


def test_memory_that_no_file_backs_is_told(klaus: Klaus, models: Models) -> None:
    plain = klaus("bench", "--model", models["scanned"], "--runs", 1).one("memory")
    assert "anonymous_bytes" not in plain
    told = klaus("bench", "--model", models["scanned"], "--runs", 1, "--layer-memory").one("memory")
    assert 0 < told["anonymous_bytes"] <= told["peak_resident_bytes"]
