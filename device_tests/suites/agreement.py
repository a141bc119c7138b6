"""Agreement: every layer's output on the device against the host reference; fused plans against unfused ones.

A difference counts as a fraction of the layer's largest magnitude, taken before ReLU6 cuts values off: the cut hides
how large the numbers were that float32 had to round. The bound is one of LAYER_BOUNDS for every net and layer.

fp32 is compared with the oracle of the whole network; measured on lite0 (q8, NEON under qemu, the seven demo photos):
at most 7.5e-6, but 2.4e-5 of what the cut leaves. fp16 and int8 round every activation on purpose, and what a net makes
of that grows with its depth: a property of the net, not of the device. So each of their layers is compared with the
oracle of that layer alone, on what the device itself gave it; in int8 the largest magnitude is that of the photos it
was calibrated on where those reached farther, as its 256 steps have to. How far the last layer is from float32's in the
end is a figure of its own, the drift, whose bounds only catch what is no rounding any more.

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
FUSED_BOUND = 1e-5  # of a probability, in fp32
DRIFT_BOUNDS: Mapping[Precision, float] = {"fp16": 2e-2, "int8": 0.3}  # of the last layer's largest value
TIMEOUT_S = 1800.0


def test_layers(context: Context, remote: Remote, trial: Trial) -> None:
    """Every layer agrees with the numpy oracle within the bound."""
    model, bound = context.model(trial.model), LAYER_BOUNDS[trial.precision]
    tensor, subject = _input(context, trial)
    remote_input = _send(context, remote, trial, tensor)
    context.doing(f"{trial.id}: every layer's output on the device")
    folder = remote.folder("activations")
    files = remote.program.activations(
        remote.packed(trial.model), remote_input, folder, options=trial.options, timeout_s=TIMEOUT_S
    )
    assert [record.layer for record, _ in files] == list(range(len(model.layers))), "not one output for each layer"
    given: list[F32] = []
    expected = reference(model, tensor) if trial.precision == "fp32" else each_alone(model, tensor, given)
    worst: tuple[float, str] = (0.0, "")
    wrong: list[str] = []
    for (record, path), (right, scale) in zip(files, expected, strict=True):
        name = f"{record.layer} {model.layers[record.layer].name}"
        context.doing(f"{trial.id}: layer {name}")
        given.append(_fetch(context, remote, record, path, right))
        error = difference(given[-1], right, max(scale, _calibrated(trial, model, record.layer)))
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
        attributes={"layers": len(model.layers), "photo": subject, "bound": bound},
    )
    assert not wrong, f"{len(wrong)} of {len(model.layers)} layers differ from the host reference, first {wrong[0]}"
    if trial.precision != "fp32":
        _check_drift(context, trial, tensor, given[-1])
    _check_fused(context, remote, trial, remote_input, given[-1])


def _calibrated(trial: Trial, model: Model, layer: int) -> float:
    """The largest magnitude that int8's 256 steps have to reach, 0 in other precisions."""
    measured = model.ranges[layer + 1] if trial.precision == "int8" and model.ranges else None
    return max(abs(measured.low), abs(measured.high)) if measured is not None else 0.0


def _check_drift(context: Context, trial: Trial, tensor: F32, last: F32) -> None:
    """How far all layers together have led away from float32."""
    context.doing(f"{trial.id}: float32 on the host")
    (exact, scale) = list(reference(context.model(trial.model), tensor))[-1]
    drift, bound = difference(last, exact, scale), DRIFT_BOUNDS[trial.precision]
    one, other = (values.astype(np.float64).ravel() for values in (last, exact))
    lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
    good = drift <= bound
    context.emit(
        "drift",
        Status.PASS if good else Status.FAIL,
        trial=trial,
        value=drift if np.isfinite(drift) else None,
        attributes={"bound": bound, "cosine": float(one @ other) / lengths if lengths > 0 else None},
    )
    assert good, f"the last layer is {drift:.3g} of its largest value away from float32's; the bound is {bound:.2g}"


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
    else:  # a fused step rounds less often: the two plans drift apart as each does from float32
        bound, what = DRIFT_BOUNDS[trial.precision], "of the last layer's largest value"
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
        output, scale = _alone(layer, inputs)
        return output

    for output in walk(model, tensor, apply):
        yield output, scale


def each_alone(model: Model, tensor: F32, given: Sequence[F32]) -> Iterator[tuple[F32, float]]:
    """As reference(), but each layer reads what was given for the layers before it: `given` grows meanwhile."""
    for layer in model.layers:
        yield _alone(layer, [tensor if number < 0 else given[number] for number in layer.inputs])


def _alone(layer: Layer, inputs: Sequence[F32]) -> tuple[F32, float]:
    cut = getattr(layer, "activation", None) is Activation.RELU6
    uncut = dataclasses.replace(layer, activation=Activation.LINEAR) if cut else layer  # type: ignore[call-arg]
    output = apply_layer(uncut, inputs)
    scale = float(np.abs(output).max(initial=0.0))
    return (np.clip(output, np.float32(0), np.float32(6)) if cut else output), scale


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
