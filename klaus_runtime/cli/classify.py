"""`klaus classify`: what is on photos."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from klaus_runtime import accuracy, images
from klaus_runtime.cli.options import MODELS, Commands, add_layer, add_picture, count, engine_of, model_of, patches_of
from klaus_runtime.cli.words import clean, complain, console, facts, say_json, say_origin
from klaus_runtime.errors import InputError
from klaus_runtime.model import F32, Model


def register(commands: Commands) -> None:
    """Adds the command."""
    sub = commands.add("classify", _classify, "Say what is on photos.", source=False)
    sub.add_argument("photos", metavar="PHOTO", nargs="+", type=Path, help="JPEG, PNG, BMP, PPM or WebP")
    sub.add_argument("--model", metavar="SOURCE", default="lite0", help=f"{MODELS}, or a file (default lite0)")
    sub.add_argument("--top", type=count, default=5, help="how many classes (default 5)")
    add_layer(sub)
    add_picture(sub)


def _classify(options: argparse.Namespace) -> int:
    """A photo that cannot be read costs its own answer only."""
    model = model_of(options, options.model)
    patches = patches_of(options, model)
    named, failed = [], []
    with engine_of(options, model, options.model) as (engine, engine_name):
        for photo in options.photos:
            try:
                picture = images.read_picture(photo)
                probabilities = engine.probabilities(picture, patches=patches, crop=options.crop)
            except InputError as error:
                failed.append((photo, str(error)))
            else:
                named.append((photo, _top(model, probabilities, options.top)))
    if named and options.json:
        photos = [{"photo": str(photo), "top": found} for photo, found in named]
        errors = [{"photo": str(photo), "error": error} for photo, error in failed]
        say_json({**facts(model), "engine": engine_name, "patches": patches, "photos": photos, "failed": errors})
    elif named:
        _print_answers(model, named)
    for message in dict.fromkeys(error for _, error in failed):  # what is wrong with an option is said once
        complain(message)
    return InputError.exit_code if failed else 0


def _print_answers(model: Model, named: Sequence[tuple[Path, list[dict[str, Any]]]]) -> None:
    for photo, found in named:
        table = Table(title=Text(clean(str(photo))), title_justify="left", title_style="bold")
        table.add_column("class")
        table.add_column("id", justify="right")
        table.add_column("probability", justify="right")
        for row in found:
            table.add_row(Text(clean(row["label"])), str(row["id"]), f"{row['probability']:.2%}")
        console().print(table)
    say_origin(model)


def _top(model: Model, probabilities: F32, count: int) -> list[dict[str, Any]]:
    rows = []
    for number in accuracy.top(probabilities, count):
        label = model.labels[number] if model.labels else None
        row: dict[str, Any] = {"id": number, "label": label.name if label else f"class {number}"}
        if label:
            row["wnid"] = label.id
        rows.append(row | {"probability": float(probabilities[number])})
    return rows
