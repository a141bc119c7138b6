"""From a model's name and a scheme to what is shipped and deployed: the package and the packed model.

The road is always the same: load, quantize, write the package, read the package back, pack that. So the bytes whose
size is reported are the bytes that run. Results are kept in a cache under a key made of everything they come from.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from device_tests.errors import InventoryError
from device_tests.photos import DEMO, demo_photos
from device_tests.plan import ModelPlan, plan_model
from klaus_runtime.calibrate import calibrate
from klaus_runtime.errors import InputError
from klaus_runtime.model import Model
from klaus_runtime.pack import pack
from klaus_runtime.package import read_package, write_package
from klaus_runtime.quantize import SCHEMES, quantize
from klaus_runtime.registry import MODELS, load_model

ROOT = Path(__file__).resolve().parent.parent
AS_IT_IS = "float"  # no quantization: weights stay as the source has them
DEFAULT_SCHEMES = {"lite0": "q8", "klaus-mobile": "klaus-mixed"}  # a model file stays as it is
Say = Callable[[str], None]


def scheme_for(source: str, scheme: str) -> str:
    """The scheme asked for, or the model's default; raises InventoryError for one that does not exist."""
    if scheme and scheme != AS_IT_IS and scheme not in SCHEMES:
        raise InventoryError(f"scheme {scheme!r} is unknown: there are {', '.join([AS_IT_IS, *SCHEMES])}")
    return scheme or DEFAULT_SCHEMES.get(source, AS_IT_IS)


def quantized(source: str, scheme: str, say: Say) -> Model:
    """The model of a name or file, quantized unless the scheme is AS_IT_IS. Raises KlausError kinds."""
    model = load_model(source)
    if scheme == AS_IT_IS:
        return model
    say(f"{source}: quantizing ({scheme})")
    return quantize(model, scheme)


def prepare(source: str, scheme: str, cache: Path, say: Say, *, calibrated: bool = False) -> ModelPlan:
    """Loads, quantizes, packages and packs a model, or finds all that in `cache`.

    scheme: a key of SCHEMES, AS_IT_IS, or "" for the model's default. calibrated: int8 is to run, so a model without
    activation ranges gets those that the demonstration photos give. Raises KlausError kinds for what is wrong with
    the model, SetupError where the photos cannot be had and InventoryError for an unknown scheme.
    """
    chosen = scheme_for(source, scheme)
    folder = cache / "prepared" / _key(source, chosen, calibrated)
    if folder.exists():
        try:
            return _prepared(folder)
        except (InputError, OSError, ValueError, LookupError, TypeError) as error:
            # Nobody's input, so nobody can mend it: what was cut short or damaged there is made once more.
            say(f"{source}: what {folder} holds is damaged ({error}); making it again")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="prepare-", dir=cache) as temporary:
        made = Path(temporary) / "made"
        _make(source, chosen, made, say, calibrated)
        folder.parent.mkdir(exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        made.replace(folder)
    return _prepared(folder)


def planned(source: str, scheme: str, cache: Path, *, calibrated: bool = False) -> Path:
    """Where the packed model is or will be, for --dry-run: nothing is made, and no content is checked."""
    chosen = scheme_for(source, scheme)
    folder = cache / "prepared" / _key(source, chosen, calibrated)
    found = next(folder.glob("*.klaus"), None)
    return found or folder / f"{Path(source).stem}-{chosen}.klaus"


def _prepared(folder: Path) -> ModelPlan:
    """What _make left in a folder; raises InputError and others where that is not whole."""
    told = json.loads((folder / "prepared.json").read_text("utf-8"))
    return plan_model(folder / told["packed"], package_bytes=told["package_bytes"])


def _make(source: str, scheme: str, folder: Path, say: Say, calibrated: bool) -> None:
    model = quantized(source, scheme, say)
    if calibrated and not model.ranges:
        say(f"{source}: measuring activation ranges on the demonstration photos")
        model = calibrate(model, [photo.path for photo in demo_photos()])
    say(f"{source}: packing")
    folder.mkdir()
    package = write_package(model, folder / "package")
    packed = pack(read_package(package.files[0]), folder / f"{model.name}-{scheme}.klaus")
    facts = {"packed": packed.name, "package_bytes": package.total_bytes}
    (folder / "prepared.json").write_text(json.dumps(facts) + "\n", "utf-8")


def _key(source: str, scheme: str, calibrated: bool) -> str:
    """Digest of what the result depends on: the code of klaus_runtime, the format, the scheme, the source's bytes."""
    photos = [photo.sha256 for photo in DEMO] if calibrated else []
    digest = hashlib.sha256("\0".join((source, scheme, *photos, "")).encode())
    for path in _inputs(source):
        with path.open("rb") as stream:
            digest.update(f"{path.name}\0{hashlib.file_digest(stream, 'sha256').hexdigest()}\0".encode())
    return digest.hexdigest()[:20]


def _inputs(source: str) -> Iterator[Path]:
    """Files that the result depends on. A named model's weights are pinned by a hash in the code."""
    code = ROOT / "klaus_runtime"
    yield from sorted(path for path in code.rglob("*") if path.suffix in (".py", ".tsv", ".txt"))
    yield ROOT / "kernels" / "include" / "klaus" / "format.h"
    path = Path(source)
    if source not in MODELS and path.is_file():
        yield path
        yield from sorted(path.parent.glob("*-layer*.png"))
