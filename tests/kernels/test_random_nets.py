"""Networks drawn at random: whatever the planner makes of them, their answers are those of the oracles.

Residuals of every kind, branches, chains on maps large enough for bands, layers that lead nowhere: what a test for one
thing does not think of. A failure names the seed; `drawn(seed)` makes the network again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from device_tests.int8_oracle import Planned
from device_tests.program_records import StepRecord, parse_record
from klaus_runtime import pack, shapes
from klaus_runtime.model import (
    F32,
    Activate,
    Activation,
    Add,
    Concat,
    Convolution,
    FullConnect,
    GlobalPool,
    Layer,
    LocalResponseNorm,
    Model,
    Pool,
    Provenance,
    Slice,
    Weights,
    Window,
)
from klaus_runtime.reference import NumpyEngine
from tests.kernels import nets
from tests.kernels.conftest import Klaus, emulated, ranged, runner

if TYPE_CHECKING:
    from toolchains.build import Build

QUICK = range(8)
SLOW = range(100, 140)
# Of the largest answer; halves round every activation, int8 has an oracle that rounds where the plan does: to the bit,
# but that a normalization may be a step off.
BOUNDS = {"fp32": 2e-5, "fp16": 3e-2, "int8": 1e-5}
NORMALIZED = 5e-2
_ACTIVATIONS = tuple(Activation)


def drawn(seed: int) -> Model:
    """A network of some layers whose every number comes from the seed."""
    random = np.random.default_rng(seed)
    make = nets.Maker(seed)
    make.gain = 0.9
    side = int(random.choice([9, 17, 30, 170]))
    shape = (side, side + int(random.integers(-3, 4)), int(random.choice([3, 4, 8])))
    layers: list[Layer] = []
    outputs: list[tuple[int, int, int]] = []

    def weights(form: tuple[int, ...]) -> Weights:
        entries = random.choice([0, 4, 16, 200])
        return make.weights(form, int(entries) or None, half=bool(random.integers(2)), scaled=bool(random.integers(2)))

    def any_layer() -> int:
        """A layer's number, late ones more often; -1 for the input."""
        return max(-1, len(layers) - 1 - int(random.geometric(0.6) - 1))

    def put(layer: Layer) -> None:
        layers.append(layer)
        outputs.append(shapes.infer(Model("part", shape, tuple(layers), None, (), _ORIGIN))[-1])

    for number in range(int(random.integers(4, 13))):
        source = any_layer()
        rows, cols, channels = outputs[source] if source >= 0 else shape
        act = _ACTIVATIONS[random.integers(len(_ACTIVATIONS))]
        name = f"layer-{number}"
        partners = [other for other, form in enumerate(outputs) if form == (rows, cols, channels)]
        kind = str(
            random.choice(
                ["point", "window", "depthwise", "residual", "add", "pool", "concat", "slice", "bend", "norm"]
            )
        )
        if kind == "residual" and source >= 0:  # around one convolution, which reads its own addend
            size = 1 if random.integers(2) else 3
            window = Window(size, size, 1, 1, (size // 2,) * 4)
            put(Convolution(f"{name}-inner", (source,), window, weights((channels, size, size, channels))))
            pair = (source, len(layers) - 1)
            layer: Layer = Add(name, pair if random.integers(2) else pair[::-1], act)
        elif kind == "add" and partners and source >= 0:
            layer = Add(name, (source, int(random.choice(partners))), act)
        elif kind == "bend" and source >= 0:
            layer = Activate(name, (source,), Activation.RELU6 if random.integers(2) else Activation.RELU)
        elif kind == "concat" and source >= 0:
            layer = Concat(name, (source, int(random.choice(partners))))
        elif kind == "slice" and channels > 2:
            layer = Slice(name, (source,), int(random.integers(0, 2)), channels - 2)
        elif kind == "norm" and source >= 0:
            layer = LocalResponseNorm(name, (source,), 3, 1.5, 1e-2, 0.75)
        elif kind == "pool" and min(rows, cols) >= 3:
            layer = Pool(name, (source,), Window(3, 3, 2, 2), "max" if random.integers(2) else "average")
        elif kind == "depthwise" and min(rows, cols) >= 3:
            pad, stride = int(random.integers(0, 2)), int(random.integers(1, 3))
            window = Window(3, 3, stride, stride, (pad, pad, pad, pad))
            layer = Convolution(name, (source,), window, weights((channels, 3, 3, 1)), channels, act)
        elif kind == "window" and min(rows, cols) >= 5:
            size = int(random.choice([3, 5]))
            pad, stride = int(random.integers(0, size)), int(random.integers(1, 3))
            filters = int(random.choice([5, 8, 12, 24, channels]))
            groups = 2 if channels % 2 == 0 and filters % 2 == 0 and random.integers(3) == 0 else 1
            window = Window(size, size, stride, stride, (pad, pad, pad, pad))
            form = (filters, size, size, channels // groups)
            layer = Convolution(name, (source,), window, weights(form), groups, act)
        else:  # pointwise, as many channels as it reads every other time, so that additions find partners
            filters = channels if random.integers(2) else int(random.choice([4, 9, 16, 36]))
            layer = Convolution(name, (source,), Window(1, 1), weights((filters, 1, 1, channels)), 1, act)
        put(layer)
    last = outputs[-1][2]
    layers.append(GlobalPool("global", (len(layers) - 1,)))
    layers.append(FullConnect("logits", (len(layers) - 1,), weights((nets.CLASSES, last))))
    return Model(f"drawn {seed}", shape, tuple(layers), None, (), _ORIGIN)


_ORIGIN = Provenance("seed", "BSD-3-Clause", "")


def _answer(run: Klaus, model: Path, given: Path, *options: object) -> F32:
    out = given.with_name("logits.f32")
    run("bench", "--model", model, "--input", given, "--runs", 1, "--warmup", 1, "--logits", out, *options)
    return np.fromfile(out, "<f4")


def _steps(run: Klaus, model: Path, *options: object) -> list[StepRecord]:
    rows = run("info", "--plan", "--model", model, *options).of("step")
    parsed = [parse_record(json.dumps(row).encode()) for row in rows]
    return [step for step in parsed if isinstance(step, StepRecord)]


def _judge(run: Klaus, seed: int, precisions: tuple[str, ...], folder: Path) -> None:
    model = ranged(drawn(seed))
    path, given = pack.pack(model, folder / "net.klaus"), folder / "input.f32"
    tensor = np.random.default_rng(seed).normal(0, 1, model.input_shape).astype("<f4")
    tensor.tofile(given)
    exact = list(NumpyEngine(model).activations(tensor))[-1].ravel()
    normalized = any(isinstance(layer, LocalResponseNorm) for layer in model.layers)
    for precision in precisions:
        bound = NORMALIZED if precision == "int8" and normalized else BOUNDS[precision]
        found = {}
        for more in ((), ("--unfused",), ("--threads", 3), ("--memory", "lean"), ("--memory", "lean", "--threads", 3)):
            options = ("--precision", precision, *more)
            wanted = exact
            if precision == "int8":
                wanted = Planned(model, _steps(run, path, *options)).run(tensor).ravel()
            found[more] = _answer(run, path, given, *options)
            error = np.abs(found[more] - wanted).max() / np.abs(wanted).max()
            assert error <= bound, (seed, precision, more, error)
        assert np.array_equal(found[()], found["--threads", 3]), (seed, precision)
        assert np.array_equal(found["--memory", "lean"], found["--memory", "lean", "--threads", 3]), (seed, precision)


@pytest.mark.parametrize("seed", [*QUICK, *(pytest.param(seed, marks=pytest.mark.slow) for seed in SLOW)])
def test_the_host_answers_as_the_oracles(klaus: Klaus, tmp_path: Path, seed: int) -> None:
    _judge(klaus, seed, ("fp32", "int8"), tmp_path)


@pytest.mark.parametrize("cpu", ["cortex-a53", "cortex-a76", "max"])
@pytest.mark.parametrize("seed", [*QUICK, *(pytest.param(seed, marks=pytest.mark.slow) for seed in SLOW)])
def test_arm_answers_as_the_oracles(arm_build: Build, tmp_path: Path, cpu: str, seed: int) -> None:
    precisions = {"cortex-a53": ("fp32", "int8"), "cortex-a76": ("fp16", "int8"), "max": ("int8",)}[cpu]
    _judge(runner(emulated(arm_build.program, "linux-aarch64", cpu)), seed, precisions, tmp_path)
