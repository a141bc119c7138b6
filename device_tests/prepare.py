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
from klaus_runtime import shipped
from klaus_runtime.calibrate import calibrate
from klaus_runtime.errors import InputError
from klaus_runtime.model import Model
from klaus_runtime.pack import carried, pack
from klaus_runtime.package import read_package, write_package
from klaus_runtime.quantize import SCHEMES, quantize
from klaus_runtime.registry import MODELS, load_model

ROOT = Path(__file__).resolve().parent.parent
AS_IT_IS = "float"  # no quantization: weights stay as the source has them
DEFAULT_SCHEMES = {"lite0": "q4", "klaus-mobile": "klaus-mixed"}  # a model file stays as it is
Say = Callable[[str], None]


def scheme_for(source: str, scheme: str) -> str:
    """The scheme asked for, or the model's default.

    Raises InventoryError for one that does not exist, or that chooses on photos and has no package here.
    """
    if scheme and scheme != AS_IT_IS and scheme not in SCHEMES:
        raise InventoryError(f"scheme {scheme!r} is unknown: there are {', '.join([AS_IT_IS, *SCHEMES])}")
    if scheme and scheme != AS_IT_IS and shipped.needs_calibration(source, scheme):
        raise InventoryError(
            f"scheme {scheme} is chosen on photos, and no package of {source} by it comes with the project: make one "
            f"by `klaus quantize {source} --scheme {scheme} --calibration DIR -o FOLDER` and give its sqlite3 file "
            "as the model"
        )
    return scheme or DEFAULT_SCHEMES.get(source, AS_IT_IS)


def quantized(source: str, scheme: str, say: Say) -> Model:
    """The model of a name or file, quantized unless the scheme is AS_IT_IS. Raises KlausError kinds."""
    if (made := shipped.package_of(source, scheme)) is not None:
        return read_package(made)
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
    folder.mkdir()
    files = _shipped(source, scheme, folder / "package")
    as_it_is = scheme == AS_IT_IS
    if not files:
        model = quantized(source, scheme, say)
        if calibrated and not model.ranges:
            say(f"{source}: measuring activation ranges on the demonstration photos")
            model = calibrate(model, [photo.path for photo in demo_photos()])
            as_it_is = False
        files = write_package(model, folder / "package").files
    say(f"{source}: packing")
    model = read_package(files[0])
    packed = folder / f"{model.name}-{scheme}.klaus"
    if as_it_is and Path(source).is_file() and carried(Path(source)).sections:
        shutil.copyfile(source, packed)  # the same model, whose weights need not be packed on the device
    else:
        pack(model, packed)
    facts = {"packed": packed.name, "package_bytes": sum(path.stat().st_size for path in files)}
    (folder / "prepared.json").write_text(json.dumps(facts) + "\n", "utf-8")


def _shipped(source: str, scheme: str, folder: Path) -> tuple[Path, ...]:
    """The files of the package that comes with the project, copied into a new folder; () where none does."""
    ready = shipped.package_of(source, scheme)
    if ready is None:
        return ()
    folder.mkdir()
    return tuple(Path(shutil.copyfile(path, folder / path.name)) for path in shipped.files_of(ready))


def _key(source: str, scheme: str, calibrated: bool) -> str:
    """Digest of what the result depends on: the code of klaus_runtime, the format, the scheme, the source's bytes."""
    photos = [photo.sha256 for photo in DEMO] if calibrated else []
    digest = hashlib.sha256("\0".join((source, scheme, *photos, "")).encode())
    for path in _inputs(source, scheme):
        with path.open("rb") as stream:
            digest.update(f"{path.name}\0{hashlib.file_digest(stream, 'sha256').hexdigest()}\0".encode())
    return digest.hexdigest()[:20]


def _inputs(source: str, scheme: str) -> Iterator[Path]:
    """Files that the result depends on. A named model's weights are pinned by a hash in the code."""
    code = ROOT / "klaus_runtime"
    yield from sorted(path for path in code.rglob("*") if path.suffix in (".py", ".tsv", ".txt"))
    yield ROOT / "kernels" / "include" / "klaus" / "format.h"
    if (ready := shipped.package_of(source, scheme)) is not None:
        yield from shipped.files_of(ready)
    path = Path(source)
    if source not in MODELS and path.is_file():
        yield path
        yield from sorted(path.parent.glob("*-layer*.png"))
