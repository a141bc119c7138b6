"""Agreement: every layer's output on the device against the host reference; fused plans against unfused ones.

A difference counts as a fraction of the layer's largest magnitude; the bound is one of LAYER_BOUNDS for every net and
layer, whatever the layers before it did to its input: float32 leaves room for the order of sums alone; fp16 for 11 bits
of every activation; int8 for 8 bits of a range that was measured on other photos, which may cut values off.
The magnitude is taken before ReLU6 cuts values off: the cut hides how large the numbers were that float32 had to round.
Measured on lite0 (q8, NEON under qemu, the seven demo photos): at most 6.0e-6 of it, but 2.4e-5 of what the cut leaves.

The input is a real photo formed on the host, so that device and host read the same numbers; a network that takes no
pictures gets noise from a seed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from device_tests.errors import ProgramError
from device_tests.plan import Precision, Trial
from device_tests.program_records import ActivationRecord, TopClass
from device_tests.suites.context import Context, Remote
from klaus_runtime.forward import walk
from klaus_runtime.images import form, read_picture
from klaus_runtime.model import F32, Activation, Layer, Model, Softmax
from klaus_runtime.reference import apply_layer
from reports.record import Status

LAYER_BOUNDS: Mapping[Precision, float] = {"fp32": 1e-5, "fp16": 1e-2, "int8": 5e-2}  # of the layer's largest value
FUSED_BOUND = 1e-5  # of a probability, in fp32; a plan in halves or int8 keeps LAYER_BOUNDS at its last layer
TIMEOUT_S = 1800.0


def test_layers(context: Context, remote: Remote, trial: Trial) -> None:
    """Every layer agrees with the numpy oracle within the bound."""
    tensor, subject = _input(context, trial)
    remote_input = _send(context, remote, trial, tensor)
    bound = LAYER_BOUNDS[trial.precision]
    context.doing(f"{trial.id}: every layer's output on the device")
    folder = remote.folder("activations")
    files = remote.program.activations(
        remote.packed(trial.model), remote_input, folder, options=trial.options, timeout_s=TIMEOUT_S
    )
    layers = context.model(trial.model).layers
    assert [record.layer for record, _ in files] == list(range(len(layers))), "not one output for each layer, in order"
    worst: tuple[float, str] = (0.0, "")
    wrong: list[str] = []
    last: F32 | None = None
    for (record, path), (expected, scale) in zip(files, reference(context.model(trial.model), tensor), strict=True):
        name = f"{record.layer} {layers[record.layer].name}"
        context.doing(f"{trial.id}: layer {name}")
        last = _fetch(context, remote, record, path, expected)
        error = difference(last, expected, scale)
        worst = max(worst, (error, name))
        if not error <= bound:
            wrong.append(name)
            context.emit(
                "layer_error",
                Status.FAIL,
                trial=trial,
                subject=name,
                value=error if np.isfinite(error) else None,
                message=f"differs by {error:.3g} of the layer's largest value; the bound is {bound:.2g}",
            )
    remote.device.remove(folder, timeout_s=120)
    context.emit(
        "layer_error",
        Status.FAIL if wrong else Status.PASS,
        trial=trial,
        subject=f"worst: {worst[1]}",
        value=worst[0] if np.isfinite(worst[0]) else None,
        attributes={"layers": len(layers), "photo": subject, "bound": bound},
    )
    assert not wrong, f"{len(wrong)} of {len(layers)} layers differ from the host reference, first {wrong[0]}"
    assert last is not None
    _check_fused(context, remote, trial, remote_input, last)


def _check_fused(context: Context, remote: Remote, trial: Trial, remote_input: PurePosixPath, last: F32) -> None:
    """The fastest plan answers as the plan of one step a layer does."""
    context.doing(f"{trial.id}: fused plan")
    written = remote.folder("fused") / "last.f32"
    bench = remote.program.bench(
        remote.packed(trial.model),
        runs=1,
        warmup=0,
        precision=trial.precision,
        input_file=remote_input,
        logits_file=written,
        options=("--memory", trial.memory),
        timeout_s=TIMEOUT_S,
    )
    top = bench.result.top
    if not top or any(not 0 <= answer.id < last.size for answer in top):
        raise ProgramError(f"{context.job.device.name}: bench answered {len(top)} classes, some outside the model's")
    if trial.precision == "fp32":
        bound, what = FUSED_BOUND, "of a probability"
        error = _of_probabilities(context.model(trial.model), top, last)
    else:  # a fused step rounds less often, and a probability shows that more than its layer does
        bound, what = LAYER_BOUNDS[trial.precision], "of the last layer's largest value"
        fused = _get(context, remote, written, last)
        error = difference(fused, last, float(np.abs(last).max(initial=0.0)))
    good = error <= bound
    context.emit(
        "fused_error",
        Status.PASS if good else Status.FAIL,
        trial=trial,
        value=error if np.isfinite(error) else None,
        attributes={"classes": len(top), "bound": bound, "relative_to": what},
    )
    assert good, f"the fused plan differs from the unfused one by {error:.3g} {what}; the bound is {bound:.2g}"


def _of_probabilities(model: Model, top: Sequence[TopClass], last: F32) -> float:
    """Largest relative difference of the first classes' probabilities; infinite where they are not the first."""
    unfused = last.astype(np.float64).ravel()
    if not isinstance(model.layers[-1], Softmax):
        unfused = np.exp(unfused - unfused.max())
        unfused /= unfused.sum()
    lowest = min(unfused[answer.id] for answer in top)
    if int((unfused > lowest * (1 + FUSED_BOUND)).sum()) > len(top):
        return float("inf")
    return float(max(abs(answer.probability - unfused[answer.id]) / max(unfused[answer.id], 1e-12) for answer in top))


def reference(model: Model, tensor: F32) -> Iterator[tuple[F32, float]]:
    """Every layer's output by the numpy oracle, and its largest magnitude before ReLU6 cuts it off."""
    scale = 0.0

    def apply(_: int, layer: Layer, inputs: Sequence[F32]) -> F32:
        nonlocal scale
        cut = getattr(layer, "activation", None) is Activation.RELU6
        uncut = dataclasses.replace(layer, activation=Activation.LINEAR) if cut else layer  # type: ignore[call-arg]
        output = apply_layer(uncut, inputs)
        scale = float(np.abs(output).max(initial=0.0))
        return np.clip(output, np.float32(0), np.float32(6)) if cut else output

    for output in walk(model, tensor, apply):
        yield output, scale


def difference(given: F32, expected: F32, largest: float) -> float:
    """Largest difference as a fraction of `largest`; infinite for shapes or values unlike."""
    if given.shape != expected.shape or not np.isfinite(given).all():
        return float("inf")
    distance = float(np.abs(given.astype(np.float64) - expected).max(initial=0.0))
    return distance / largest if largest else (0.0 if distance == 0 else float("inf"))


def _input(context: Context, trial: Trial) -> tuple[F32, str]:
    read = context.model(trial.model)
    if read.formation is None:
        noise = np.random.default_rng(0).standard_normal(read.input_shape)
        return noise.astype(np.float32), "noise of seed 0"
    photo = context.photos[0]
    return form(read, read_picture(photo.path), "center"), photo.name


def _send(context: Context, remote: Remote, trial: Trial, tensor: F32) -> PurePosixPath:
    local = context.job.work / f"{trial.id}.f32"
    local.write_bytes(np.ascontiguousarray(tensor, "<f4").tobytes())
    return remote.send("input.f32", local)


def _fetch(context: Context, remote: Remote, record: ActivationRecord, path: PurePosixPath, expected: F32) -> F32:
    """A layer's file as the record and the host say its shape is."""
    shape = (record.rows, record.cols, record.channels)
    if shape != expected.shape:
        raise ProgramError(
            f"{context.job.device.name}: layer {record.layer} has shape {shape} there, {expected.shape} here"
        )
    return _get(context, remote, path, expected)


def _get(context: Context, remote: Remote, path: PurePosixPath, like: F32) -> F32:
    """A file of the device as a tensor shaped as another."""
    local: Path = context.job.work / "layer.f32"
    remote.device.get(path, local, timeout_s=600)
    data = local.read_bytes()
    local.unlink()
    if len(data) != 4 * like.size:
        raise ProgramError(
            f"{context.job.device.name}: {path.name} has {len(data)} bytes, {4 * like.size} belong there"
        )
    values: F32 = np.frombuffer(data, "<f4").reshape(like.shape)
    return values
