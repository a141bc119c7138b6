"""Agreement: every layer's output on the device against the host reference; fused plans against unfused ones.

A difference counts as a fraction of the layer's largest magnitude, taken before ReLU6 cuts values off: the cut hides
how large the numbers were that float32 had to round. The bound is one of LAYER_BOUNDS for every net and layer.

fp32 is compared with the oracle of the whole network; measured on lite0 (q8, NEON under qemu, the seven demo photos):
at most 7.5e-6, but 2.4e-5 of what the cut leaves. fp16 and int8 round every activation on purpose, and what a net makes
of that grows with its depth: a property of the net, not of the device. So each of their layers is compared with the
oracle of that layer alone, on what the device itself gave it. In int8 that oracle rounds weights and activations as the
device has to (planned.py), so that a layer may be one of its steps off, and none was but normalizations. A step is
1/255 to 2/255 of the largest magnitude, which is that of the photos the net was calibrated on where those reached
farther. How far the last layer is from float32's in the end is a figure of its own, the drift, whose bounds only catch
what is no rounding any more.

A fused plan that takes the same steps as the unfused one has to answer the same numbers. Where it fuses an addition or
an activation it rounds less often, and the plans drift apart: in int8 lite0's by up to 3e-2, with a cosine of 0.998.
That is no measure of a kernel, so int8 is compared with the fused plan's own arithmetic on the host, which lite0's
answers equal to the bit; fp16 with the unfused plan, from which lite0 is at most 3.7e-3 away.

The input is a real photo formed on the host, so that device and host read the same numbers; a network that takes no
pictures gets noise from a seed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from device_tests.errors import ProgramError
from device_tests.int8_oracle import Planned
from device_tests.plan import Precision, Trial
from device_tests.program_records import ActivationRecord, StepRecord, TopClass
from device_tests.suites.context import Context, Remote
from klaus_runtime.forward import walk
from klaus_runtime.images import form, read_picture
from klaus_runtime.model import F32, Activation, Layer, Model, Softmax
from klaus_runtime.reference import apply_layer
from reports.record import Status

LAYER_BOUNDS: Mapping[Precision, float] = {"fp32": 1e-5, "fp16": 1e-2, "int8": 8e-3}  # of the layer's largest value
ONE_STEP = 1.01  # of int8's: what a layer that gives int8 may be off, 8e-3 at the most
FLOAT_BOUND = 1e-5  # of the largest value of a layer that gives float32 in int8: the last one, or one without a kernel
FUSED_BOUND = 1e-5  # of a probability, in fp32
SAME_BOUND = 1e-6  # of the last layer's largest value: the same steps
FUSED_BOUNDS: Mapping[Precision, float] = {"fp16": 1e-2, "int8": 2e-3}  # likewise: steps that round less often
SPREAD_BOUND = 5e-2  # likewise: int8, where a normalization's step off is carried on by all layers behind it
THREADS = 3  # that a fused plan is run on besides one
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
    unfused = remote.program.plan(remote.packed(trial.model), options=(*trial.options, "--unfused"))
    if trial.precision == "int8":
        expected = _in_int8(Planned(model, unfused), tensor, given)
    else:
        alone = reference(model, tensor) if trial.precision == "fp32" else each_alone(model, tensor, given)
        expected = ((right, scale, bound) for right, scale in alone)
    worst: tuple[float, str] = (0.0, "")
    wrong: list[str] = []
    for (record, path), (right, scale, most) in zip(files, expected, strict=True):
        name = f"{record.layer} {model.layers[record.layer].name}"
        context.doing(f"{trial.id}: layer {name}")
        given.append(_fetch(context, remote, record, path, right))
        error = difference(given[-1], right, scale)
        worst = max(worst, (error, name))
        if not error <= most:
            wrong.append(name)
            context.emit(
                "layer_error",
                Status.FAIL,
                trial=trial,
                subject=name,
                value=error if np.isfinite(error) else None,
                message=f"differs by {error:.3g} of the layer's largest value; the bound is {most:.2g}",
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
    _check_fused(context, remote, trial, remote_input, unfused, tensor, given[-1])


def _in_int8(plan: Planned, tensor: F32, given: Sequence[F32]) -> Iterator[tuple[F32, float, float]]:
    """As each_alone(), in the arithmetic of a plan of one step a layer; and the bound: one step of int8."""
    for step in plan.steps:
        (number,) = step.layers
        output = plan.step(step, tensor, given)
        scale = max(float(np.abs(output).max(initial=0.0)), plan.reach(number))
        loose = step.dtypes[1] == "i8" and not plan.exact(step)
        yield output, scale, ONE_STEP * float(plan.quantization(number).scale) / scale if loose else FLOAT_BOUND


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


def _check_fused(
    context: Context,
    remote: Remote,
    trial: Trial,
    remote_input: PurePosixPath,
    unfused: Sequence[StepRecord],
    tensor: F32,
    last: F32,
) -> None:
    """The fastest plan answers as the plan of one step a layer does, and alike on any threads."""
    context.doing(f"{trial.id}: fused plan")
    answers: list[F32] = []
    for threads in (1, THREADS):
        written = remote.folder("fused") / f"last-{threads}.f32"
        bench = remote.program.bench(
            remote.packed(trial.model),
            runs=1,
            warmup=0,
            threads=threads,
            precision=trial.precision,
            input_file=remote_input,
            logits_file=written,
            options=("--memory", trial.memory),
            timeout_s=TIMEOUT_S,
        )
        top = bench.result.top
        if not top or any(not 0 <= answer.id < last.size for answer in top):
            raise ProgramError(
                f"{context.job.device.name}: bench answered {len(top)} classes, some outside the model's"
            )
        answers.append(_get(context, remote, written, last))
    model = context.model(trial.model)
    if trial.precision == "fp32":
        bound, what = FUSED_BOUND, "of a probability"
        error = _of_probabilities(model, top, last)
    else:
        steps = remote.program.plan(remote.packed(trial.model), options=trial.options)
        bound, right = _expected_of(model, trial.precision, steps, unfused, tensor, last)
        what = "of the last layer's largest value"
        error = difference(answers[0], right, float(np.abs(right).max(initial=0.0)))
    if not np.array_equal(answers[0], answers[1]):
        error = float("inf")
    good = error <= bound
    context.emit(
        "fused_error",
        Status.PASS if good else Status.FAIL,
        trial=trial,
        value=error if np.isfinite(error) else None,
        attributes={"classes": len(top), "bound": bound, "relative_to": what},
    )
    assert np.array_equal(answers[0], answers[1]), f"{THREADS} threads give other numbers than one"
    assert good, f"the fused plan is {error:.3g} {what} off; the bound is {bound:.2g}"


def _expected_of(
    model: Model,
    precision: Precision,
    steps: Sequence[StepRecord],
    unfused: Sequence[StepRecord],
    tensor: F32,
    last: F32,
) -> tuple[float, F32]:
    """What a fused plan has to answer, and how far from it, of its largest value, it may."""
    if [(step.layers, step.variant) for step in steps] == [(step.layers, step.variant) for step in unfused]:
        return SAME_BOUND, last
    if precision != "int8":
        return FUSED_BOUNDS[precision], last
    spread = any(step.op == "lrn" and "i8" in step.dtypes for step in steps)
    return SPREAD_BOUND if spread else FUSED_BOUNDS[precision], Planned(model, steps).run(tensor)


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
