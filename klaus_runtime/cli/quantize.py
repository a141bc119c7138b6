"""`klaus quantize` and `calibrate`: packages with codebook weights, and activation ranges for int8 arithmetic."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from klaus_runtime import calibrate, memory, package, quantize, registry, shapes
from klaus_runtime.cli.options import Commands, add_effort, model_of, points_of_100, size
from klaus_runtime.cli.words import facts, progress, say, say_json, say_origin
from klaus_runtime.errors import InputError
from klaus_runtime.quantize import views
from klaus_runtime.readers import database


def register(commands: Commands) -> None:
    """Adds the commands."""
    schemes = "; ".join(f"{name}: {text}" for name, text in quantize.SCHEMES.items())
    sub = commands.add("quantize", _quantize, "Make a package (sqlite3 + PNG) with codebook weights.")
    sub.add_argument("--scheme", required=True, metavar="S", help=schemes)
    sub.add_argument("-o", "--out", required=True, type=Path, metavar="DIR", help="folder of the package")
    sub.add_argument("--name", help="of the files without ending (default: the model's and the scheme's)")
    sub.add_argument("--seed", type=int, default=0, help="of what a scheme draws (default 0)")
    text = "folder of unlabelled photos, some hundred: schemes q6 and below need them, q8 gains by them"
    sub.add_argument("--calibration", type=Path, metavar="DIR", help=text)
    text = "auto: bytes of the whole package at most"
    sub.add_argument("--budget", type=size, metavar="BYTES", help=text)
    text = "auto: of 100 photos, how many may be answered otherwise than by the float model"
    sub.add_argument("--max-loss", type=points_of_100, metavar="PTS", help=text)
    text = "keeps what an interrupted run has finished (default: quantize in the cache folder)"
    sub.add_argument("--work", type=Path, metavar="DIR", help=text)
    text = "klaus-2014: insist on what Klaus' own loader reads (default: that where it fits, else the smallest)"
    sub.add_argument("--compat", choices=("klaus-2014",), help=text)
    add_effort(sub)

    sub = commands.add(
        "calibrate", _calibrate, "Measure ranges and corrections for int8 arithmetic and write them into the package."
    )
    sub.add_argument("--images", required=True, type=Path, metavar="DIR", help="unlabelled photos, some hundred")
    text = "folder of the package (default: SOURCE itself is written anew)"
    sub.add_argument("-o", "--out", type=Path, metavar="DIR", help=text)
    text = "minmax: every value (default); percentile: all but the outermost"
    sub.add_argument("--method", choices=("minmax", "percentile"), default="minmax", help=text)
    add_effort(sub)


def _quantize(options: argparse.Namespace) -> None:
    memory.keep_freed()
    source = model_of(options, options.source)
    with progress("quantizing") as report:
        model = quantize.quantize(
            source,
            options.scheme,
            seed=options.seed,
            calibration=options.calibration,
            budget=options.budget,
            max_loss=options.max_loss,
            work=options.work or registry.cache_folder().parent / "quantize",
            report=report,
        )
    made = package.write_package(model, options.out, name=options.name, compat=options.compat, effort=options.effort)
    bits = 8 * made.total_bytes / shapes.weight_count(model)
    if options.json:
        names = [str(path) for path in made.files]
        say_json({**facts(model), "files": names, "total_bytes": made.total_bytes, "bits_per_weight": bits})
        return
    for path in made.files:
        say(f"{path}  {path.stat().st_size:,} bytes")
    say(f"{options.scheme}: {made.total_bytes:,} bytes in all, {bits:.2f} bits a weight")
    say_origin(model)


def _is_package(path: Path) -> bool:
    """Whether a file is one of our packages: a ccv or Klaus file of somebody's would become another thing."""
    if path.suffix != ".sqlite3" or not path.is_file():
        return False
    with database.open_database(path) as db:
        return package.is_package(db)


def _calibrate(options: argparse.Namespace) -> None:
    memory.keep_freed()
    path = Path(options.source)
    if options.out is None and (options.source in registry.MODELS or not _is_package(path)):
        raise InputError(f"{options.source}: is no package that ranges could be written into: say where by -o DIR")
    source = model_of(options, options.source)
    photos = views.find(options.images)
    with progress("photos", len(photos)) as report:
        after = lambda done: report("photos", done, len(photos))  # noqa: E731
        model = calibrate.calibrate(source, photos, method=options.method, report=after)
    name = path.stem if path.suffix == ".sqlite3" else None
    made = package.write_package(model, options.out or path.parent, name=name, effort=options.effort)
    if options.json:
        ranges = [asdict(item) for item in model.ranges if item is not None]
        say_json({**facts(model), "files": [str(file) for file in made.files], "photos": len(photos), "ranges": ranges})
        return
    for title, item in zip(("input", *(layer.name for layer in model.layers)), model.ranges, strict=True):
        if item is not None:
            say(f"{title}  {item.low:.6g} to {item.high:.6g}")
    say(f"{made.path}: ranges and corrections of {len(photos)} photos, by {options.method}")
