"""`klaus eval` and `quant-table`: accuracy on photos, and size against accuracy."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from rich.table import Table
from rich.text import Text

from klaus_runtime import accuracy, answers, chart, files, images, memory, native, package, quant_table, registry
from klaus_runtime.cli.options import (
    Commands,
    add_effort,
    add_picture,
    count,
    engine_of,
    model_of,
    patches_of,
    shard,
)
from klaus_runtime.cli.words import clean, console, facts, progress, say, say_json, say_origin
from klaus_runtime.errors import InputError
from klaus_runtime.model import F32, Model


def register(commands: Commands) -> None:
    """Adds the commands."""
    sub = commands.add("eval", _eval, "Measure top-1 and top-5 on photos WNID/*.{jpg,jpeg,png}.")
    sub.add_argument("--images", required=True, type=Path, metavar="DIR", help="photos WNID/*.{jpg,jpeg,png}")
    sub.add_argument("--limit", type=count, help="only the first photos, by class and name")
    text = "another model on the same photos, as the float one: agreement, KL divergence, change of top-1"
    sub.add_argument("--against", metavar="SOURCE", help=text)
    text = "only every N-th photo from the K-th; without, what all shards found is put together"
    sub.add_argument("--shard", type=shard, default=(1, 1), metavar="K/N", help=text)
    text = "keeps every answer, so that an interrupted run goes on where it was (default: eval in the cache folder)"
    sub.add_argument("--journal", type=Path, metavar="DIR", help=text)
    add_picture(sub)

    sub = commands.add(
        "quant-table", _quant_table, "Size against accuracy, a row for each scheme; writes a page and a chart."
    )
    sub.add_argument("--images", required=True, type=Path, metavar="DIR", help="photos WNID/*.{jpg,jpeg,png}")
    sub.add_argument("--limit", type=count, help="only the first photos, by class and name")
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
    add_effort(sub)


def _eval(options: argparse.Namespace) -> None:
    memory.keep_freed()
    model = model_of(options, options.source)
    patches = patches_of(options, model)
    photos = images.find_photos(options.images)[: options.limit]
    wanted = _numbers(model, options.source, photos)
    numbers, found = _ask(options, model, options.source, photos, patches)
    wanted = [wanted[number] for number in numbers]
    if not numbers:
        raise InputError(f"shard {options.shard[0]} of {options.shard[1]} has none of {len(photos)} photos")
    score = accuracy.score(found, wanted)
    change = None
    if options.against:
        reference = model_of(options, options.against)
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
        say_json({**facts(model), **asked, "counts": asdict(score), "accuracy": shares or None, "against": against})
        return
    for name, hits in (("top-1", score.top1), ("top-5", score.top5)):
        line = f"{name}: {hits} of {score.photos} photos"
        if score.claimed:
            low, high = accuracy.interval(hits, score.photos)
            line += f" = {hits / score.photos:.1%} (95 % interval {low:.1%} to {high:.1%})"
        say(line)
    if not score.claimed:
        say(f"no accuracy: that takes {accuracy.CLAIM_FROM} photos or more")
    if score.photos < len(photos):
        say(f"{len(photos) - score.photos} of {len(photos)} photos belong to shards that have not run")
    if change:
        low, high = change.top1_interval
        say(
            f"against {options.against}: the same class first on {change.agree} of {change.photos} photos, "
            f"KL {change.divergence:.4g} nats, top-1 {change.top1:+.1%} (95 % interval {low:+.1%} to {high:+.1%})"
        )
    say_origin(model)


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
    library = native.find_library() if options.engine in (None, "ref") else None
    name = f"{options.engine} {answers.code(*(() if library is None else (library,)))}"
    asked = answers.Asked(name, patches, options.crop)
    journal = answers.Journal(options.journal or registry.cache_folder().parent / "eval", model, asked)
    said, total = f"photos, {model.name}", len(photos[options.shard[0] - 1 :: options.shard[1]])
    with ExitStack() as stack:
        report = stack.enter_context(progress(said, total))
        return answers.ask(
            model,
            lambda: stack.enter_context(engine_of(options, model, source))[0],
            [path for _, path in photos],
            asked,
            journal=journal,
            shard=options.shard,
            after=lambda done: report(said, done, total),
        )


def _quant_table(options: argparse.Namespace) -> None:
    memory.keep_freed()
    model = model_of(options, options.source)
    photos = images.find_photos(options.images)[: options.limit]
    _numbers(model, options.source, photos)
    cache = registry.cache_folder().parent
    order = quant_table.Order(
        model=model,
        schemes=options.scheme or quant_table.default_schemes(model, calibration=options.calibration is not None),
        photos=photos,
        packages=cache / "quant-table" / package.default_name(model),
        journal=options.journal or cache / "eval",
        patches=patches_of(options, model),
        crop=options.crop or quant_table.default_crop(model, photos),
        calibration=options.calibration,
        work=cache / "quantize",
        effort=options.effort,
        seed=options.seed,
    )
    with progress("") as report:
        made = quant_table.make(order, report)
    page = options.out / f"quant-table-{package.default_name(model)}.md"
    picture = page.with_suffix(".png")
    with files.staged((page, picture)) as (page_file, picture_file):
        page_file.write_text(quant_table.markdown(made, options.said, picture.name), "utf-8")
        picture_file.write_bytes(chart.draw(made))
    if options.json:
        say_json({**facts(model), "table": asdict(made), "files": [str(page), str(picture)]})
        return
    shown = Table(title=Text(clean(quant_table.conditions(made))), title_justify="left")
    for number, heading in enumerate(quant_table.HEADINGS):
        shown.add_column(heading, justify="right" if number else "left")
    for row in made.rows:
        shown.add_row(*quant_table.cells(row))
    console().print(shown)
    say(f"{page}, {picture}")
