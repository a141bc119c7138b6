"""Deep Compression's SqueezeNet: indices and codebooks as stored, its geometry, and its answers."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klaus_runtime import accuracy, images, labels, registry, shapes
from klaus_runtime.errors import InputError
from klaus_runtime.evaluate import FastEngine
from klaus_runtime.model import Activation, Concat, Convolution, CropFormation, Model, Pool
from klaus_runtime.native import NativeEngine
from klaus_runtime.pack import pack
from klaus_runtime.package import write_package
from klaus_runtime.readers import deep_compression
from toolchains.build import Build

from . import net_files
from .attempt import attempt


def convolutions(model: Model) -> list[Convolution]:
    return [layer for layer in model.layers if isinstance(layer, Convolution)]


def test_indices_come_back(tmp_path: Path) -> None:
    data, wanted = net_files.sparse()
    path = tmp_path / "x.net"
    path.write_bytes(data)
    model = registry.load_model(str(path))
    for layer, codes in zip(convolutions(model), wanted, strict=True):
        stored = layer.weights.values.transpose(0, 3, 1, 2).reshape(-1)
        assert {int(place): int(stored[place]) for place in np.flatnonzero(stored)} == codes
        assert layer.weights.codebook is not None
        assert layer.weights.codebook.values.dtype == np.float32
        assert layer.weights.codebook.values[0] == 0
        assert layer.weights.scale is None


def test_geometry(tmp_path: Path) -> None:
    path = tmp_path / "x.net"
    path.write_bytes(net_files.sparse()[0])
    model = deep_compression.read(path)
    assert shapes.weight_count(model) == 1_244_448
    found = shapes.infer(model)
    pools = [found[index] for index, layer in enumerate(model.layers) if isinstance(layer, Pool)]
    assert pools == [(55, 55, 96), (27, 27, 256), (13, 13, 512)]  # the second from 54 by rounding up
    assert found[-3] == (15, 15, 1000)
    assert sum(isinstance(layer, Concat) for layer in model.layers) == 8
    assert {layer.activation for layer in convolutions(model)} == {Activation.RELU}
    assert model.labels == labels.sorted_wnids()
    assert model.formation == CropFormation(29, (104, 117, 123), (1, 1, 1), "bgr")
    assert model.provenance.licence == "BSD"


def test_files_that_lie(tmp_path: Path) -> None:
    layers = [net_files.entries([(0, 1)]) for _ in net_files.SIZES]
    outside = [*layers[:3], net_files.entries([(net_files.SIZES[3][1], 1)]), *layers[4:]]
    nothing: list[net_files.Entries] = [[] for _ in layers]
    path = tmp_path / "x.net"
    path.write_bytes(net_files.file(nothing))
    assert not any(layer.weights.values.any() for layer in convolutions(deep_compression.read(path)))
    for data, says in (
        (net_files.file(outside), "fire2-expand3x3: an entry stands at weight"),
        (net_files.file(layers, zero=0.5), "conv1: codebook entry 0 is 0.5"),
        (net_files.file(layers, zero=float("nan")), "codebook entry 0 is nan"),
        (net_files.file(layers)[:-1], "do not fit a SqueezeNet"),
        (net_files.file(layers) + b"x", "do not fit a SqueezeNet"),
        (struct.pack("<26I", *[0xFFFFFFFF] * 26), "do not fit a SqueezeNet"),
        (b"", "do not fit a SqueezeNet"),
    ):
        path.write_bytes(data)
        with pytest.raises(InputError, match=says):
            deep_compression.read(path)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_damage_is_an_input_error_or_another_number(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = bytearray(net_files.sparse()[0])
    for position, byte in data.draw(
        st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), min_size=1, max_size=6)
    ):
        whole[position] = byte
    path = tmp_path_factory.getbasetemp() / "damaged.net"
    path.write_bytes(whole)
    got, _ = attempt(lambda: deep_compression.read(path))
    assert got is None or shapes.weight_count(got) == 1_244_448


@pytest.fixture(scope="module")
def squeezenet(shared: Path) -> Model:
    path = shared / "data/deep-compression/compressed_SqueezeNet.net"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == registry.SQUEEZENET_SHA256
    return deep_compression.read(path)


@pytest.mark.slow
def test_the_real_one_knows_photos(squeezenet: Model, shared: Path) -> None:
    photos = images.find_photos(shared / "data/photos/imagenet-val-250")[::10]
    engine = FastEngine(squeezenet)
    found = [engine.probabilities(images.read_picture(path), patches=1) for _, path in photos]
    score = accuracy.score(np.array(found), accuracy.positions(squeezenet.labels, photos))
    assert (score.photos, score.top1, score.top5) == (25, 11, 19)  # of all 250: 142 and 206


def test_packages_and_packed_models_keep_every_bit(tmp_path: Path) -> None:
    path = tmp_path / "x.net"
    path.write_bytes(net_files.sparse()[0])
    model = deep_compression.read(path)
    for made in (write_package(model, tmp_path / "package").path, pack(model, tmp_path / "x.klaus")):
        back = registry.load_model(str(made))
        for one, other in zip(back.layers, model.layers, strict=True):
            assert type(one) is type(other)
            if isinstance(one, Convolution) and isinstance(other, Convolution):
                np.testing.assert_array_equal(one.weights.stored(), other.weights.stored())
                np.testing.assert_array_equal(one.weights.bias, other.weights.bias)
        assert back.provenance == model.provenance


def test_the_c_library_agrees(host_build: Build, tmp_path: Path) -> None:
    """Its last convolution pads a kernel of one cell by one."""
    path = tmp_path / "x.net"
    path.write_bytes(net_files.sparse()[0])
    model = deep_compression.read(path)
    tensors = np.random.default_rng(0).uniform(-100, 100, (1, 227, 227, 3)).astype(np.float32)
    engine = NativeEngine(pack(model, tmp_path / "x.klaus"), host_build.shared)
    try:
        got = engine.logits(tensors)
    finally:
        engine.close()
    np.testing.assert_allclose(got, FastEngine(model).logits(tensors), rtol=1e-3, atol=1e-7)
