"""ONNX: every operator against ONNX's own reference evaluator; everything else an error that names the node."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from klaus_runtime import registry, shapes
from klaus_runtime.errors import InputError
from klaus_runtime.evaluate import FastEngine
from klaus_runtime.model import (
    Activation,
    Add,
    Concat,
    Convolution,
    CropFormation,
    FullConnect,
    Model,
    Pool,
    Slice,
)
from klaus_runtime.readers import onnx as reader
from klaus_runtime.reference import NumpyEngine

from .attempt import attempt
from .onnx_files import NEWEST, SHAPE, Array, classified, model, reference

node = helper.make_node
CHANNELS, ROWS, COLS = SHAPE
DRAW = np.random.default_rng(3)


def f32(*shape: int) -> Array:
    return DRAW.standard_normal(shape).astype(np.float32)


def read(made: onnx.ModelProto, folder: Path | None = None) -> Model:
    return reader.parse(made.SerializeToString(), Path("test.onnx"), folder=folder)


def agrees(
    nodes: Sequence[onnx.NodeProto], constants: Mapping[str, Array] | None = None, *, batch: int = 1, **options: Any
) -> Model:
    """Reads the nodes (x to y) with a classifier behind them and compares with the reference; the model.

    batch: more than 1 for LRN, of which onnx 1.23's reference computes as many channels as the batch has pictures.
    """
    tensor = np.random.default_rng(5).standard_normal((batch, *SHAPE)).astype(np.float32)
    ends_flat = reference(model(nodes, constants, opset=options.get("opset", NEWEST)), tensor)
    made = classified(nodes, constants or {}, math.prod(ends_flat.shape[1:]), flat=ends_flat.ndim == 2, **options)
    wanted = reference(made, tensor)
    ours = read(made)
    got = NumpyEngine(ours).logits(np.ascontiguousarray(tensor.transpose(0, 2, 3, 1)))
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4 * float(np.abs(wanted).max()))
    return ours


def kinds(found: Model) -> list[str]:
    return [type(layer).__name__ for layer in found.layers[:-1]]  # without the classifier of the test


# --------------------------------------------------------------------------------------------------- convolutions


@pytest.mark.parametrize(
    ("shape", "attributes"),
    [
        ((4, 6, 3, 3), {}),
        ((4, 6, 3, 3), {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
        ((4, 6, 3, 5), {"pads": [1, 0, 2, 3], "strides": [2, 1], "kernel_shape": [3, 5]}),
        ((4, 3, 3, 3), {"group": 2, "pads": [1, 1, 1, 1]}),
        ((6, 1, 3, 3), {"group": 6}),
        ((12, 1, 5, 5), {"group": 6, "auto_pad": "SAME_UPPER", "strides": [2, 2]}),
        ((4, 6, 4, 4), {"auto_pad": "SAME_UPPER"}),
        ((4, 6, 4, 4), {"auto_pad": "SAME_LOWER"}),
        ((4, 6, 4, 3), {"auto_pad": "SAME_LOWER", "strides": [2, 3]}),
        ((4, 6, 3, 3), {"auto_pad": "VALID", "strides": [2, 2]}),
        ((4, 6, 1, 1), {"pads": [1, 1, 1, 1]}),
    ],
)
def test_conv(shape: tuple[int, ...], attributes: dict[str, Any]) -> None:
    weights, bias = f32(*shape), f32(shape[0])
    agrees([node("Conv", ["x", "w"], ["y"], "c", **attributes)], {"w": weights})
    found = agrees([node("Conv", ["x", "w", "b"], ["y"], "c", **attributes)], {"w": weights, "b": bias})
    layer = found.layers[0]
    assert isinstance(layer, Convolution)
    np.testing.assert_array_equal(layer.weights.values, weights.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(layer.weights.bias, bias)


def test_activations_and_batch_norm_join_the_convolution() -> None:
    constants = {"w": f32(4, 6, 3, 3), "b": f32(4), "s": f32(4), "o": f32(4), "m": f32(4), "v": f32(4) ** 2,
                 "six": np.array(6, np.float32), "zero": np.array(0, np.float32)}  # fmt: skip
    nodes = [
        node("Conv", ["x", "w", "b"], ["c"]),
        node("BatchNormalization", ["c", "s", "o", "m", "v"], ["n"], epsilon=1e-3),
        node("Clip", ["n", "zero", "six"], ["y"]),
    ]
    found = agrees(nodes, constants)
    layer = found.layers[0]
    assert kinds(found) == ["Convolution"]
    assert isinstance(layer, Convolution)
    assert layer.activation is Activation.RELU6
    # The scale stands beside the weights, which are those of the file.
    np.testing.assert_array_equal(layer.weights.values, constants["w"].transpose(0, 2, 3, 1))
    assert layer.weights.scale is not None
    np.testing.assert_allclose(layer.weights.scale, constants["s"] / np.sqrt(constants["v"] + 1e-3), rtol=1e-6)


def test_two_norms_and_two_activations_in_a_row() -> None:
    constants = {"w": f32(4, 6, 1, 1), "s": f32(4), "o": f32(4), "m": f32(4), "v": f32(4) ** 2}
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        node("BatchNormalization", ["c", "s", "o", "m", "v"], ["n"]),
        node("BatchNormalization", ["n", "o", "s", "m", "v"], ["n2"]),
        node("Relu", ["n2"], ["r"]),
        node("Clip", ["r", "zero", "six"], ["y"]),
    ]
    found = agrees(nodes, constants | {"six": np.array(6, np.float32), "zero": np.array(0, np.float32)})
    assert kinds(found) == ["Convolution"]
    behind = [*nodes[:4], node("BatchNormalization", ["r", "s", "o", "m", "v"], ["y"])]
    found = agrees(behind, constants)
    assert kinds(found) == ["Convolution", "Convolution"]


def test_what_others_read_is_not_changed() -> None:
    """The convolution is read by two nodes, or under two names: neither may put its activation into it."""
    constants = {"w": f32(6, 6, 1, 1), "s": f32(6), "o": f32(6), "m": f32(6), "v": f32(6) ** 2}
    conv = node("Conv", ["x", "w"], ["c"])
    for nodes in (
        [conv, node("Relu", ["c"], ["r"]), node("Add", ["r", "c"], ["y"])],
        [conv, node("Identity", ["c"], ["i"]), node("Relu", ["i"], ["r"]), node("Add", ["r", "c"], ["y"])],
        [conv, node("Relu", ["c"], ["r"]), node("Identity", ["c"], ["i"]), node("Add", ["r", "i"], ["y"])],
        [conv, node("BatchNormalization", ["c", "s", "o", "m", "v"], ["n"]), node("Concat", ["n", "c"], ["y"], axis=1)],
        [conv, node("Flatten", ["c"], ["f"]), node("Relu", ["f"], ["g"]), node("Reshape", ["g", "t"], ["r"]),
         node("Add", ["r", "c"], ["y"])],
    ):  # fmt: skip
        found = agrees(nodes, constants | {"t": np.array([1, *SHAPE], np.int64)})
        assert isinstance(found.layers[0], Convolution)
        assert found.layers[0].activation is Activation.LINEAR
        assert found.layers[0].weights.scale is None


def test_weights_that_nodes_share_are_one_array() -> None:
    nodes = [node("Conv", ["x", "w"], ["a"]), node("Conv", ["a", "w"], ["y"])]
    one, other = agrees(nodes, {"w": f32(6, 6, 1, 1)}).layers[:2]
    assert isinstance(one, Convolution)
    assert isinstance(other, Convolution)
    assert one.weights.values is other.weights.values
    assert one.name != other.name


def test_pad_before_a_convolution_is_part_of_it() -> None:
    pads = np.array([0, 0, 1, 2, 0, 0, 1, 0], np.int64)
    nodes = [
        node("Pad", ["x", "pads"], ["p"]),
        node("Conv", ["p", "w"], ["y"], pads=[0, 0, 1, 1], strides=[2, 2]),
    ]
    found = agrees(nodes, {"pads": pads, "w": f32(4, 6, 3, 3)})
    assert kinds(found) == ["Convolution"]
    nodes[0] = node("Pad", ["x"], ["p"], pads=pads.tolist())
    agrees(nodes, {"w": f32(4, 6, 3, 3)}, opset=9)


# ---------------------------------------------------------------------------------------------------------- pools


POOLS: list[dict[str, Any]] = [
    {"kernel_shape": [3, 3], "strides": [2, 2]},
    {"kernel_shape": [3, 2], "strides": [2, 3], "pads": [1, 0, 1, 1]},
    {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1},
    {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1, "pads": [1, 1, 1, 1]},
    {"kernel_shape": [2, 3], "strides": [3, 4], "ceil_mode": 1, "pads": [0, 1, 1, 2]},
    {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
    {"kernel_shape": [2, 2], "auto_pad": "SAME_LOWER"},
    {"kernel_shape": [4, 4], "strides": [3, 3], "auto_pad": "VALID"},
]


@pytest.mark.parametrize("attributes", POOLS)
def test_pools(attributes: dict[str, Any]) -> None:
    for operator in ("MaxPool", "AveragePool"):
        found = agrees([node(operator, ["x"], ["y"], **attributes)])
        assert isinstance(found.layers[0], Pool)


@pytest.mark.parametrize("attributes", [case for case in POOLS if not case.get("ceil_mode")])
def test_averages_that_count_their_padding(attributes: dict[str, Any]) -> None:
    agrees([node("AveragePool", ["x"], ["y"], count_include_pad=1, **attributes)])
    pads = np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64)
    nodes = [node("Pad", ["x", "pads"], ["p"]), node("AveragePool", ["p"], ["y"], count_include_pad=1, **attributes)]
    if max(attributes["kernel_shape"]) > 2:
        agrees(nodes, {"pads": pads})


def test_averages_of_padding_that_is_not_there() -> None:
    found = agrees([node("AveragePool", ["x"], ["y"], kernel_shape=[2, 2], strides=[2, 2], count_include_pad=1,
                         ceil_mode=1)])  # fmt: skip
    assert isinstance(found.layers[0], Pool)


def test_global_average() -> None:
    agrees([node("GlobalAveragePool", ["x"], ["y"])])


# --------------------------------------------------------------------------------------------------- full connect


@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm_reorders_its_weights(transposed: int) -> None:
    inputs = math.prod(SHAPE)
    weights = f32(7, inputs) if transposed else f32(inputs, 7)
    flat = node("Flatten", ["x"], ["f"])
    found = agrees([flat, node("Gemm", ["f", "w", "b"], ["y"], transB=transposed)], {"w": weights, "b": f32(7)})
    layer = found.layers[0]
    assert isinstance(layer, FullConnect)
    ours = layer.weights.values.reshape(7, ROWS, COLS, CHANNELS).transpose(0, 3, 1, 2).reshape(7, -1)
    np.testing.assert_array_equal(ours, weights if transposed else weights.T)
    agrees([flat, node("Gemm", ["f", "w", "b"], ["y"], transB=transposed, alpha=0.5, beta=2.0)],
           {"w": weights, "b": f32(1, 7)})  # fmt: skip
    agrees([flat, node("Gemm", ["f", "w"], ["g"], transB=transposed), node("Relu", ["g"], ["y"])], {"w": weights})


def test_matmul_and_an_added_bias() -> None:
    nodes = [node("Flatten", ["x"], ["f"]), node("MatMul", ["f", "w"], ["m"]), node("Add", ["b", "m"], ["y"])]
    found = agrees(nodes, {"w": f32(math.prod(SHAPE), 7), "b": f32(7)})
    assert kinds(found) == ["FullConnect"]


def test_half_precision_weights_stay_so() -> None:
    weights = f32(4, 6, 3, 3).astype(np.float16)
    made = classified([node("Conv", ["x", "w"], ["y"])], {"w": weights}, 4 * 7 * 9)
    layer = read(made).layers[0]
    assert isinstance(layer, Convolution)
    assert layer.weights.values.dtype == np.float16


# ---------------------------------------------------------------------------------------------------- the others


def test_residuals_and_added_constants() -> None:
    conv = node("Conv", ["x", "w"], ["c"])
    weights = {"w": f32(6, 6, 1, 1)}
    found = agrees([conv, node("Add", ["c", "x"], ["a"]), node("Relu", ["a"], ["y"])], weights)
    assert isinstance(found.layers[1], Add)
    assert found.layers[1].activation is Activation.RELU
    for constant in (f32(6, 1, 1), f32(1, 6, 1, 1), f32(1), np.array(2.5, np.float32)):
        assert kinds(agrees([conv, node("Add", ["c", "k"], ["y"])], weights | {"k": constant})) == ["Convolution"]
    found = agrees([node("Add", ["x", "k"], ["y"])], {"k": f32(6, 1, 1)})
    assert kinds(found) == ["Convolution"]
    agrees([node("Add", ["x", "x"], ["y"])])


def test_sums_and_products() -> None:
    agrees([node("Relu", ["x"], ["r"]), node("Sum", ["x", "r", "x"], ["y"])])
    conv = node("Conv", ["x", "w"], ["c"])
    scale = [node("Unsqueeze", ["k", "axes"], ["u"]), node("Mul", ["u", "c"], ["y"])]
    constants = {"w": f32(6, 6, 1, 1), "k": f32(6), "axes": np.array([1, 2], np.int64)}
    found = agrees([conv, *scale], constants)
    assert kinds(found) == ["Convolution"]
    assert isinstance(found.layers[0], Convolution)
    np.testing.assert_array_equal(found.layers[0].weights.scale, constants["k"])
    agrees([conv, node("Unsqueeze", ["k"], ["u"], axes=[1, 2]), node("Mul", ["c", "u"], ["y"])],
           {name: constants[name] for name in "wk"}, opset=9)  # fmt: skip
    assert kinds(agrees([node("Mul", ["x", "k"], ["y"])], {"k": np.array(0.5, np.float32)})) == ["Convolution"]


# Real networks of the ONNX model zoo, which the package onnx brings without their weights.
REAL = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


def _with_weights(made: onnx.ModelProto) -> onnx.ModelProto:
    """Random numbers where the file asks for constants of a shape, kept at a level that survives many layers."""
    draw = np.random.default_rng(0)
    shapes_of = {tensor.name: numpy_helper.to_array(tensor) for tensor in made.graph.initializer}
    variances = {entry.input[4] for entry in made.graph.node if entry.op_type == "BatchNormalization"}
    for entry in made.graph.node:
        if entry.op_type == "ConstantOfShape":
            shape = tuple(shapes_of[entry.input[0]])
            spread = np.sqrt(2 / max(1, np.prod(shape[1:]))) if len(shape) > 1 else 0.1
            array = (draw.standard_normal(shape) * spread).astype(np.float32)
            if entry.output[0] in variances:
                array = 1 + np.abs(array)
            made.graph.initializer.append(numpy_helper.from_array(array, entry.output[0]))
        elif entry.op_type == "Softmax" and not entry.attribute:  # the reference takes a later version's default
            entry.attribute.append(helper.make_attribute("axis", 1))
    kept = [entry for entry in made.graph.node if entry.op_type != "ConstantOfShape"]
    del made.graph.node[:]
    made.graph.node.extend(kept)
    return made


class _Norm(OpRun):
    """LRN as its definition reads; onnx 1.23's own computes as many channels as the batch has pictures."""

    op_domain = ""

    def _run(self, x: Array, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0, size: int = 1) -> Any:
        reach = size // 2
        padded = np.pad(x**2, ((0, 0), (reach, reach), (0, 0), (0, 0)))
        sums = sum(padded[:, begin : begin + x.shape[1]] for begin in range(size))
        return ((x / (bias + alpha / size * sums) ** beta).astype(x.dtype),)


_Norm.__name__ = "LRN"


class _BatchNorm(OpRun):
    """BatchNormalization for inference; onnx 1.23's own for operator set 9 takes the picture's mean."""

    op_domain = ""

    def _run(self, x: Array, *constants: Array, epsilon: float = 1e-5, **_: Any) -> Any:
        scale, bias, mean, variance = (array.reshape(1, -1, 1, 1) for array in constants)
        return (((x - mean) / np.sqrt(variance + epsilon) * scale + bias).astype(x.dtype),)


_BatchNorm.__name__ = "BatchNormalization"


@pytest.mark.parametrize(
    "name",
    [
        "squeezenet",
        *(pytest.param(name, marks=pytest.mark.slow)
          for name in ("bvlc_alexnet", "zfnet512", "inception_v1", "inception_v2", "resnet50", "densenet121")),
    ],
)  # fmt: skip
def test_real_networks(name: str) -> None:
    path = REAL / f"light_{name}.onnx"
    if not path.is_file():
        pytest.skip(f"needs {path.name}, which this version of the package onnx does not bring")
    made = _with_weights(onnx.load(path))
    given = {tensor.name for tensor in made.graph.initializer}
    (source,) = (value for value in made.graph.input if value.name not in given)
    sizes = [dim.dim_value for dim in source.type.tensor_type.shape.dim]
    tensor = np.random.default_rng(1).uniform(-1, 1, sizes).astype(np.float32)
    (wanted,) = ReferenceEvaluator(made, new_ops=[_Norm, _BatchNorm]).run(None, {source.name: tensor})
    found = read(made)
    got = FastEngine(found).logits(np.ascontiguousarray(tensor.transpose(0, 2, 3, 1)))
    wanted = np.asarray(wanted).reshape(got.shape)
    np.testing.assert_allclose(got, wanted, rtol=1e-2, atol=2e-4 * float(np.abs(wanted).max()))


def test_relu_alone_and_clips_that_limit_nothing() -> None:
    assert kinds(agrees([node("Relu", ["x"], ["y"])])) == ["Activate"]
    assert kinds(agrees([node("Clip", ["x"], ["c"]), node("Relu", ["c"], ["y"])])) == ["Activate"]
    agrees([node("Clip", ["x", "zero"], ["y"])], {"zero": np.array(0, np.float32)})
    agrees([node("Clip", ["x"], ["y"], min=0.0)], opset=9)


def test_lrn() -> None:
    agrees([node("LRN", ["x"], ["y"], size=5, alpha=0.1, beta=0.75, bias=2.0)], batch=CHANNELS)
    agrees([node("LRN", ["x"], ["y"], size=3)], batch=CHANNELS)


def test_concat_split_and_slice() -> None:
    found = agrees([node("Concat", ["x"] * 19, ["y"], axis=1)])
    assert [len(layer.inputs) for layer in found.layers if isinstance(layer, Concat)] == [8, 8, 5]
    agrees([node("Split", ["x"], ["a", "b"], axis=1), node("Concat", ["b", "x", "a"], ["y"], axis=-3)], opset=17)
    agrees([node("Split", ["x", "s"], ["a", "b", "c"], axis=1), node("Concat", ["c", "a"], ["y"], axis=1)],
           {"s": np.array([1, 2, 3], np.int64)})  # fmt: skip
    agrees([node("Split", ["x"], ["a", "b"], axis=1, split=[1, 5]), node("Concat", ["b", "a"], ["y"], axis=1)], opset=9)
    halves = node("Split", ["x"], ["a", "b"], axis=1, num_outputs=2)
    found = agrees([halves, node("Relu", ["b"], ["y"])])
    assert [layer.begin for layer in found.layers if isinstance(layer, Slice)] == [3]
    for start, end, axis in ((1, 4, 1), (-2, 100, 1), (0, -1, -3)):
        constants = {name: np.array([value], np.int64) for name, value in zip("sea", (start, end, axis), strict=True)}
        agrees([node("Slice", ["x", "s", "e", "a"], ["y"])], constants)
        agrees([node("Slice", ["x"], ["y"], starts=[start], ends=[end], axes=[axis])], opset=9)
    whole = {"s": np.array([0, 1, 0, 0], np.int64), "e": np.array([1, 3, 1 << 40, 11], np.int64)}
    agrees([node("Slice", ["x", "s", "e"], ["y"])], whole)


def test_flattening_in_all_its_forms() -> None:
    for target in ([1, -1], [0, -1], [-1, math.prod(SHAPE)], [1, math.prod(SHAPE)]):
        agrees([node("Reshape", ["x", "t"], ["f"]), node("Relu", ["f"], ["y"])], {"t": np.array(target, np.int64)})
    constant = node("Constant", [], ["t"], value_ints=[0, -1])
    agrees([constant, node("Reshape", ["x", "t"], ["y"])])
    pooled = [node("GlobalAveragePool", ["x"], ["g"]), node("Flatten", ["g"], ["f"])]
    agrees([*pooled, node("Reshape", ["f", "t"], ["y"])], {"t": np.array([1, -1, 1, 1], np.int64)})
    reshaped = [node("Reshape", ["w", "t"], ["v"]), node("Conv", ["x", "v"], ["y"])]
    agrees(reshaped, {"w": f32(4, 54), "t": np.array([4, 6, 3, 3], np.int64)})


def test_softmax_dropout_and_identity() -> None:
    agrees([node("Softmax", ["x"], ["y"], axis=1)])
    pooled = [node("GlobalAveragePool", ["x"], ["g"]), node("Softmax", ["g"], ["y"], axis=1)]
    agrees(pooled, opset=11)
    agrees([pooled[0], node("Flatten", ["g"], ["f"]), node("Softmax", ["f"], ["y"])])
    agrees([node("Dropout", ["x"], ["d"]), node("Identity", ["d"], ["y"])])
    agrees([node("Dropout", ["x"], ["y"], ratio=0.3)], opset=9)
    identity = node("Identity", ["w"], ["v"])  # how torch writes weights that layers share
    agrees([identity, node("Conv", ["x", "v"], ["y"])], {"w": f32(4, 6, 1, 1)})
    agrees([node("Constant", [], ["v"], value=numpy_helper.from_array(f32(4, 6, 1, 1))),
            node("Conv", ["x", "v"], ["y"])])  # fmt: skip


def test_nodes_that_nothing_reads_are_left_out() -> None:
    found = agrees([node("Frobnicate", ["x"], ["z"]), node("Relu", ["x"], ["y"])][1:])
    made = classified([node("Frobnicate", ["x"], ["z"]), node("Relu", ["x"], ["y"])], {}, math.prod(SHAPE))
    assert len(read(made).layers) == len(found.layers)


def test_a_free_batch_and_metadata(tmp_path: Path) -> None:
    metadata = {"licence": "MIT", "author": "somebody", "klaus.mean": "1,2,3", "klaus.scale": "0.5,1,2",
                "klaus.order": "bgr"}  # fmt: skip
    nodes = [node("GlobalAveragePool", ["x"], ["g"]), node("Flatten", ["g"], ["y"])]
    made = model(nodes, shape=["batch", 3, 8, 8], metadata=metadata)
    path = tmp_path / "mine"
    path.write_bytes(made.SerializeToString())
    found = registry.load_model(str(path))
    assert found.formation == CropFormation(32, (1, 2, 3), (0.5, 1, 2), "bgr")
    assert (found.provenance.licence, found.provenance.attribution) == ("MIT", "somebody")
    assert found.name == "mine"
    for key, value in (("klaus.mean", "1,2"), ("klaus.order", "gbr"), ("klaus.labels", "sorted-wnids")):
        changed = model(nodes, shape=[1, 3, 8, 8], metadata=metadata | {key: value})
        with pytest.raises(InputError, match=key):
            read(changed)


# ----------------------------------------------------------------------------------------------------- refusals


W = {"w": f32(4, 6, 3, 3)}
BAD_NODES: list[tuple[list[onnx.NodeProto], dict[str, Array], str]] = [
    ([node("Sigmoid", ["x"], ["y"], "gate")], {}, r"node 0 \('gate', Sigmoid\): this operator is not supported"),
    ([node("Relu", ["x"], ["y"], "r", domain="com.example")], {}, r"\('r', com\.example\.Relu\)"),
    ([node("Conv", ["x", "w"], ["y"], "c", dilations=[2, 2])], W, r"node 0 \('c', Conv\): is dilated"),
    ([node("Conv", ["x", "w"], ["y"], future=1)], W, "attribute 'future' is not supported"),
    ([node("Conv", ["x", "w"], ["y"], kernel_shape=[5, 5])], W, "says its kernel is"),
    ([node("Conv", ["x", "w"], ["y"], pads=[-1, 0, 0, 0])], W, "has pads"),
    ([node("Conv", ["x", "w"], ["y"], pads=[9, 0, 0, 0])], W, "pads rows by 9"),
    ([node("Conv", ["x", "w"], ["y"], strides=[0, 1])], W, "at strides"),
    ([node("Conv", ["x", "w"], ["y"], strides=[2])], W, "not two whole numbers"),
    ([node("Conv", ["x", "w"], ["y"], auto_pad="MIRROR")], W, "by the rule"),
    ([node("Conv", ["x", "w"], ["y"], group=4)], W, "4 groups"),
    ([node("Conv", ["x", "w"], ["y"])], {"w": f32(4, 6, 3)}, "two-dimensional convolutions"),
    ([node("Conv", ["x", "w", "b"], ["y"])], W | {"b": f32(5)}, "has a bias"),
    ([node("Conv", ["x", "w"], ["y"])], {"w": f32(4, 6, 3, 3).astype(np.float64)}, "float32 and float16"),
    ([node("Conv", ["x", "w"], ["y"])], {"w": f32(4, 6, 3, 3).astype(np.int8)}, "of ONNX type 3"),
    ([node("Conv", ["x", "w"], ["y"])], {"w": np.full((4, 6, 3, 3), np.nan, np.float32)}, "not a number"),
    ([node("Conv", ["x", "x"], ["y"])], {}, "not a constant"),
    ([node("Conv", ["x", "gone"], ["y"])], {}, "'gone', which nothing before it makes"),
    ([node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], dilations=[2, 2])], {}, "dilated"),
    ([node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], pads=[2, 0, 0, 0])], {}, "pads rows by 2"),
    ([node("MaxPool", ["x"], ["v", "y"], kernel_shape=[2, 2])], {}, "more of its outputs"),
    ([node("AveragePool", ["x"], ["y"], kernel_shape=[2, 2], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1,
           count_include_pad=1)], {}, "not supported together"),
    ([node("Clip", ["x", "m"], ["y"])], {"m": np.array(-1, np.float32)}, "limits to -1 .. inf"),
    ([node("LRN", ["x"], ["y"], size=4)], {}, "window of 4 channels"),
    ([node("Concat", ["x", "x"], ["y"], axis=2)], {}, "works along axis 2"),
    ([node("Split", ["x"], ["y", "z"], axis=2)], {}, "works along axis 2"),
    ([node("Flatten", ["x"], ["y"], axis=2)], {}, "flattens from axis 2"),
    ([node("Softmax", ["x"], ["y"])], {}, "works along axis -1"),
    ([node("Reshape", ["x", "t"], ["y"])], {"t": np.array([1, 2, 3, 9, 11], np.int64)}, "only flattening"),
    ([node("Reshape", ["x", "t"], ["y"])], {"t": np.array([1, -1, -1], np.int64)}, "only flattening"),
    ([node("MatMul", ["x", "t"], ["y"])], {"t": f32(11, 4)}, "not flattened"),
    ([node("Add", ["x", "t"], ["y"])], {"t": f32(11)}, "only one number a channel"),
    ([node("GlobalAveragePool", ["x"], ["g"]), node("Add", ["x", "g"], ["y"])],
     {}, "only equal shapes"),
    ([node("Pad", ["x", "t"], ["p"]), node("Relu", ["p"], ["y"])], {"t": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64)},
     "what a Pad made"),
    ([node("Pad", ["x", "t"], ["p"], mode="reflect"), node("Relu", ["p"], ["y"])], {"t": np.zeros(8, np.int64)},
     "something else than a constant"),
    ([node("Slice", ["x", "s", "e", "a"], ["y"])],
     {"s": np.array([1], np.int64), "e": np.array([3], np.int64), "a": np.array([2], np.int64)}, "only channels"),
    ([node("BatchNormalization", ["x", "c", "c", "c", "c"], ["y"])], {"c": -np.ones(6, np.float32)}, "variance below"),
    ([node("BatchNormalization", ["x", "c", "c", "c", "c"], ["y"])], {"c": np.ones(5, np.float32)}, "not \\(6,\\)"),
    ([node("Dropout", ["x", "", "t"], ["y"])], {"t": np.array(True)}, "drops at random"),
    ([node("Relu", ["x"], ["a"]), node("Relu", ["a"], ["a"]), node("Relu", ["a"], ["y"])], {}, "exists already"),
]  # fmt: skip


@pytest.mark.parametrize(("nodes", "constants", "says"), BAD_NODES)
def test_what_is_not_supported_is_named(nodes: list[onnx.NodeProto], constants: dict[str, Array], says: str) -> None:
    with pytest.raises(InputError, match=says):
        read(model(nodes, constants))


def _changed(change: str) -> onnx.ModelProto:
    made = classified([node("Conv", ["x", "w"], ["y"])], W, 4 * 7 * 9)
    graph = made.graph
    if change == "old":
        made.opset_import[0].version = 6
    elif change == "new":
        made.opset_import[0].version = 99
    elif change == "two inputs":
        graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1]))
    elif change == "no output":
        del graph.output[:]
    elif change == "no nodes":
        del graph.node[:]
    elif change == "twice":
        graph.initializer.append(graph.initializer[0])
    elif change == "open":
        graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 6, "h", "w"]))
    elif change == "huge":
        graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 6, 65536, 65536]))
    elif change == "flat":
        graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 6]))
    elif change == "integers":
        graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.INT64, [1, *SHAPE]))
    elif change == "overflow":
        graph.initializer[0].dims[:] = [1 << 20, 1 << 20, 1 << 20, 1 << 20]
    elif change == "negative":
        graph.initializer[0].dims[:] = [-4, -6, 3, 3]
    elif change == "short":
        graph.initializer[0].raw_data = bytes(8)
    elif change == "few":
        graph.initializer[0].ClearField("raw_data")
        graph.initializer[0].float_data.extend([1.0, 2.0])
    elif change == "function":
        graph.node[0].attribute.append(helper.make_attribute("body", onnx.GraphProto()))
    elif change == "passed through":
        graph.output[0].name = "x"
    return made


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("old", "operator set 6"), ("new", "operator set 99"), ("two inputs", "2 inputs"), ("no output", "0 outputs"),
        ("no nodes", "not what its last"), ("twice", "two tensors named 'w'"), ("open", "leaves channels"),
        ("huge", "more than 268435456 elements"), ("flat", "has 2 dimensions"), ("integers", "ONNX type 7"),
        ("overflow", "more than 268,435,456 numbers"), ("negative", "dimension of -4"), ("short", "has 8 bytes"),
        ("few", "has 2 numbers"), ("function", "of a kind that is not supported"), ("passed through", "last node"),
    ],
)  # fmt: skip
def test_files_that_cannot_be(change: str, says: str) -> None:
    got, message = attempt(lambda: read(_changed(change)))
    assert got is None
    assert message.startswith("test.onnx: ")
    assert says in message


def test_files_that_would_take_much_memory() -> None:
    whole = _changed("").SerializeToString()
    empty_nodes = b"\x3a\x80\x80\x80\x01" + b"\x0a\x00" * (1 << 20)
    for data, says in (
        (b"", "operator set 0"),
        (b"\xff" * 100, "no ONNX file"),
        (whole[:-3], "cut short"),
        (empty_nodes, "fields"),
        (b"\x12" + b"\xff\xff\xff\x0f" + b"x", "cut short"),
        (whole + b"\x32\x80\x80\x80\x08" + bytes(1 << 24), "bytes besides numbers"),
    ):
        got, message = attempt(lambda data=data: reader.parse(data, Path("x")))  # type: ignore[misc]
        assert got is None
        assert says in message


def _external(location: str, offset: int = 0, length: int | None = None) -> onnx.ModelProto:
    made = classified([node("Conv", ["x", "w"], ["y"])], W, 4 * 7 * 9)
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length or 864))):
        tensor.external_data.add(key=key, value=value)
    return made


def test_external_data_beside_the_model(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "w.bin").write_bytes(bytes(16) + W["w"].tobytes())
    path = tmp_path / "x.onnx"
    path.write_bytes(_external("sub/w.bin", 16).SerializeToString())
    layer = registry.load_model(str(path)).layers[0]
    assert isinstance(layer, Convolution)
    np.testing.assert_array_equal(layer.weights.values, W["w"].transpose(0, 2, 3, 1))


def test_external_data_anywhere_else_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "inside"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(bytes(864))
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "short").write_bytes(bytes(100))
    (folder / "folder").mkdir()
    for location, says in (
        ("../secret", "outside"), (str(tmp_path / "secret"), "outside"), ("a/../../secret", "outside"), ("", "outside"),
        ("..\\secret", "outside"), ("link", "no plain file inside"), ("folder", "no plain file"),
        ("absent", "cannot be found"),
        (".", "no plain file"), ("a\nb", "outside"), ("short", "which has 100"), ("/dev/zero", "outside"),
    ):  # fmt: skip
        got, message = attempt(lambda location=location: read(_external(location), folder))  # type: ignore[misc]
        assert got is None
        assert says in message, location
    for offset, length in ((-1, 864), (1 << 62, 864), (0, 1 << 62), (0, 10)):
        got, message = attempt(lambda o=offset, n=length: read(_external("short", o, n), folder))  # type: ignore[misc]
        assert got is None
    with pytest.raises(InputError, match="no folder"):
        read(_external("short"))


def test_a_tensor_that_many_layers_share_does_not_multiply() -> None:
    nodes = [node("Conv", ["x" if index == 0 else f"v{index}", "w"], [f"v{index + 1}"]) for index in range(300)]
    made = model(nodes, {"w": np.zeros((1500, 1500, 1, 1), np.float32)}, shape=[1, 1500, 2, 2], output="v300")
    with pytest.raises(InputError, match="weights; 536,870,912 are possible"):
        read(made)


def test_the_whole_passes_validation() -> None:
    found = read(_changed(""))
    shapes.validate(found)
