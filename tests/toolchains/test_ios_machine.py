"""The shipped Mach-O on an emulated CPU (optional packages of requirements-ios-emulator.txt)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from klaus_runtime.pack import pack
from klaus_runtime.registry import load_model
from tests.klaus_runtime.golden import TINY
from tests.toolchains.ios_machine import IosMachine, MachineError
from toolchains import detect, macho
from toolchains.build import Build
from toolchains.errors import InputError
from toolchains.target import load_targets

pytest.importorskip("unicorn", reason="the optional package unicorn is not installed; ./inv test installs it")

NO_FP16_CPU = "A53"


def test_the_small_program_runs(small: Callable[[str], Build], tmp_path: Path) -> None:
    image = macho.read(small("ios").program)
    done = IosMachine(image, folder=tmp_path).run(["klaus-run", "8"])
    assert (done.exit_code, done.stdout, done.stderr) == (0, "apple 8 204 2.71828175 named\n", "")
    assert IosMachine(image, folder=tmp_path).run(["klaus-run", "4"]).exit_code == 1


def test_a_crash_is_a_crash(small: Callable[[str], Build], tmp_path: Path) -> None:
    image = macho.read(small("ios").program)
    machine = IosMachine(image, folder=tmp_path, heap_bytes=1 << 20)
    done = machine.run(["klaus-run", "100000000"])
    assert (done.exit_code, done.stderr) == (5, "no memory or no clock\n")
    damaged = bytearray(image.data)
    assert image.entry is not None
    at = image.entry - image.segment("__TEXT").address
    damaged[at : at + 4] = bytes(4)  # an undefined instruction
    with pytest.raises(MachineError, match="called from"):
        IosMachine(macho.parse(bytes(damaged)), folder=tmp_path).run(["klaus-run"])


def test_other_files_are_refused(small: Callable[[str], Build], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="iOS programs only"):
        IosMachine(macho.read(small("ios").shared), folder=tmp_path)


@pytest.fixture
def klaus_run(built: Callable[[str], Build], tmp_path: Path) -> Callable[..., list[dict[str, object]]]:
    """klaus_run(*words, cpu=, features=) -> the records that the real device program wrote; exit code 0 is asserted."""
    reason = detect.why_not(load_targets()["ios"])
    if reason:
        pytest.skip(reason)
    image = macho.read(built("ios").program)

    def run(*words: str, cpu: str = "MAX", features: Iterable[str] = ()) -> list[dict[str, object]]:
        machine = IosMachine(image, folder=tmp_path, cpu=cpu, features=frozenset(features))
        done = machine.run(["klaus-run", *words])
        assert (done.exit_code, done.stderr) == (0, "")
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run


def test_info(klaus_run: Callable[..., list[dict[str, object]]]) -> None:
    (info,) = klaus_run("info")
    assert info["record"] == "info"
    assert info["target"] == "ios"
    assert info["arch"] == "aarch64"
    assert info["isa"] == ["neon"] or "neon" in str(info["isa"])


@pytest.mark.parametrize("features", [(), ("proc_pid_rusage",)])
def test_the_phones_own_counters(
    features: tuple[str, ...], klaus_run: Callable[..., list[dict[str, object]]], tmp_path: Path
) -> None:
    """Where the system knows the flavour that counts; an older one refuses it, and nothing is said."""
    pack(load_model(str(TINY / "model-fp32.sqlite3")), tmp_path / "tiny.klaus")
    told = klaus_run("bench", "--model", "tiny.klaus", "--runs", "1", "--profile", features=features)
    counted = [record for record in told if "instructions" in record]
    if not features:
        assert not counted
        assert not any("counter" in record or "cycles" in record for record in told)
        return
    passes = [record for record in told if record["record"] == "pass"]
    layers = [record for record in told if record["record"] == "layer"]
    assert counted == [*passes, *layers]
    assert all(p["cycles"] == 2 * int(str(p["instructions"])) > 100_000 for p in passes)
    sums = sum(int(str(layer["instructions"])) for layer in layers)
    assert 0.8 * int(str(passes[1]["instructions"])) < sums < int(str(passes[1]["instructions"]))
    assert told[-1]["counter"] == "proc_pid_rusage"


@pytest.mark.slow
@pytest.mark.parametrize("cpu", ["MAX", NO_FP16_CPU])
def test_one_fp32_check(cpu: str, klaus_run: Callable[..., list[dict[str, object]]]) -> None:
    *checks, summary = klaus_run("check", "--op", "full_connect", "--isa", "neon", cpu=cpu)
    assert summary["record"] == "summary"
    assert summary["failed"] == 0
    assert any("neon" in str(check.get("variant")) and check.get("ok") for check in checks)
