"""ONNX files -> Model. Tensors become HWC, full connect weights are reordered to match; pads and pools made explicit.

The format is onnx.ai's, decoded by PyPI `onnx` (its protocol buffer classes alone: no checker, no inference, nothing
is run). What each operator becomes stands in onnx_operators.py; what is not there is an InputError naming the node.
An ONNX file does not say how pictures are prepared: its metadata may (`klaus.mean` and so on, see origin.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from klaus_runtime import files, shapes
from klaus_runtime.errors import InputError, SetupError
from klaus_runtime.model import NETWORK_INPUT, Model
from klaus_runtime.readers import onnx_operators, origin
from klaus_runtime.readers.onnx_graph import Array, Graph, Node, Value
from klaus_runtime.readers.onnx_tensors import Tensors, check_encoding

if TYPE_CHECKING:
    from onnx import AttributeProto, GraphProto, ModelProto, NodeProto

MAX_FILE_BYTES = 1 << 30
OLDEST_OPSET, NEWEST_OPSET = 7, 28
_MAX_NODES = 1 << 14
_DOMAINS = ("", "ai.onnx")
_FLOATS = (1, 10)  # onnx.TensorProto.FLOAT, FLOAT16
# onnx.AttributeProto.AttributeType -> the field that holds the value
_ATTRIBUTES = {1: "f", 2: "i", 3: "s", 4: "t", 6: "floats", 7: "ints"}


def is_onnx(head: bytes) -> bool:
    """Whether a file that starts with `head` may be ONNX: its first field is the version of the format, 1 to 31."""
    return len(head) > 2 and head[0] == 0x08 and 1 <= head[1] < 32 and head[2] in (0x12, 0x1A, 0x22, 0x3A, 0x42)


def read(path: str | Path) -> Model:
    """Reads a classifier; raises InputError, naming node and operator, for anything that is not supported."""
    path = Path(path)
    return parse(files.read_bytes(path, MAX_FILE_BYTES), path, folder=path.parent)


def parse(data: bytes, path: Path, *, folder: Path | None = None) -> Model:
    """read() on bytes; `path` names them. folder: where external data may stand, None = nowhere."""
    try:
        check_encoding(data)
        with np.errstate(all="ignore"):  # numbers that overflow are found, and refused, when the model is validated
            return _model(_decode(data), path, folder)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (UnicodeDecodeError, MemoryError, RecursionError) as error:
        raise InputError(f"{path}: is damaged, or needs more memory than there is ({type(error).__name__})") from error


def _decode(data: bytes) -> ModelProto:
    try:
        # Half a second that only this reader needs.
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # noqa: PLC0415
        from onnx import ModelProto  # noqa: PLC0415
    except ImportError as error:
        raise SetupError("reading ONNX files needs the package onnx: `pip install onnx`") from error
    try:
        proto: ModelProto = ModelProto.FromString(data)
    except (DecodeError, ValueError) as error:
        raise InputError(f"is no ONNX file or damaged ({ascii(str(error))[1:-1][:100]})") from error
    return proto


def _model(proto: ModelProto, path: Path, folder: Path | None) -> Model:
    opsets = {entry.domain: entry.version for entry in proto.opset_import}
    opset = opsets.get("", opsets.get("ai.onnx", 0))
    if not OLDEST_OPSET <= opset <= NEWEST_OPSET:
        raise InputError(f"is of operator set {opset}; {OLDEST_OPSET} to {NEWEST_OPSET} are read: convert it")
    graph, output = _network(proto.graph, opset, Tensors(folder))
    facts = {entry.key: entry.value for entry in proto.metadata_props}
    model = Model(
        name=origin.model_name(path),
        input_shape=graph.shape,
        layers=tuple(graph.layers),
        formation=origin.formation(facts),
        labels=origin.labels(facts, output.channels),
        provenance=origin.provenance(path, facts),
    )
    shapes.validate(model)
    return model


def _network(proto: GraphProto, opset: int, tensors: Tensors) -> tuple[Graph, Value]:
    if len(proto.node) > _MAX_NODES:
        raise InputError(f"has {len(proto.node):,} nodes; at most {_MAX_NODES:,} are read")
    if proto.sparse_initializer:
        raise InputError("has sparse initializers, which are not supported: export it with dense ones")
    initializers = {}
    for tensor in proto.initializer:
        if tensor.name in initializers:
            raise InputError(f"has two tensors named {tensor.name[:80]!a}")
        initializers[tensor.name] = tensor
    inputs = [value for value in proto.input if value.name not in initializers]
    if len(inputs) != 1 or len(proto.output) != 1:
        raise InputError(f"has {len(inputs)} inputs and {len(proto.output)} outputs; a classifier has one of each")
    shape, batch = _input_shape(inputs[0])
    nodes = _needed(proto)
    uses = Counter(name for node in nodes for name in node.input)
    uses[proto.output[0].name] += 1
    graph = Graph(shape=shape, batch=batch, opset=opset, uses=uses)
    known: dict[str, Value | Array] = {inputs[0].name: Value(NETWORK_INPUT, *shape)}
    values = _Lookup(known, initializers, tensors)
    for number, node in enumerate(nodes):
        _step(graph, node, number, values)
    last = known.get(proto.output[0].name)
    if not isinstance(last, Value) or last.layer != len(graph.layers) - 1 or not graph.layers:
        raise InputError(f"its output {proto.output[0].name[:80]!a} is not what its last node computes")
    if any(last.pads):
        raise InputError(f"its output {proto.output[0].name[:80]!a} is padded, which is not supported")
    return graph, last


def _input_shape(value: Any) -> tuple[shapes.Shape, int | None]:
    """(rows, cols, channels) of the input and its fixed batch, None where that is free."""
    what = f"its input {value.name[:80]!a}"
    tensor = value.type.tensor_type
    if tensor.elem_type not in _FLOATS:
        raise InputError(f"{what} is of ONNX type {tensor.elem_type}; float tensors are read")
    sizes = [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
    if len(sizes) != 4:
        raise InputError(f"{what} has {len(sizes)} dimensions; pictures have 4 (batch, channels, rows, columns)")
    batch, channels, rows, cols = sizes
    if channels is None or rows is None or cols is None:
        raise InputError(f"{what} leaves channels, rows or columns open: export it for one size")
    for size in (channels, rows, cols, 1 if batch is None else batch):
        if not 1 <= size <= shapes.MAX_DIMENSION:
            raise InputError(f"{what} has a dimension of {size}; 1 to {shapes.MAX_DIMENSION} are possible")
    return (rows, cols, channels), batch


def _needed(proto: GraphProto) -> list[NodeProto]:
    """The nodes that the output depends on, in the file's order, which must be one that can be computed."""
    wanted = {proto.output[0].name}
    found = []
    for node in reversed(proto.node):
        if wanted.intersection(node.output) - {""}:
            found.append(node)
            wanted.update(node.input)
    return found[::-1]


@dataclass(slots=True)
class _Lookup:
    """What names stand for: values and constants so far, initializers decoded when they are first asked for."""

    known: dict[str, Value | Array]
    initializers: Mapping[str, Any]
    tensors: Tensors
    decoded: dict[str, Array] = field(default_factory=dict)

    def get(self, name: str) -> Value | Array | None:
        if not name:
            return None
        if name in self.known:
            return self.known[name]
        if name not in self.initializers:
            raise InputError(f"reads {name[:80]!a}, which nothing before it makes")
        if name not in self.decoded:
            self.decoded[name] = self.tensors.decode(self.initializers[name])
        return self.decoded[name]


def _step(graph: Graph, proto: NodeProto, number: int, values: _Lookup) -> None:
    called = proto.name or next(iter(proto.output), "")
    operator = proto.op_type if proto.domain in _DOMAINS else f"{proto.domain}.{proto.op_type}"
    what = f"node {number} ({called[:80]!a}, {origin.printable(operator, 60)})"
    handler = onnx_operators.HANDLERS.get(proto.op_type) if proto.domain in _DOMAINS else None
    if handler is None:
        raise InputError(f"{what}: this operator is not supported; {', '.join(sorted(onnx_operators.HANDLERS))} are")
    try:
        node = Node(
            name=origin.printable(called, shapes.NAME_BYTES - 4) or f"{proto.op_type}-{number}",
            inputs=[values.get(name) for name in proto.input],
            input_names=list(proto.input),
            outputs=list(proto.output),
            attributes=_attributes(proto.attribute, values.tensors),
        )
        made = handler(graph, node)
        _keep(graph, node, made, values)
    except InputError as error:
        raise InputError(f"{what}: {error}") from error


def _keep(graph: Graph, node: Node, made: Sequence[Value | Array | None], values: _Lookup) -> None:
    """Gives what a node made its names, once nothing of the node was left unread."""
    if node.attributes:
        raise InputError(f"its attribute {min(node.attributes)[:60]!a} is not supported")
    if any(graph.uses[name] for name in node.outputs[len(made) :] if name):
        raise InputError("more of its outputs are read than are supported")
    for name, value in zip(node.outputs, made, strict=False):
        if not name or value is None:
            continue
        if name in values.known or name in values.initializers:
            raise InputError(f"makes {name[:80]!a}, which exists already")
        sole = graph.uses[name] == 1
        values.known[name] = replace(value, sole=value.sole and sole) if isinstance(value, Value) else value


def _attributes(protos: Any, tensors: Tensors) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for proto in protos:
        if proto.name in found:
            raise InputError(f"its attribute {proto.name[:60]!a} stands twice")
        found[proto.name] = _attribute(proto, tensors)
    return found


def _attribute(proto: AttributeProto, tensors: Tensors) -> Any:
    if proto.type not in _ATTRIBUTES or proto.ref_attr_name:
        raise InputError(f"its attribute {proto.name[:60]!a} is of a kind that is not supported")
    value = getattr(proto, _ATTRIBUTES[proto.type])
    if proto.type == 4:
        return tensors.decode(value)
    if proto.type in (6, 7):
        return list(value)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
