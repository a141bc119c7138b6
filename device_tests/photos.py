"""Photos for the suites: the user's folder WNID/*, or seven freely licensed photos out of two PyPI wheels.

The wheels are fetched like lite0's, by version and SHA-256, and only read, never installed: always the same files,
whatever computer this is. Authors and licences are those that the packages name (scikit-image: docstrings of
skimage/data/_fetchers.py; scikit-learn: sklearn/datasets/images/README.txt).
"""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path

from device_tests.errors import InventoryError, SetupError
from klaus_runtime import files
from klaus_runtime.errors import InputError, KlausError
from klaus_runtime.images import find_photos
from klaus_runtime.registry import Wheel, cache_folder, fetch

MAX_PHOTOS = 100_000
_PLATFORM = ("--platform", "manylinux_2_28_x86_64", "--python-version", "3.11", "--implementation", "cp")

SCIKIT_IMAGE = Wheel(
    "scikit-image==0.26.0",
    "scikit_image-0.26.0-cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl",
    "74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af",
    13_711_217,
    (*_PLATFORM, "--abi", "cp311"),
)
SCIKIT_LEARN = Wheel(
    "scikit-learn==1.9.1",
    "scikit_learn-1.9.1-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
    "52a0703bbc07ad27f560fa63fa68e4c54dd735bfbbf65b4dd3c225dc7547b6df",
    9_315_422,
    (*_PLATFORM, "--abi", "cp311"),
)


@dataclass(frozen=True, slots=True)
class DemoPhoto:
    """A photo inside a wheel."""

    name: str
    wnid: str  # the class that the float lite0 names first
    author: str
    licence: str
    wheel: Wheel
    member: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo on this computer. wnid: the right class, or for demo photos the expected one."""

    name: str
    wnid: str
    path: Path
    author: str = ""
    licence: str = ""
    source: str = ""


def _image(name: str, file: str, wnid: str, author: str, licence: str, sha256: str) -> DemoPhoto:
    return DemoPhoto(name, wnid, author, licence, SCIKIT_IMAGE, f"skimage/data/{file}", sha256)


def _learn(name: str, wnid: str, author: str, sha256: str) -> DemoPhoto:
    return DemoPhoto(name, wnid, author, "CC-BY-2.0", SCIKIT_LEARN, f"sklearn/datasets/images/{name}.jpg", sha256)


DEMO = (
    _image(
        "chelsea",
        "chelsea.png",
        "n02123159",
        "Stefan van der Walt",
        "CC0",
        "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb",
    ),
    _image(
        "coffee",
        "coffee.png",
        "n07920052",
        "Rachel Michetti, courtesy of Pikolo Espresso Bar",
        "CC0",
        "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
    ),
    _image(
        "camera",
        "camera.png",
        "n04485082",
        "Lav Varshney",
        "CC0",
        "b0793d2adda0fa6ae899c03989482bff9a42d3d5690fc7e3648f2795d730c23a",
    ),
    _image(
        "motorcycle_left",
        "motorcycle_left.png",
        "n03785016",
        "Middlebury 2014 stereo benchmark (D. Scharstein and others)",
        "no licence of its own is named in the package (BSD-3-Clause as a whole)",
        "db18e9c4157617403c3537a6ba355dfeafe9a7eabb6b9b94cb33f6525dd49179",
    ),
    _image(
        "rocket",
        "rocket.jpg",
        "n03773504",
        "SpaceX",
        "public domain",
        "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c",
    ),
    _learn(
        "flower",
        "n11939491",
        "danielbuechele as the README names him (its link: flickr.com/photos/vultilion/6056698931)",
        "a77f6ec41e353afdf8bdff2ea981b2955535d8d83294f8cfa49cf4e423dd5638",
    ),
    _learn(
        "china",
        "n03877845",
        "danielbuechele (flickr.com/photos/danielbuechele/6061409035)",
        "8378025ad2519d649d02e32bd98990db4ab572357d9f09841c2fbfbb4fefad29",
    ),
)


def demo_photos() -> list[Photo]:
    """The seven, from the cache; fetched where they are not there. Raises SetupError where that fails."""
    folder = cache_folder().parent / "photos"
    return [_demo_photo(photo, folder) for photo in DEMO]


def _demo_photo(photo: DemoPhoto, folder: Path) -> Photo:
    path = folder / Path(photo.member).name
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != photo.sha256:
        _extract(photo, path)
    return Photo(photo.name, photo.wnid, path, photo.author, photo.licence, photo.wheel.requirement.replace("==", " "))


def _extract(photo: DemoPhoto, path: Path) -> None:
    """One member of the wheel, checked and put in place whole."""
    wheel = fetch(photo.wheel)
    try:
        with zipfile.ZipFile(wheel) as archive:
            data = archive.read(photo.member)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise SetupError(f"{wheel}: {photo.member} cannot be read ({error}); remove the file and try again") from error
    if hashlib.sha256(data).hexdigest() != photo.sha256:
        raise SetupError(f"{wheel}: {photo.member} is not the photo that is pinned; remove the file and try again")
    try:
        files.write_bytes(path, data)
    except InputError as error:
        raise SetupError(f"{error}; the photos are kept there: make room or set KLAUS_CACHE") from error


def folder_photos(folder: Path) -> list[Photo]:
    """The photos of a folder WNID/*.{jpg,jpeg,png}. Raises InventoryError where there are none."""
    try:
        found = find_photos(folder)
    except KlausError as error:
        raise InventoryError(str(error)) from error
    if not found:
        raise InventoryError(f"{folder}: no photos WNID/*.jpg, .jpeg or .png; give another folder with --photos")
    if len(found) > MAX_PHOTOS:
        raise InventoryError(f"{folder}: {len(found)} photos, at most {MAX_PHOTOS} are taken; give a smaller folder")
    return [Photo(f"{wnid}/{path.name}", wnid, path) for wnid, path in found]
