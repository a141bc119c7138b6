"""`klaus pack`, `export` and `activations`: a model in the forms that other programs read."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from klaus_runtime import ccv_tables, files, pack
from klaus_runtime.cli.options import Commands, add_engine, carried_by, engine_of, model_of
from klaus_runtime.cli.words import complain, facts, say, say_json, say_origin, times
from klaus_runtime.errors import InputError
from klaus_runtime.model import F32, Model
from klaus_runtime.pack import Layout

_MAX_TENSOR_BYTES = 1 << 30


def register(commands: Commands) -> None:
    """Adds the commands."""
    sub = commands.add("pack", _pack, "Make a packed model that the C library maps.")
    sub.add_argument("-o", "--out", required=True, type=Path, metavar="FILE.klaus", help="the packed model")
    text = "carry weights as the kernels of CORE want them for PRECISION, as a76-fp32 (repeatable); else made at load"
    sub.add_argument("--layout", action="append", default=[], metavar="CORE-PRECISION", help=text)

    sub = commands.add("export", _export, "Write a plain sqlite3 file as ccv reads it, codebooks multiplied out.")
    sub.add_argument("-o", "--out", required=True, type=Path, metavar="FILE.sqlite3", help="the file")
    sub.add_argument("--half", action="store_true", help="weights in half precision, truncated as ccv does it")

    sub = commands.add("activations", _activations, "Write every layer's output as layer-NN.f32 (float32, HWC).")
    sub.add_argument("--input", required=True, type=Path, metavar="X.f32", help="what layer 0 reads: float32, HWC")
    sub.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of the files, made if need be")
    add_engine(sub)


def _pack(options: argparse.Namespace) -> None:
    layouts = list(dict.fromkeys(Layout.named(text) for text in options.layout))
    model = model_of(options, options.source)
    if in_source := carried_by(options.source).sections:
        complain(f"{options.source}: {in_source} sections in kernels' layouts are left out: --layout makes them again")
    sections: dict[str, int] = {}
    if layouts:
        with files.staged((options.out,)) as (path,):  # no half of it, should a layout fail
            pack.pack(model, path)
            added = pack.add_layouts(path, layouts, path)
        sections = {str(layout): count for layout, count in zip(layouts, added, strict=True)}
    else:
        pack.pack(model, options.out)
    size = options.out.stat().st_size
    if options.json:
        say_json({**facts(model), "file": str(options.out), "bytes": size, "layouts": sections})
        return
    more = "".join(f", {name}: {count} sections" for name, count in sections.items())
    say(f"{options.out}  {size:,} bytes{more}")
    say_origin(model)


def _export(options: argparse.Namespace) -> None:
    model = model_of(options, options.source)
    path = ccv_tables.write_ccv(model, options.out, half=options.half)
    if options.json:
        say_json({**facts(model), "file": str(path), "bytes": path.stat().st_size})
        return
    say(f"{path}  {path.stat().st_size:,} bytes")
    say_origin(model)


def _activations(options: argparse.Namespace) -> None:
    model = model_of(options, options.source)
    tensor = _tensor(options.input, model)
    targets = [options.out / f"layer-{number:02d}.f32" for number in range(len(model.layers))]
    with engine_of(options, model, options.source) as (engine, engine_name), files.staged(targets) as paths:
        rows = []
        for layer, target, path, output in zip(model.layers, targets, paths, engine.activations(tensor), strict=True):
            path.write_bytes(output.astype("<f4", copy=False).tobytes())
            rows.append({"name": layer.name, "file": str(target), "shape": list(output.shape)})
    if options.json:
        say_json({**facts(model), "engine": engine_name, "activations": rows})
        return
    for row in rows:
        say(f"{row['file']}  {times(row['shape'])}  {row['name']}")


def _tensor(path: Path, model: Model) -> F32:
    """X.f32: raw little-endian float32, HWC, as layer 0 reads it."""
    data = files.read_bytes(path, _MAX_TENSOR_BYTES)
    wanted = 4 * int(np.prod(model.input_shape))
    if len(data) != wanted:
        shape = times(model.input_shape)
        raise InputError(
            f"{path}: has {len(data):,} bytes, {shape} float32 numbers are {wanted:,}: give what layer 0 reads"
        )
    tensor = np.frombuffer(data, "<f4").reshape(model.input_shape)
    if not np.isfinite(tensor).all():
        raise InputError(f"{path}: holds numbers that are not finite")
    return tensor
