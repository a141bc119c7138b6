"""Small ONNX networks: nodes in, a whole file out, and what ONNX's own reference says they compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

Array = npt.NDArray[Any]
SHAPE = (6, 9, 11)  # channels, rows, columns
NEWEST = 24


def model(
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, Array] | None = None,
    *,
    shape: Sequence[int | str] = (1, *SHAPE),
    opset: int = NEWEST,
    output: str = "y",
    metadata: Mapping[str, str] | None = None,
) -> onnx.ModelProto:
    """A file whose input is x; ends at `output`."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    helper.set_model_props(made, dict(metadata or {}))
    return made


def classified(
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, Array],
    features: int,
    *,
    flat: bool = False,
    **options: Any,
) -> onnx.ModelProto:
    """The nodes, which end at y, and behind them five random sums over all of their output: a classifier."""
    draw = np.random.default_rng(9)
    more = dict(constants) | {"sums": draw.standard_normal((features, 5)).astype(np.float32)}
    tail = [helper.make_node("MatMul", ["y" if flat else "y-flat", "sums"], ["classes"], "sums")]
    if not flat:
        tail.insert(0, helper.make_node("Flatten", ["y"], ["y-flat"], "flatten"))
    return model([*nodes, *tail], more, output="classes", **options)


def reference(made: onnx.ModelProto, tensor: Array) -> Array:
    """What ONNX's reference evaluator computes for x (batch, channels, rows, columns)."""
    (found,) = ReferenceEvaluator(made).run(None, {"x": tensor})
    return np.asarray(found)
