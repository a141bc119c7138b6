"""`klaus info`, `verify` and `models`: what a model is, whether it is whole, which ones have names."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from rich.table import Table
from rich.text import Text

from klaus_runtime import quantize, registry, shapes
from klaus_runtime.cli.options import Commands, carried_by, model_of
from klaus_runtime.cli.words import clean, console, facts, say, say_json, say_origin, times
from klaus_runtime.model import Convolution, FullConnect


def register(commands: Commands) -> None:
    """Adds the commands."""
    commands.add("info", _info, "Show a model's layers, source and licence.")
    commands.add("verify", _verify, "Read and check every byte of a model.")
    commands.add("models", _models, "List the models that have a name.", source=False)


def _info(options: argparse.Namespace) -> None:
    model = model_of(options, options.source)
    outputs = shapes.infer(model)
    costs = shapes.multiplies(model)
    layers: list[dict[str, Any]] = [
        {
            "layer": number,
            "name": layer.name,
            "kind": type(layer).__name__,
            "output": list(shape),
            "multiplies": cost,
            "weights": _weights_text(layer.weights) if isinstance(layer, Convolution | FullConnect) else "",
        }
        for number, (layer, shape, cost) in enumerate(zip(model.layers, outputs, costs, strict=True))
    ]
    more = carried_by(options.source)
    if options.json:
        form = {"input": list(model.input_shape), "patches": model.patches, "layers": layers}
        say_json({**facts(model), **form, "in_kernels_layouts": asdict(more)})
        return
    table = Table(title=Text(f"{clean(model.name)}, input {times(model.input_shape)}"), title_justify="left")
    for name in ("layer", "name", "kind", "output", "multiply-adds", "weights"):
        table.add_column(name, justify="right" if name in ("layer", "multiply-adds") else "left")
    for row in layers:
        cost = f"{row['multiplies']:,}" if row["multiplies"] else ""
        called = Text(clean(row["name"]))
        table.add_row(str(row["layer"]), called, row["kind"], times(row["output"]), cost, row["weights"])
    console().print(table)
    say(f"{shapes.weight_count(model):,} weights, {sum(costs):,} multiply-adds, {model.patches} patches a picture")
    if more.sections:
        say(f"{more.size_bytes:,} bytes of the file are weights in kernels' own layouts, {more.sections} sections")
    say_origin(model)


def _weights_text(weights: Any) -> str:
    form = f"{len(weights.codebook.values)} entries" if weights.codebook is not None else str(weights.values.dtype)
    return f"{times(weights.values.shape)} {form}" + (", scale" if weights.scale is not None else "")


def _verify(options: argparse.Namespace) -> None:
    model = model_of(options, options.source)  # reading checks everything
    unchecked = carried_by(options.source).sections  # only a CPU that has the kernels can tell
    if options.json:
        found = {"layers": len(model.layers), "weights": shapes.weight_count(model), "unchecked": unchecked}
        say_json({**facts(model), "ok": True, **found})
        return
    say(f"{options.source}: whole and well-formed, {len(model.layers)} layers, {shapes.weight_count(model):,} weights")
    if unchecked:
        say(f"{unchecked} sections in kernels' layouts are not compared here: `klaus-run verify` does it on such a CPU")
    say_origin(model)


def _models(options: argparse.Namespace) -> None:
    entries = registry.MODELS.values()
    if options.json:
        shown = ("name", "description", "source", "licence", "digest")
        rows = [{key: getattr(entry, key) for key in shown} for entry in entries]
        say_json({"models": rows, "schemes": dict(quantize.SCHEMES)})
        return
    for entry in entries:
        say(f"{entry.name}: {entry.description}; {entry.source}; {entry.licence}; {entry.digest}")
