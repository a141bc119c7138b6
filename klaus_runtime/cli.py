"""The `klaus` command: classify, look at, quantize, pack and measure models on this computer."""

from __future__ import annotations

import argparse
import errno
import json
import math
import os
import shlex
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from klaus_runtime import (
    accuracy,
    answers,
    calibrate,
    chart,
    files,
    images,
    native,
    pack,
    package,
    quant_table,
    quantize,
    registry,
    shapes,
)
from klaus_runtime.engine import Engine
from klaus_runtime.errors import InputError, KlausError
from klaus_runtime.evaluate import FastEngine
from klaus_runtime.model import F32, Convolution, FullConnect, Model
from klaus_runtime.quantize import views
from klaus_runtime.reference import NumpyEngine

SEEDED = "seeded: timing only, the answers mean nothing"
_INTERRUPTED = 130
_MAX_TENSOR_BYTES = 1 << 30
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def clean(text: str) -> str:
    """Text from a file or a path made harmless for a terminal: what cannot be printed becomes a question mark."""
    # device_tests and reports share reports/words.py; this package sees neither of them, and a line is enough here.
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code: 0 pass, 1 check failed, 2 bad input, 3 set-up, 5 internal error."""
    if sys.stdout is None:  # what Python makes of a closed one
        _complain("stdout is closed, so no answer could be given: leave it open, or send it to a file")
        return InputError.exit_code
    options = _parser().parse_args(arguments)
    options.said = shlex.join(["klaus", *(sys.argv[1:] if arguments is None else arguments)])
    try:
        code: int | None = options.command(options)
        sys.stdout.flush()
    except KlausError as error:
        _complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("klaus: interrupted\n")
        return _INTERRUPTED
    except BrokenPipeError:
        _abandon_stdout()  # whoever read our output has gone
        return 0
    except MemoryError:
        _complain("not enough memory for this model or picture: give a smaller one")
        return InputError.exit_code
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _NO_ROOM and error.filename is None:
            # Files have names, and what fails with them is an InputError already: this was the answer.
            _abandon_stdout()
            _complain(f"cannot write the answer to stdout: {error.strerror}; make room, or send it elsewhere")
            return InputError.exit_code
        if os.environ.get("KLAUS_DEBUG"):
            traceback.print_exc()
        _complain(f"internal error ({type(error).__name__}: {error}): KLAUS_DEBUG=1 shows where; report it")
        return KlausError.exit_code
    return code or 0


def _complain(message: str) -> None:
    sys.stderr.write(f"klaus: {clean(message)}\n")


def _abandon_stdout() -> None:
    """What is still in Python's buffer goes nowhere, or it would fail and complain once more at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# ------------------------------------------------------------------------------------------------------ commands


def _classify(options: argparse.Namespace) -> int:
    """A photo that cannot be read costs its own answer only."""
    model = _model(options, options.model)
    patches = _patches(options, model)
    named, failed = [], []
    with _engine(options, model, options.model) as (engine, engine_name):
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
        _json({**_facts(model), "engine": engine_name, "patches": patches, "photos": photos, "failed": errors})
    elif named:
        _print_answers(model, named)
    for message in dict.fromkeys(error for _, error in failed):  # what is wrong with an option is said once
        _complain(message)
    return InputError.exit_code if failed else 0


def _print_answers(model: Model, named: Sequence[tuple[Path, list[dict[str, Any]]]]) -> None:
    for photo, found in named:
        table = Table(title=Text(clean(str(photo))), title_justify="left", title_style="bold")
        table.add_column("class")
        table.add_column("id", justify="right")
        table.add_column("probability", justify="right")
        for row in found:
            table.add_row(Text(clean(row["label"])), str(row["id"]), f"{row['probability']:.2%}")
        _console().print(table)
    _print_origin(model)


def _top(model: Model, probabilities: F32, count: int) -> list[dict[str, Any]]:
    rows = []
    for number in accuracy.top(probabilities, count):
        label = model.labels[number] if model.labels else None
        row: dict[str, Any] = {"id": number, "label": label.name if label else f"class {number}"}
        if label:
            row["wnid"] = label.id
        rows.append(row | {"probability": float(probabilities[number])})
    return rows


def _info(options: argparse.Namespace) -> None:
    model = _model(options, options.source)
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
    if options.json:
        _json({**_facts(model), "input": list(model.input_shape), "patches": model.patches, "layers": layers})
        return
    table = Table(title=Text(f"{clean(model.name)}, input {_times(model.input_shape)}"), title_justify="left")
    for name in ("layer", "name", "kind", "output", "multiply-adds", "weights"):
        table.add_column(name, justify="right" if name in ("layer", "multiply-adds") else "left")
    for row in layers:
        cost = f"{row['multiplies']:,}" if row["multiplies"] else ""
        called = Text(clean(row["name"]))
        table.add_row(str(row["layer"]), called, row["kind"], _times(row["output"]), cost, row["weights"])
    _console().print(table)
    _say(f"{shapes.weight_count(model):,} weights, {sum(costs):,} multiply-adds, {model.patches} patches a picture")
    _print_origin(model)


def _weights_text(weights: Any) -> str:
    form = f"{len(weights.codebook.values)} entries" if weights.codebook is not None else str(weights.values.dtype)
    return f"{_times(weights.values.shape)} {form}" + (", scale" if weights.scale is not None else "")


def _verify(options: argparse.Namespace) -> None:
    model = _model(options, options.source)  # reading checks everything
    if options.json:
        _json({**_facts(model), "ok": True, "layers": len(model.layers), "weights": shapes.weight_count(model)})
        return
    _say(f"{options.source}: whole and well-formed, {len(model.layers)} layers, {shapes.weight_count(model):,} weights")
    _print_origin(model)


def _quantize(options: argparse.Namespace) -> None:
    source = _model(options, options.source)
    progress = Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
    with progress:
        bar = progress.add_task("quantizing", total=None)
        model = quantize.quantize(
            source,
            options.scheme,
            seed=options.seed,
            calibration=options.calibration,
            budget=options.budget,
            max_loss=options.max_loss,
            work=options.work or registry.cache_folder().parent / "quantize",
            report=lambda what, done, total: progress.update(bar, description=clean(what), completed=done, total=total),
        )
    made = package.write_package(model, options.out, name=options.name, compat=options.compat, effort=options.effort)
    bits = 8 * made.total_bytes / shapes.weight_count(model)
    if options.json:
        names = [str(path) for path in made.files]
        _json({**_facts(model), "files": names, "total_bytes": made.total_bytes, "bits_per_weight": bits})
        return
    for path in made.files:
        _say(f"{path}  {path.stat().st_size:,} bytes")
    _say(f"{options.scheme}: {made.total_bytes:,} bytes in all, {bits:.2f} bits a weight")
    _print_origin(model)


def _calibrate(options: argparse.Namespace) -> None:
    path = Path(options.source)
    if options.out is None and (options.source in registry.MODELS or path.suffix != ".sqlite3"):
        raise InputError(f"{options.source}: is no package that ranges could be written into: say where by -o DIR")
    source = _model(options, options.source)
    photos = views.find(options.images)
    progress = Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
    with progress:
        bar = progress.add_task("photos", total=len(photos))
        report = lambda done: progress.update(bar, completed=done)  # noqa: E731
        model = calibrate.calibrate(source, photos, method=options.method, report=report)
    name = path.stem if path.suffix == ".sqlite3" else None
    made = package.write_package(model, options.out or path.parent, name=name, effort=options.effort)
    if options.json:
        ranges = [asdict(item) for item in model.ranges if item is not None]
        _json({**_facts(model), "files": [str(file) for file in made.files], "photos": len(photos), "ranges": ranges})
        return
    for title, item in zip(("input", *(layer.name for layer in model.layers)), model.ranges, strict=True):
        if item is not None:
            _say(f"{title}  {item.low:.6g} to {item.high:.6g}")
    _say(f"{made.path}: ranges of {len(photos)} photos, by {options.method}")


def _pack(options: argparse.Namespace) -> None:
    model = _model(options, options.source)
    path = pack.pack(model, options.out)
    if options.json:
        _json({**_facts(model), "file": str(path), "bytes": path.stat().st_size})
        return
    _say(f"{path}  {path.stat().st_size:,} bytes")
    _print_origin(model)


def _activations(options: argparse.Namespace) -> None:
    model = _model(options, options.source)
    tensor = _tensor(options.input, model)
    targets = [options.out / f"layer-{number:02d}.f32" for number in range(len(model.layers))]
    with _engine(options, model, options.source) as (engine, engine_name), files.staged(targets) as paths:
        rows = []
        for layer, target, path, output in zip(model.layers, targets, paths, engine.activations(tensor), strict=True):
            path.write_bytes(output.astype("<f4", copy=False).tobytes())
            rows.append({"name": layer.name, "file": str(target), "shape": list(output.shape)})
    if options.json:
        _json({**_facts(model), "engine": engine_name, "activations": rows})
        return
    for row in rows:
        _say(f"{row['file']}  {_times(row['shape'])}  {row['name']}")


def _eval(options: argparse.Namespace) -> None:
    model = _model(options, options.source)
    patches = _patches(options, model)
    photos = images.find_photos(options.images)[: options.limit]
    wanted = _numbers(model, options.source, photos)
    numbers, found = _ask(options, model, options.source, photos, patches)
    wanted = [wanted[number] for number in numbers]
    if not numbers:
        raise InputError(f"shard {options.shard[0]} of {options.shard[1]} has none of {len(photos)} photos")
    score = accuracy.score(found, wanted)
    change = None
    if options.against:
        reference = _model(options, options.against)
        if reference.labels != model.labels:
            raise InputError(f"{options.against}: has other classes than {options.source}: they cannot be compared")
        others, answers_there = _ask(options, reference, options.against, photos, patches)
        if others != numbers:
            raise InputError("the two models have answered different photos: run every shard of both, then without")
        change = accuracy.compare(answers_there, found, wanted)
    if options.json:
        shares = {
            name: {"share": hits / score.photos, "interval_95": accuracy.interval(hits, score.photos)}
            for name, hits in (("top1", score.top1), ("top5", score.top5))
            if score.claimed
        }
        asked = {"patches": patches, "crop": options.crop, "shard": list(options.shard), "of_photos": len(photos)}
        against = asdict(change) | {"top1_interval_95": change.top1_interval} if change else None
        _json({**_facts(model), **asked, "counts": asdict(score), "accuracy": shares or None, "against": against})
        return
    for name, hits in (("top-1", score.top1), ("top-5", score.top5)):
        line = f"{name}: {hits} of {score.photos} photos"
        if score.claimed:
            low, high = accuracy.interval(hits, score.photos)
            line += f" = {hits / score.photos:.1%} (95 % interval {low:.1%} to {high:.1%})"
        _say(line)
    if not score.claimed:
        _say(f"no accuracy: that takes {accuracy.CLAIM_FROM} photos or more")
    if score.photos < len(photos):
        _say(f"{len(photos) - score.photos} of {len(photos)} photos belong to shards that have not run")
    if change:
        low, high = change.top1_interval
        _say(
            f"against {options.against}: the same class first on {change.agree} of {change.photos} photos, "
            f"KL {change.divergence:.4g} nats, top-1 {change.top1:+.1%} (95 % interval {low:+.1%} to {high:+.1%})"
        )
    _print_origin(model)


def _numbers(model: Model, source: str, photos: Sequence[tuple[str, Path]]) -> list[int]:
    if not model.labels:
        raise InputError(f"{source}: has no class names: its answers cannot be compared with photos' classes")
    return accuracy.positions(model.labels, photos)


def _ask(
    options: argparse.Namespace,
    model: Model,
    source: str,
    photos: Sequence[tuple[str, Path]],
    patches: Literal[1, 10],
) -> tuple[list[int], F32]:
    """Which photos have been answered, by this run, one before or another shard; and the answers."""
    progress = Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
    library = native.find_library() if options.engine in (None, "ref") else None
    name = f"{options.engine} {answers.code(*(() if library is None else (library,)))}"
    asked = answers.Asked(name, patches, options.crop)
    journal = answers.Journal(options.journal or registry.cache_folder().parent / "eval", model, asked)
    with ExitStack() as stack:
        stack.enter_context(progress)
        bar = progress.add_task(
            f"photos, {clean(model.name)}", total=len(photos[options.shard[0] - 1 :: options.shard[1]])
        )
        return answers.ask(
            model,
            lambda: stack.enter_context(_engine(options, model, source))[0],
            [path for _, path in photos],
            asked,
            journal=journal,
            shard=options.shard,
            after=lambda done: progress.update(bar, completed=done),
        )


def _quant_table(options: argparse.Namespace) -> None:
    model = _model(options, options.source)
    photos = images.find_photos(options.images)[: options.limit]
    _numbers(model, options.source, photos)
    cache = registry.cache_folder().parent
    order = quant_table.Order(
        model=model,
        schemes=options.scheme or quant_table.default_schemes(model, calibration=options.calibration is not None),
        photos=photos,
        packages=cache / "quant-table" / package.default_name(model),
        journal=options.journal or cache / "eval",
        patches=_patches(options, model),
        crop=options.crop or quant_table.default_crop(model, photos),
        calibration=options.calibration,
        work=cache / "quantize",
        effort=options.effort,
        seed=options.seed,
    )
    progress = Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
    with progress:
        bar = progress.add_task("", total=None)
        made = quant_table.make(
            order, lambda what, done, of: progress.update(bar, description=clean(what), completed=done, total=of)
        )
    page = options.out / f"quant-table-{package.default_name(model)}.md"
    picture = page.with_suffix(".png")
    with files.staged((page, picture)) as (page_file, picture_file):
        page_file.write_text(quant_table.markdown(made, options.said, picture.name), "utf-8")
        picture_file.write_bytes(chart.draw(made))
    if options.json:
        _json({**_facts(model), "table": asdict(made), "files": [str(page), str(picture)]})
        return
    shown = Table(title=Text(clean(quant_table.conditions(made))), title_justify="left")
    for number, heading in enumerate(quant_table.HEADINGS):
        shown.add_column(heading, justify="right" if number else "left")
    for row in made.rows:
        shown.add_row(*quant_table.cells(row))
    _console().print(shown)
    _say(f"{page}, {picture}")


def _models(options: argparse.Namespace) -> None:
    entries = registry.MODELS.values()
    if options.json:
        facts = ("name", "description", "source", "licence", "digest")
        rows = [{key: getattr(entry, key) for key in facts} for entry in entries]
        _json({"models": rows, "schemes": dict(quantize.SCHEMES)})
        return
    for entry in entries:
        _say(f"{entry.name}: {entry.description}; {entry.source}; {entry.licence}; {entry.digest}")


# ------------------------------------------------------------------------------------------------------- helpers


def _model(options: argparse.Namespace, source: str) -> Model:
    return registry.load_model(source, layers=dict(options.layer))


def _patches(options: argparse.Namespace, model: Model) -> Literal[1, 10]:
    wanted = options.patches or model.patches
    return 10 if wanted == 10 else 1


@contextmanager
def _engine(options: argparse.Namespace, model: Model, source: str) -> Iterator[tuple[Engine, str]]:
    """The engine and the name of who computes: numpy, fast, ref, or c: the C library with all this CPU has.

    By default that is c where it is built, else fast, and it says so.
    """
    wanted = options.engine
    if wanted in ("numpy", "fast") and options.threads is not None:
        raise InputError(f"--threads is for the C engine, not for --engine {wanted}: leave one of the two out")
    library = native.find_library() if wanted in (None, "ref") else None
    if wanted in (None, "ref") and library is None:
        fallback = "fast" if wanted is None else "numpy"
        sys.stderr.write(
            f"klaus: no C build in {native.HOST_BUILD} (`invoke build --target host` makes it): "
            f"using numpy ({fallback})" + (", which takes no --threads\n" if options.threads else "\n")
        )
        wanted = fallback
    if library is None:
        yield (NumpyEngine(model), "numpy") if wanted == "numpy" else (FastEngine(model), "fast")
        return
    with ExitStack() as stack:
        path = Path(source)
        if source in registry.MODELS or path.suffix != ".klaus":
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="klaus-"))
            path = pack.pack(model, Path(folder) / "model.klaus")
        engine = native.NativeEngine(path, library, isa=wanted or "auto", threads=options.threads or 1)
        stack.callback(engine.close)
        yield engine, wanted or "c"


def _tensor(path: Path, model: Model) -> F32:
    """X.f32: raw little-endian float32, HWC, as layer 0 reads it."""
    data = files.read_bytes(path, _MAX_TENSOR_BYTES)
    wanted = 4 * int(np.prod(model.input_shape))
    if len(data) != wanted:
        shape = _times(model.input_shape)
        raise InputError(
            f"{path}: has {len(data):,} bytes, {shape} float32 numbers are {wanted:,}: give what layer 0 reads"
        )
    tensor = np.frombuffer(data, "<f4").reshape(model.input_shape)
    if not np.isfinite(tensor).all():
        raise InputError(f"{path}: holds numbers that are not finite")
    return tensor


def _facts(model: Model) -> dict[str, Any]:
    return {"model": model.name, "provenance": asdict(model.provenance)}


def _print_origin(model: Model) -> None:
    origin = model.provenance
    _say(f"{model.name} ({origin.scheme}): {origin.source}; licence {origin.licence}; {origin.attribution}")
    if origin.seeded:
        _say(SEEDED)


def _times(sizes: Sequence[int]) -> str:
    return " x ".join(str(size) for size in sizes)


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 140, highlight=False)


def _say(line: str) -> None:
    sys.stdout.write(clean(line) + "\n")


def _json(value: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")


# -------------------------------------------------------------------------------------------------------- parser


def _layer(text: str) -> tuple[int, Path]:
    number, found, path = text.partition("=")
    if not found or not number.isdecimal() or not path:
        raise argparse.ArgumentTypeError(f"{clean(text)!r} is not N=FILE, as in 11=layer-11.png")
    return int(number), Path(path)


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{clean(text)!r} is not a whole number of 1 or more")
    return int(text)


def _shard(text: str) -> tuple[int, int]:
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count) <= 10_000):
        raise argparse.ArgumentTypeError(f"{clean(text)!r} is not K/N, as in 2/4: the second of four")
    return int(number), int(count)


def _size(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1 << 40:
        raise argparse.ArgumentTypeError(f"{clean(text)!r} is not a number of bytes")
    return int(text)


def _points(text: str) -> float:
    try:
        points = float(text)
    except ValueError:
        points = math.nan
    if not 0 <= points <= 100:
        raise argparse.ArgumentTypeError(f"{clean(text)!r} is not a number from 0 to 100")
    return points


def _parser() -> argparse.ArgumentParser:
    names = ", ".join(registry.MODELS)
    parser = argparse.ArgumentParser(prog="klaus", description="Small ImageNet classifiers, on this computer.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int | None], text: str, *, source: bool = True) -> Any:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=run, layer=())
        sub.add_argument("--json", action="store_true", help="one JSON object instead of text")
        if source:
            sub.add_argument(
                "source", metavar="SOURCE", help=f"{names}, or a ccv or Klaus sqlite3, package or .klaus file"
            )
            _add_layer(sub)
        return sub

    def _add_layer(sub: Any) -> None:
        text = "index picture of layer N, where it is not beside the file as NAME-layer-N.png (repeatable)"
        sub.add_argument("--layer", type=_layer, action="append", default=[], metavar="N=FILE", help=text)

    def _add_effort(sub: Any) -> None:
        text = "how small the files get: fast = zlib, best = zopfli, some 5 s for each MB (default best)"
        sub.add_argument("--effort", choices=("fast", "best"), default="best", help=text)

    def _add_engine(sub: Any) -> None:
        text = "who computes: numpy = the oracle, ref = C, fast = BLAS (default: C where it is built)"
        sub.add_argument("--engine", choices=("numpy", "ref", "fast"), help=text)
        sub.add_argument("--threads", type=_count, metavar="N", help="threads of the C engine (default 1)")

    def _add_picture(sub: Any) -> None:
        sub.add_argument("--crop", choices=("center", "none"), default="center", help="none: resize without a crop")
        sub.add_argument("--patches", type=int, choices=(1, 10), help="patches a picture (default: the model's own)")
        _add_engine(sub)

    sub = command("classify", _classify, "Say what is on photos.", source=False)
    sub.add_argument("photos", metavar="PHOTO", nargs="+", type=Path, help="JPEG, PNG, BMP, PPM or WebP")
    sub.add_argument("--model", metavar="SOURCE", default="lite0", help=f"{names}, or a file (default lite0)")
    sub.add_argument("--top", type=_count, default=5, help="how many classes (default 5)")
    _add_layer(sub)
    _add_picture(sub)

    command("info", _info, "Show a model's layers, source and licence.")
    command("verify", _verify, "Read and check every byte of a model.")

    schemes = "; ".join(f"{name}: {text}" for name, text in quantize.SCHEMES.items())
    sub = command("quantize", _quantize, "Make a package (sqlite3 + PNG) with codebook weights.")
    sub.add_argument("--scheme", required=True, metavar="S", help=schemes)
    sub.add_argument("-o", "--out", required=True, type=Path, metavar="DIR", help="folder of the package")
    sub.add_argument("--name", help="of the files without ending (default: the model's and the scheme's)")
    sub.add_argument("--seed", type=int, default=0, help="of what a scheme draws (default 0)")
    text = "folder of unlabelled photos, some hundred: schemes q6 and below need them, q8 gains by them"
    sub.add_argument("--calibration", type=Path, metavar="DIR", help=text)
    text = "auto: bytes of the whole package at most"
    sub.add_argument("--budget", type=_size, metavar="BYTES", help=text)
    text = "auto: of 100 photos, how many may be answered otherwise than by the float model"
    sub.add_argument("--max-loss", type=_points, metavar="PTS", help=text)
    text = "keeps what an interrupted run has finished (default: quantize in the cache folder)"
    sub.add_argument("--work", type=Path, metavar="DIR", help=text)
    text = "klaus-2014: insist on what Klaus' own loader reads (default: that where it fits, else the smallest)"
    sub.add_argument("--compat", choices=("klaus-2014",), help=text)
    _add_effort(sub)

    sub = command(
        "calibrate", _calibrate, "Measure activation ranges for int8 arithmetic and write them into the package."
    )
    sub.add_argument("--images", required=True, type=Path, metavar="DIR", help="unlabelled photos, some hundred")
    text = "folder of the package (default: SOURCE itself is written anew)"
    sub.add_argument("-o", "--out", type=Path, metavar="DIR", help=text)
    text = "minmax: every value (default); percentile: all but the outermost"
    sub.add_argument("--method", choices=("minmax", "percentile"), default="minmax", help=text)
    _add_effort(sub)

    sub = command("pack", _pack, "Make a packed model that the C library maps.")
    sub.add_argument("-o", "--out", required=True, type=Path, metavar="FILE.klaus", help="the packed model")

    sub = command("activations", _activations, "Write every layer's output as layer-NN.f32 (float32, HWC).")
    sub.add_argument("--input", required=True, type=Path, metavar="X.f32", help="what layer 0 reads: float32, HWC")
    sub.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of the files, made if need be")
    _add_engine(sub)

    sub = command("eval", _eval, "Measure top-1 and top-5 on photos WNID/*.{jpg,jpeg,png}.")
    sub.add_argument("--images", required=True, type=Path, metavar="DIR", help="photos WNID/*.{jpg,jpeg,png}")
    sub.add_argument("--limit", type=_count, help="only the first photos, by class and name")
    text = "another model on the same photos, as the float one: agreement, KL divergence, change of top-1"
    sub.add_argument("--against", metavar="SOURCE", help=text)
    text = "only every N-th photo from the K-th; without, what all shards found is put together"
    sub.add_argument("--shard", type=_shard, default=(1, 1), metavar="K/N", help=text)
    text = "keeps every answer, so that an interrupted run goes on where it was (default: eval in the cache folder)"
    sub.add_argument("--journal", type=Path, metavar="DIR", help=text)
    _add_picture(sub)

    sub = command(
        "quant-table", _quant_table, "Size against accuracy, a row for each scheme; writes a page and a chart."
    )
    sub.add_argument("--images", required=True, type=Path, metavar="DIR", help="photos WNID/*.{jpg,jpeg,png}")
    sub.add_argument("--limit", type=_count, help="only the first photos, by class and name")
    sub.add_argument("--scheme", action="append", metavar="S", help="a row (repeatable; default: all that fit)")
    text = "folder of unlabelled photos, none of --images among them: schemes q6 and below need them"
    sub.add_argument("--calibration", type=Path, metavar="DIR", help=text)
    text = "center or none (default: none where photos have the model's own size, else center)"
    sub.add_argument("--crop", choices=("center", "none"), help=text)
    sub.add_argument("--patches", type=int, choices=(1, 10), help="patches a picture (default: the model's own)")
    sub.add_argument("--seed", type=int, default=0, help="of what a scheme draws (default 0)")
    sub.add_argument(
        "--journal", type=Path, metavar="DIR", help="keeps every answer (default: eval in the cache folder)"
    )
    text = "folder of the page quant-table-MODEL.md and its chart (default docs)"
    sub.add_argument("-o", "--out", type=Path, default=Path("docs"), metavar="DIR", help=text)
    _add_effort(sub)

    command("models", _models, "List the models that have a name.", source=False)
    return parser


if __name__ == "__main__":
    sys.exit(main())
