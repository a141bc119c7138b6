"""ONNX graphs out of any bytes: valid protocol buffers with operators, attributes and constants drawn by them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from klaus_runtime.readers.onnx_operators import HANDLERS

_OPERATORS = (*sorted(HANDLERS), "Sigmoid")
_SIZES = (1, 2, 3, 4, 6, 8, 0, 5, 7, 9, 16, 33, -1, 65536, 1 << 31, 1 << 40)
_NAMES = (
    "kernel_shape", "strides", "pads", "dilations", "group", "auto_pad", "ceil_mode", "count_include_pad", "axis",
    "axes", "starts", "ends", "split", "num_outputs", "size", "alpha", "beta", "bias", "epsilon", "transA", "transB",
    "min", "max", "mode", "value", "value_ints", "allowzero", "spatial", "storage_order", "body",
)  # fmt: skip


class _Choices:
    """Bytes as decisions; zeros once they are used up."""

    def __init__(self, data: bytes) -> None:
        self.data, self.position = data, 0

    def below(self, limit: int) -> int:
        self.position += 1
        return self.data[self.position - 1] % limit if self.position <= len(self.data) else 0

    def of(self, values: Any) -> Any:
        return values[self.below(len(values))]

    @property
    def more(self) -> bool:
        return self.position < len(self.data)


def build(data: bytes) -> bytes:
    """A serialized model."""
    choose = _Choices(data)
    known = ["x"]
    constants: list[TensorProto] = []
    nodes: list[onnx.NodeProto] = []
    while choose.more and len(nodes) < 24:
        if choose.below(4) == 0:
            constants.append(_constant(choose, f"c{len(constants)}"))
            continue
        operator = choose.of(_OPERATORS)
        names = [known[-1 - choose.below(min(3, len(known)))]]
        for _ in range(choose.below(5)):
            pool = [entry.name for entry in constants] or known
            names.append(
                pool[-1 - choose.below(min(6, len(pool)))] if choose.below(8) else choose.of(["", "x", "gone"])
            )
        outputs = [f"v{len(known) + number}" for number in range(1 + (choose.below(6) == 0))]
        node = helper.make_node(operator, names, outputs)
        _attributes(choose, operator, node)
        nodes.append(node)
        known += outputs
    shape = [choose.of(["n", 1, 1, 2]), *(choose.of(_SIZES[:11]) for _ in range(3))]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(known[-1], TensorProto.FLOAT, None)],
        constants,
    )
    opset = choose.of([24, 9, 13, 18, 7])
    made: bytes = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)]).SerializeToString()
    return made


def _attributes(choose: _Choices, operator: str, node: onnx.NodeProto) -> None:
    likely = {
        "Conv": ("pads", "strides", "group", "auto_pad"), "MaxPool": ("kernel_shape", "pads", "strides", "ceil_mode"),
        "AveragePool": ("kernel_shape", "pads", "count_include_pad", "ceil_mode"), "LRN": ("size",),
        "Concat": ("axis",), "Split": ("axis", "split"), "Slice": ("starts", "ends", "axes"), "Gemm": ("transB",),
    }.get(operator, ())  # fmt: skip
    for name in dict.fromkeys([*(word for word in likely if choose.below(4)), *_odd(choose)]):
        if name in ("kernel_shape", "strides", "dilations"):
            value: Any = [choose.of(_SIZES), choose.of(_SIZES)]
        elif name in ("pads", "starts", "ends", "axes", "split", "value_ints"):
            value = [choose.of(_SIZES) for _ in range(choose.of([4, 2, 1, 8, 3, 0]))] or [1]
        elif name in ("auto_pad", "mode"):
            value = choose.of(["SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET", "constant", "?"])
        elif name in ("alpha", "beta", "bias", "epsilon", "min", "max"):
            value = choose.of([0.0, 6.0, 1.0, -1.0, 1e-5, float("nan"), 3e38, float("inf")])
        elif name == "value":
            value = _constant(choose, "t")
        elif name == "body":
            value = helper.make_graph([], "b", [], [])
        else:
            value = choose.of(_SIZES)
        node.attribute.append(helper.make_attribute(name, value))


def _odd(choose: _Choices) -> list[str]:
    return [choose.of(_NAMES)] if choose.below(6) == 0 else []


def _constant(choose: _Choices, name: str) -> TensorProto:
    dims = [choose.of(_SIZES[:12]) for _ in range(choose.of([1, 4, 2, 0, 3, 5]))]
    if choose.below(3) == 0:
        values = [choose.of(_SIZES) for _ in range(choose.of([1, 2, 4, 8]))]
        return numpy_helper.from_array(np.array(values, np.int64), name)
    kind = choose.of([np.float32, np.float32, np.float16, np.float64, np.int8])
    filler = choose.of([1.0, 0.5, -1.0, 0.0, float("nan"), float("inf")])
    count = int(np.prod(dims)) if dims else 1
    if count > 1 << 16:
        dims, count = [4], 4
    with np.errstate(all="ignore"):
        array = np.full(count, 1.0 if kind == np.int8 else filler).astype(kind)
    tensor = numpy_helper.from_array(array.reshape(dims), name)
    if choose.below(16) == 0:
        tensor.dims[:] = [choose.of(_SIZES) for _ in range(4)]
    return tensor
