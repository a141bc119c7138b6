"""The device program as a process, on this computer or under qemu's user mode, and packed models for it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from klaus_runtime import pack
from klaus_runtime.model import Model, Range
from klaus_runtime.reference import NumpyEngine
from klaus_runtime.registry import load_model
from tests.kernels import nets
from tests.klaus_runtime.golden import TINY, TINY_QUANT

if TYPE_CHECKING:
    from toolchains.build import Build

QUANT_FORMS = ("a-depth8-index", "b-depth4-index", "c-depth4-expanded")
EMULATORS = {"linux-aarch64": ("qemu-aarch64", "cortex-a76"), "linux-armv7": ("qemu-arm", "cortex-a7")}


@dataclass(frozen=True, slots=True)
class Said:
    """What one command printed: records of stdout, each line parsed; stderr; the exit code."""

    records: list[dict[str, Any]]
    stderr: str
    code: int

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [record for record in self.records if record["record"] == kind]

    def one(self, kind: str) -> dict[str, Any]:
        (record,) = self.of(kind)
        return record


Klaus = Callable[..., Said]


def runner(command: Iterable[str | Path]) -> Klaus:
    """klaus(argument, ..., code=0) runs it and checks exit code (None: any) and the form of all it says."""

    def klaus(*arguments: object, code: int | None = 0) -> Said:
        argv = [*map(str, command), *map(str, arguments)]
        done = subprocess.run(argv, capture_output=True, timeout=300, check=False, stdin=subprocess.DEVNULL)
        stderr = done.stderr.decode()
        assert code is None or done.returncode == code, (argv, done.returncode, stderr[-2000:], done.stdout[-500:])
        lines = done.stdout.decode().split("\n")
        assert lines.pop() == "", "the last line is not ended"
        records = [json.loads(line, parse_constant=pytest.fail) for line in lines]
        assert all(isinstance(record.get("record"), str) for record in records)
        assert all(character.isprintable() or character == "\n" for character in stderr), stderr
        if done.returncode != 0:
            assert stderr.startswith(("klaus-run: ", "usage: ")), stderr
            assert stderr.startswith("usage: ") or stderr.count("\n") == 1, stderr
        return Said(records, stderr, done.returncode)

    return klaus


def emulated(program: Path, target: str, cpu: str | None = None) -> list[str]:
    """The command line of a target's program under qemu."""
    name, usual = EMULATORS[target]
    qemu = shutil.which(f"{name}-static") or shutil.which(name)
    assert qemu, f"{name} is missing: ./inv sets it up"
    return [qemu, "-cpu", cpu or usual, str(program)]


def ranged(model: Model) -> Model:
    """The model with the ranges that a few random inputs give."""
    random = np.random.default_rng(11)
    lows, highs = [], []
    for _ in range(4):
        given = random.normal(0, 1, model.input_shape).astype(np.float32)
        values = [given, *NumpyEngine(model).activations(given)]
        lows.append([float(value.min()) for value in values])
        highs.append([float(value.max()) for value in values])
    ranges = zip(np.min(lows, axis=0), np.max(highs, axis=0), strict=True)
    return replace(model, ranges=tuple(Range(float(low), float(high)) for low, high in ranges))


@pytest.fixture(scope="session")
def klaus(host_build: Build) -> Klaus:
    """klaus-run of this computer."""
    return runner([host_build.program])


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Packed models by name: every_op, softmax, scanned; the golden tiny32, tiny16 and QUANT_FORMS."""
    folder = tmp_path_factory.mktemp("models")
    made: dict[str, Model] = {
        "every_op": nets.every_op(),
        "softmax": nets.ends_in_softmax(),
        "scanned": nets.scanned(),
        "tiny32": load_model(str(TINY / "model-fp32.sqlite3")),
        "tiny16": load_model(str(TINY / "model-fp16.sqlite3")),
    }
    for form in QUANT_FORMS:
        pictures = {int(path.stem.split("-")[1]): path for path in (TINY_QUANT / form).glob("layer-*.png")}
        made[form] = load_model(str(TINY_QUANT / form / "model.sqlite3"), layers=pictures)
    return {name: pack.pack(model, folder / f"{name}.klaus") for name, model in made.items()}
