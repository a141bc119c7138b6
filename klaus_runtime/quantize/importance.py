"""How much an error of each layer's outputs costs at the end, from unlabelled photos.

For small errors e of a layer's output, KL(float || quantized) is about half of e' F e, F the Fisher information: the
covariance of the gradient of log p(class) with classes drawn from the network's own answer (so no labels are needed).
Its diagonal, summed over positions, is one number an output channel: LeCun et al., Optimal Brain Damage, 1990, and
Choi et al., 2017 (arXiv:1612.01543) weigh quantization errors so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from klaus_runtime import forward
from klaus_runtime.model import F32, Convolution, FullConnect, Model, Softmax
from klaus_runtime.quantize.gradient import Graph

F64 = npt.NDArray[np.float64]
_BATCH = 8


def measure(
    model: Model, tensors: F32, *, seed: int, report: Callable[[str, int, int], None] = lambda *_: None
) -> list[F64 | None]:
    """For each layer with weights (outputs,): nats of KL per squared error of an output before its activation.

    An output whose errors never showed gets a thousandth of its layer's mean, so that nothing is free.
    """
    rng = np.random.default_rng(seed)
    graph = Graph(model)
    sums: list[F64 | None] = [
        np.zeros(len(layer.weights.bias)) if isinstance(layer, Convolution | FullConnect) else None
        for layer in model.layers
    ]

    def visit(number: int, _layer: Convolution | FullConnect, _inputs: Sequence[F32], _output: F32, slope: F32) -> None:
        total = sums[number]
        assert total is not None
        total += np.einsum("nrck,nrck->k", slope, slope)

    for begin in range(0, len(tensors), _BATCH):
        report("importance", begin, len(tensors))
        batch = tensors[begin : begin + _BATCH]
        outputs = graph.forward(batch)
        graph.backward(batch, outputs, _drawn_slope(model, outputs[-1], rng), visit)
    return [None if total is None else _floored(total / (2 * len(tensors))) for total in sums]


def _drawn_slope(model: Model, last: F32, rng: np.random.Generator) -> F32:
    """Gradient of -log p of a class drawn from the answer itself."""
    rows = last.reshape(len(last), -1)
    ends_in_softmax = isinstance(model.layers[-1], Softmax)
    share = rows if ends_in_softmax else forward.softmax(rows)
    drawn = (share.cumsum(axis=1) < rng.random((len(share), 1)) * share.sum(axis=1, keepdims=True)).sum(axis=1)
    drawn = np.minimum(drawn, share.shape[1] - 1)
    picked = np.arange(len(share))
    if ends_in_softmax:
        slope = np.zeros_like(share)
        slope[picked, drawn] = -1 / np.maximum(share[picked, drawn], np.float32(1e-6))
        return slope
    slope = share.copy()
    slope[picked, drawn] -= 1
    return slope


def _floored(importance: F64) -> F64:
    return np.maximum(importance, max(1e-3 * float(importance.mean()), 1e-30))
