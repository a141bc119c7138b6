"""The klaus command as a user runs it: answers, exit codes, one line an error, nothing hostile on the terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from klaus_runtime import accuracy, answers, registry
from klaus_runtime.cli import clean
from klaus_runtime.cli.main import parser
from klaus_runtime.errors import CheckError, InputError
from klaus_runtime.model import Label
from klaus_runtime.pack import pack, read_packed
from klaus_runtime.package import read_package
from klaus_runtime.readers import ccv
from toolchains.build import Build

from . import golden
from .golden import TINY, TINY_QUANT
from .zoo import assert_same, everything

TINY_MODEL = TINY / "model-fp16.sqlite3"
PICTURE = TINY / "images" / "landscape-97x160.png"


def _klaus(*arguments: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "klaus_runtime.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **(env or {})},
        check=False,
    )


def _json(*arguments: object) -> Any:
    done = _klaus(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny net with names, the last of them hostile, as a packed model."""
    model = ccv.read(TINY_MODEL)
    names = [f"thing {number}" for number in range(9)] + ["[bold]not markup[/bold] [link=x]"]
    labels = tuple(Label(f"n{number:08d}", name) for number, name in enumerate(names))
    return pack(replace(model, labels=labels), tmp_path_factory.mktemp("labelled") / "net.klaus")


@pytest.mark.parametrize("engine", ["numpy", "fast", "ref", None])
def test_classify_on_every_engine(engine: str | None, host_build: Build) -> None:
    assert host_build.shared.is_file()
    options = () if engine is None else ("--engine", engine)
    answer = _json("classify", PICTURE, PICTURE, "--model", TINY_MODEL, "--top", 10, *options)
    assert answer["engine"] == (engine or "c")
    assert answer["patches"] == 10
    assert len(answer["photos"]) == 2
    wanted = golden.ranks(golden.only(TINY, f"images/{PICTURE.stem.split('-')[0]}*fp16*sym1*"))
    for rank, (number, confidence) in zip(answer["photos"][0]["top"], wanted, strict=True):
        assert rank["id"] == number
        assert rank["probability"] == pytest.approx(confidence, rel=2e-5)


def test_classify_prints_names_and_origin(labelled: Path) -> None:
    done = _klaus("classify", PICTURE, "--model", labelled, "--engine", "fast", "--top", 10)
    assert done.returncode == 0
    assert "[bold]not markup[/bold] [link=x]" in done.stdout
    assert "licence unknown" in done.stdout
    assert not done.stderr


def test_seeded_models_say_so_wherever_they_appear(tmp_path: Path) -> None:
    path = pack(everything(), tmp_path / "x.klaus")
    for arguments in (("info", path), ("verify", path), ("pack", path, "-o", tmp_path / "y.klaus")):
        done = _klaus(*arguments)
        assert done.returncode == 0, done.stderr
        assert "seeded: timing only" in done.stdout
    assert _json("verify", path)["provenance"]["seeded"] is True


def test_info_and_verify(labelled: Path) -> None:
    done = _klaus("info", labelled)
    assert done.returncode == 0
    assert "conv-0" in done.stdout
    found = _json("info", TINY_MODEL)
    assert [row["kind"] for row in found["layers"]][:3] == ["Convolution", "LocalResponseNorm", "Pool"]
    assert found["input"] == [47, 47, 3]
    assert _json("verify", labelled)["ok"] is True


def test_layer_pictures_can_be_given() -> None:
    folder = TINY_QUANT / "a-depth8-index"
    given = [f"--layer={path.stem.split('-')[1]}={path}" for path in folder.glob("layer-*.png")]
    assert _json("verify", folder / "model.sqlite3", *given)["layers"] == 12


def test_quantize_then_pack(tmp_path: Path) -> None:
    answer = _json("quantize", TINY_MODEL, "--scheme", "klaus-mixed", "-o", tmp_path, "--name", "small")
    paths = [Path(path) for path in answer["files"]]
    assert answer["total_bytes"] == sum(path.stat().st_size for path in tmp_path.iterdir())
    packed = _json("pack", paths[0], "-o", tmp_path / "small.klaus")
    assert packed["bytes"] == (tmp_path / "small.klaus").stat().st_size
    assert read_packed(tmp_path / "small.klaus").provenance == read_package(paths[0]).provenance


def test_activations(tmp_path: Path) -> None:
    given = golden.only(TINY, "input-0-*.f32")
    answer = _json("activations", TINY_MODEL, "--input", given, "--out", tmp_path / "acts", "--engine", "numpy")
    assert [Path(row["file"]).name for row in answer["activations"]] == [f"layer-{n:02d}.f32" for n in range(12)]
    last = np.fromfile(tmp_path / "acts" / "layer-11.f32", "<f4")
    wanted = golden.tensor(golden.only(TINY / "acts-fp16-0", "act-11-*")).ravel()
    assert np.abs(last - wanted).max() <= 1e-5 * np.abs(wanted).max()
    short = tmp_path / "short.f32"
    short.write_bytes(bytes(8))
    done = _klaus("activations", TINY_MODEL, "--input", short, "--out", tmp_path / "no", "--engine", "numpy")
    assert (done.returncode, done.stdout) == (2, "")
    assert "has 8 bytes, 47 x 47 x 3 float32 numbers are" in done.stderr
    assert not (tmp_path / "no").exists()


def test_eval_counts_and_claims_nothing_from_a_few(labelled: Path, tmp_path: Path) -> None:
    first = _json("classify", PICTURE, "--model", labelled, "--engine", "fast", "--top", 6)["photos"][0]["top"]
    for wnid, name in ((first[0]["wnid"], "a.PNG"), (first[4]["wnid"], "b.png"), (first[5]["wnid"], "c.png")):
        (tmp_path / wnid).mkdir(exist_ok=True)
        Image.open(PICTURE).save(tmp_path / wnid / name, "PNG")
    kept = ("--journal", tmp_path / "journal")
    answer = _json("eval", labelled, "--images", tmp_path, "--engine", "fast", *kept)
    assert answer["counts"] == {"photos": 3, "top1": 1, "top5": 2}
    assert answer["accuracy"] is None
    done = _klaus("eval", labelled, "--images", tmp_path, "--engine", "fast", *kept)
    assert "top-1: 1 of 3 photos\n" in done.stdout
    assert "no accuracy: that takes 100 photos" in done.stdout
    (tmp_path / "n12345678").mkdir()
    Image.open(PICTURE).save(tmp_path / "n12345678" / "d.png")
    done = _klaus("eval", labelled, "--images", tmp_path, "--engine", "fast", *kept)
    assert done.returncode == 2
    assert "class n12345678 is none of the network's 10" in done.stderr


def test_eval_goes_on_where_it_was_and_shards_are_put_together(labelled: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos" / "n00000003"
    photos.mkdir(parents=True)
    for number in range(5):
        pixels = np.random.default_rng(number).integers(0, 256, (60, 70, 3), np.uint8)
        Image.fromarray(pixels).save(photos / f"{number}.png")
    given = ("eval", labelled, "--images", photos.parent, "--engine", "fast")
    whole = _json(*given, "--journal", tmp_path / "whole")
    kept = ("--journal", tmp_path / "parts")
    assert _json(*given, *kept, "--shard", "1/2")["counts"]["photos"] == 3
    done = _klaus(*given, *kept, "--shard", "1/2")
    assert "2 of 5 photos belong to shards that have not run" in done.stdout
    assert _json(*given, *kept, "--shard", "2/2")["counts"] == whole["counts"]
    (journal,) = (tmp_path / "whole").glob("*/1-of-1.answers")
    before = journal.read_bytes()
    journal.write_bytes(before[:-5])  # a kill in the middle of a record
    assert _json(*given, "--journal", tmp_path / "whole") == whole
    assert journal.read_bytes() == before
    against = _json(*given, *kept, "--against", labelled)["against"]
    assert (against["agree"], against["divergence"], against["gained"], against["lost"]) == (5, 0.0, 0, 0)
    done = _klaus(*given, "--shard", "3/2")
    assert (done.returncode, "is not K/N" in done.stderr) == (2, True)


def test_two_runs_do_not_write_one_shard(tmp_path: Path) -> None:
    model = ccv.read(TINY_MODEL)
    asked = answers.Asked("fast", 1, "center")
    first, second = (answers.Journal(tmp_path, model, asked) for _ in range(2))
    with first.writer((1, 1)) as put:
        put(bytes(32), np.zeros(10, np.float32))
        with pytest.raises(InputError, match="another run is writing"), second.writer((1, 1)):
            pass
    assert answers.Journal(tmp_path, model, asked).get(bytes(32)) is not None
    other = replace(model, patches=1, name="another", labels=())
    assert answers.Journal(tmp_path, other, asked).get(bytes(32)) is not None  # names decide nothing
    assert answers.Journal(tmp_path, other, answers.Asked("fast", 10, "center")).get(bytes(32)) is None


def test_answers_are_compared_as_the_words_say() -> None:
    reference = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4], [0.5, 0.25, 0.25]], np.float32)
    found = np.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.4, 0.3, 0.3], [0.5, 0.25, 0.25]], np.float32)
    change = accuracy.compare(reference, found, [0, 1, 0, 2])
    assert (change.photos, change.agree, change.gained, change.lost) == (4, 2, 1, 1)
    wanted = (0.1 * np.log(1 / 6) + 0.8 * np.log(8 / 3) + 0.3 * np.log(3 / 4) + 0.4 * np.log(4 / 3)) / 4
    assert change.divergence == pytest.approx(wanted, rel=1e-6)
    assert change.top1 == 0
    assert list(change.top1_interval) == pytest.approx([-0.56579, 0.56579], abs=1e-5)
    one_sided = accuracy.Change(250, 240, 0, 5, 0.0)
    low, high = one_sided.top1_interval
    assert (round(low, 4), round(high, 4)) == (-0.0387, -0.0009)
    assert accuracy.Change(250, 250, 0, 0, 0.0).top1_interval == pytest.approx((-0.00778, 0.00778), abs=1e-5)
    with pytest.raises(InputError, match="cannot be compared"):
        accuracy.compare(reference, found[:2], [0, 1])


def test_an_interval_is_that_of_wilson() -> None:
    low, high = accuracy.interval(0, 10)
    assert low == pytest.approx(0, abs=1e-12)
    assert high == pytest.approx(0.27753, abs=1e-5)
    assert list(accuracy.interval(50, 100)) == pytest.approx([0.40383, 0.59617], abs=1e-5)


def test_ties_go_to_the_lower_id_and_nonsense_is_noticed() -> None:
    assert accuracy.top(np.array([0.1, 0.5, 0.5, 0.2], np.float32), 3) == [1, 2, 3]
    with pytest.raises(CheckError, match="not finite"):
        accuracy.top(np.array([np.nan], np.float32), 1)


def test_without_a_c_build_it_says_so_and_uses_numpy(tmp_path: Path) -> None:
    """A copy of the package without a build folder beside it."""
    source = Path(registry.__file__).parent
    (tmp_path / "klaus_runtime").symlink_to(source)
    code = (
        "import sys, pathlib, klaus_runtime.native as native\n"
        "native.HOST_BUILD = pathlib.Path('nowhere')\n"
        "native.find_library.__defaults__ = (native.HOST_BUILD,)\n"
        "from klaus_runtime.cli import main\n"
        "sys.exit(main())"
    )
    arguments = ["classify", str(PICTURE), "--model", str(TINY_MODEL), "--json"]
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "no C build in nowhere" in done.stderr
    assert json.loads(done.stdout)["engine"] == "fast"


BAD = [
    (("classify", "absent.jpg", "--model", TINY_MODEL), 2, "absent.jpg"),
    (("classify", TINY_MODEL, "--model", TINY_MODEL), 2, "model-fp16.sqlite3"),
    (("classify", PICTURE, "--model", TINY_MODEL, "--crop", "none", "--engine", "fast"), 2, "crop"),
    (("info", "absent\x1b]0;evil\x07\u202e.klaus"), 2, "no model has this name"),
    (("info", PICTURE), 2, "is none of: ccv or Klaus sqlite3"),
    (("verify", "."), 2, "is a folder"),
    (("quantize", TINY_MODEL, "--scheme", "q99", "-o", "x"), 2, "'q99' is unknown: there are klaus-8"),
    (("pack", TINY_MODEL, "-o", "/proc/no/x.klaus"), 2, "cannot write here"),
    (("verify", TINY_MODEL, "--layer", "8=absent.png"), 2, "which has no codebook"),
    (("verify", TINY_MODEL, "--layer", "eight"), 2, "is not N=FILE"),
    (("eval", "lite0", "--images", "absent"), 2, "absent"),
    (("quantize", TINY_MODEL, "--scheme", "q8", "-o", "x", "--compat", "klaus-2014"), 2, "own loader cannot read it"),
    (("frobnicate",), 2, "invalid choice"),
    ((), 2, "required"),
]


@pytest.mark.parametrize(("arguments", "code", "message"), BAD)
def test_bad_input_gives_one_error_and_its_exit_code(arguments: tuple[object, ...], code: int, message: str) -> None:
    done = _klaus(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not set(done.stderr) & set("\x1b\x07\u202e")
    if not done.stderr.startswith("usage"):
        assert [line.startswith("klaus: ") for line in done.stderr.splitlines() if "no C build" not in line] == [True]


def test_missing_weights_are_a_matter_of_set_up(tmp_path: Path) -> None:
    done = _klaus("info", "lite0", env={"KLAUS_CACHE": str(tmp_path), "PIP_NO_INDEX": "1"})
    assert done.returncode == 3
    assert "could not be fetched" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_closed_pipe_is_no_error() -> None:
    command = f"{sys.executable} -m klaus_runtime.cli info {TINY_MODEL} | true"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert not done.stderr


@pytest.mark.parametrize("json_too", [(), ("--json",)])
def test_an_answer_that_nobody_can_store_is_told_as_such(json_too: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "klaus_runtime.cli", "info", str(TINY_MODEL), *json_too]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == 2
    wanted = "klaus: cannot write the answer to stdout: No space left on device; make room, or send it elsewhere\n"
    assert done.stderr == wanted
    closed = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", *command], stderr=subprocess.PIPE, text=True, timeout=60, check=False
    )
    assert closed.returncode == 2
    assert closed.stderr.startswith("klaus: stdout is closed")
    assert len(closed.stderr.splitlines()) == 1


def test_a_bad_photo_costs_its_own_answer_only(labelled: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.gif"
    bad.write_bytes(b"GIF89a nothing")
    arguments = ("classify", PICTURE, bad, "absent.jpg", PICTURE, "--model", labelled, "--engine", "fast")
    done = _klaus(*arguments)
    assert done.returncode == 2
    assert done.stdout.count("thing ") >= 8
    first, second = done.stderr.splitlines()
    assert first.startswith(f"klaus: photo {bad} is none of JPEG")
    assert second.startswith("klaus: cannot read photo absent.jpg")
    done = _klaus(*arguments, "--json")
    assert done.returncode == 2
    answer = json.loads(done.stdout)
    assert [row["photo"] for row in answer["photos"]] == [str(PICTURE), str(PICTURE)]
    assert [row["photo"] for row in answer["failed"]] == [str(bad), "absent.jpg"]


def test_threads_are_honoured_or_refused() -> None:
    given = ("classify", PICTURE, "--model", TINY_MODEL, "--threads", 2)
    for engine in ("numpy", "fast"):
        done = _klaus(*given, "--engine", engine)
        assert (done.returncode, done.stdout) == (2, "")
        assert f"--threads is for the C engine, not for --engine {engine}" in done.stderr
    assert _json(*given, "--engine", "ref")["engine"] in ("ref", "numpy")


def test_every_argument_says_what_it_is() -> None:
    """Positional ones too: argparse shows a bare name where a help text is missing."""
    commands = parser()._subparsers
    assert commands is not None
    (group,) = [action for action in commands._group_actions if action.choices]
    assert group.choices is not None
    for name, sub in dict(group.choices).items():
        for action in sub._actions:
            assert action.help, f"klaus {name}: {action.dest} has no help"


def test_text_is_made_harmless() -> None:
    assert clean("a\x1b[31m\r\n\t\u202eb é ✓") == "a\ufffd[31m\ufffd\ufffd\ufffd\ufffdb é ✓"


def test_models_are_listed() -> None:
    answer = _json("models")
    assert {row["name"] for row in answer["models"]} >= {"lite0", "klaus-mobile"}
    assert "klaus-mixed" in answer["schemes"]
    assert "Apache-2.0" in _klaus("models").stdout


def test_export_writes_what_ccv_reads(tmp_path: Path) -> None:
    path = tmp_path / "plain.sqlite3"
    done = _klaus("export", TINY_QUANT / "a-depth8-index" / "model.sqlite3", "--half", "-o", path)
    assert done.returncode == 0, done.stderr
    assert_same(ccv.read(path).layers, ccv.read(TINY_QUANT / "equivalent-fp16.sqlite3").layers)
    refused = _klaus("export", "lite0", "-o", tmp_path / "lite0.sqlite3")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert not (tmp_path / "lite0.sqlite3").exists()
