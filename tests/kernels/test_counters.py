"""Instructions and cycles by the system's own counters: told where it counts, and nowhere else."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from device_tests.devices.counting import compile_shared
from tests.kernels.conftest import Klaus, Said, emulated, runner

if TYPE_CHECKING:
    from toolchains.build import Build

COUNTED = {"instructions", "cycles", "counter"}
Bench = Callable[..., Said]


def fields(said: Said) -> set[str]:
    """What of COUNTED any record has."""
    return {name for record in said.records for name in record} & COUNTED


@pytest.fixture(scope="module")
def lent(host_build: Build, models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """lent(how, option, ...): bench of the golden net with the counters that perf_stand_in.c makes."""
    if sys.platform != "linux":
        pytest.skip("perf_event is Linux'")
    library = tmp_path_factory.mktemp("perf") / "stand_in.so"
    compile_shared([Path(__file__).with_name("perf_stand_in.c")], library)

    def bench(how: str, *options: object, runs: int = 3) -> Said:
        command: list[str | Path] = ["env", f"LD_PRELOAD={library}", f"PERF_STAND_IN={how}", host_build.program]
        return runner(command)("bench", "--model", models["tiny32"], "--runs", runs, *options)

    return bench


def test_passes_and_layers_are_counted(lent: Bench) -> None:
    said = lent("clock", "--profile")
    assert said.one("bench")["counter"] == "perf_event"
    assert said.stderr == ""
    passes: list[dict[str, Any]] = said.of("pass")
    assert all(p["instructions"] > 0 and p["cycles"] > 0 for p in passes)
    # Here a count is a nanosecond on a CPU: of a pass no more than it took, but for the cost of asking.
    assert all(p["instructions"] < p["ns"] + 200_000 for p in passes)
    measured = sum(p["instructions"] for p in passes if not p["warmup"])
    layers = [layer["instructions"] for layer in said.of("layer")]
    assert 0 < 3 * sum(layers) < measured
    fused = [layer["name"] for layer in said.of("layer") if layer["ns"] == 0]
    assert [layer["name"] for layer in said.of("layer") if layer["instructions"] == 0] == fused


def test_threads_that_the_session_starts_are_counted(lent: Bench) -> None:
    """What the workers execute appears in the pass: more nanoseconds on CPUs than the first thread alone had."""
    one, four = (lent("clock", "--threads", n, runs=20).of("pass") for n in (1, 4))
    assert sum(p["instructions"] for p in four) > 0.5 * sum(p["instructions"] for p in one)


@pytest.mark.parametrize("how", ["refuse", "shared"])
def test_no_count_is_no_trouble(lent: Bench, how: str) -> None:
    """Refused, or lent for a part of the time: an estimate is no count."""
    said = lent(how, "--profile")
    assert fields(said) == set()
    assert said.stderr == ""
    assert len(said.of("layer")) > 0


def test_as_this_computer_has_it(klaus: Klaus, models: dict[str, Path]) -> None:
    said = klaus("bench", "--model", models["tiny32"], "--runs", 2, "--profile")
    assert fields(said) in (set(), {"instructions", "counter"}, COUNTED)
    assert said.stderr == ""


@pytest.mark.parametrize("target", ["linux-aarch64", "linux-armv7"])
def test_no_counter_under_an_emulator(built: Callable[[str], Build], models: dict[str, Path], target: str) -> None:
    said = runner(emulated(built(target).program, target))("bench", "--model", models["tiny32"], "--runs", 1)
    assert fields(said) == set()
    assert said.stderr == ""
