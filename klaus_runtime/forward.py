"""The parts of a forward pass that do not depend on who computes the layers: their order, patches, averaging."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np

from klaus_runtime import images, shapes
from klaus_runtime.engine import Crop
from klaus_runtime.errors import InputError
from klaus_runtime.model import F32, U8, CcvFormation, Layer, Model, Softmax

# (index of the layer, the layer, its inputs) -> its output
ApplyLayer = Callable[[int, Layer, Sequence[F32]], F32]
# (tensors (n, rows, cols, channels), first layer, layer to stop before) -> the last one's outputs (n, ...)
RunLayers = Callable[[F32, int, int], F32]


def walk(model: Model, tensor: F32, apply: ApplyLayer, first: int = 0, stop: int | None = None) -> Iterator[F32]:
    """Yields the outputs of layers first .. stop - 1, `tensor` being the output of the layer before `first`.

    An output is let go as soon as no later layer reads it.
    """
    stop = len(model.layers) if stop is None else stop
    last_reader = {first - 1: first - 1}
    for index in range(first, stop):
        last_reader |= dict.fromkeys(model.layers[index].inputs, index)
    kept = {first - 1: tensor}
    for index in range(first, stop):
        layer = model.layers[index]
        output = apply(index, layer, [kept[read] for read in layer.inputs])
        for read in set(layer.inputs):
            if last_reader[read] == index:
                del kept[read]
        if index in last_reader:
            kept[index] = output
        yield output


def check_tensors(model: Model, tensors: F32, *, batch: bool) -> F32:
    """The tensors as contiguous float32; raises InputError where they are not what the model reads."""
    array = np.ascontiguousarray(tensors, dtype=np.float32)
    shape = array.shape[1:] if batch else array.shape
    if shape != model.input_shape or (batch and array.ndim != 4):
        wanted = ", ".join(map(str, (*(("n",) if batch else ()), *model.input_shape)))
        raise InputError(f"model {model.name!r} reads tensors ({wanted}); got {array.shape}")
    if not np.isfinite(array).all():
        raise InputError(f"the tensor given to model {model.name!r} has values that are infinite or not a number")
    return array


def probabilities(model: Model, run: RunLayers, picture: U8, *, patches: Literal[1, 10], crop: Crop = "center") -> F32:
    """Class probabilities (outputs,) of one picture: what `Engine.probabilities` promises, on top of `run`."""
    if patches == 1:
        tensor = images.form(model, picture, crop)
        return average(model, run(tensor[None], 0, len(model.layers)))
    if patches != 10:
        raise InputError(f"{patches} patches were asked for; 1 and 10 are possible")
    if crop != "center":
        raise InputError("10 patches are cut from the middle and the corners: they cannot go without a crop")
    return average(model, run_patches(model, run, picture))


def run_patches(model: Model, run: RunLayers, picture: U8, *, mirrored: bool = True) -> F32:
    """Last layer's outputs (10, ...) of ccv's patches; without `mirrored` only the first 5.

    The layers up to the scan layer run once on the whole picture (and once on its mirror image); the patches are cut
    from that result, so borders inside the picture are not zeros.
    """
    scan = model.formation.scan_layer if isinstance(model.formation, CcvFormation) else None
    if scan is None:
        raise InputError(f"model {model.name!r} does not cut patches; classify with 1 patch")
    rows, cols, _ = shapes.infer(model)[scan]
    whole = images.feed(model, picture)
    views = np.stack([whole, whole[:, ::-1]] if mirrored else [whole])
    cut = np.concatenate([images.cut_patches(activation, rows, cols) for activation in run(views, 0, scan + 1)])
    return run(cut, scan + 1, len(model.layers))


def average(model: Model, outputs: F32) -> F32:
    """The mean (outputs,) of the softmax of every row of last layer outputs (n, 1, 1, outputs)."""
    rows = outputs.reshape(len(outputs), -1)
    if not np.isfinite(rows).all():
        raise InputError(f"model {model.name!r} answers with values that are infinite or not a number")
    if not isinstance(model.layers[-1], Softmax):
        rows = softmax(rows)
    mean: F32 = rows.astype(np.float64).mean(axis=0).astype(np.float32)
    return mean


def softmax(rows: F32) -> F32:
    """Softmax over the last axis, maximum subtracted, computed in float64."""
    wide = rows.astype(np.float64)
    powers = np.exp(wide - wide.max(axis=-1, keepdims=True))
    result: F32 = (powers / powers.sum(axis=-1, keepdims=True)).astype(np.float32)
    return result
