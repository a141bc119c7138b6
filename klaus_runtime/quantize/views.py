"""Calibration photos as tensors: what a quantizer may look at of a photo folder, mirrored and cropped in more ways.

Unlabelled photos are all that calibration needs. A mirrored photo, or another crop of it, is one more sample of what a
layer reads: the inputs' statistics of the last layers, which see few positions a photo, gain most.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt

from klaus_runtime import files, images
from klaus_runtime.errors import InputError
from klaus_runtime.model import F32, U8, CropFormation, Model

_WHOLE = 2  # views that show the photo as it is, straight and mirrored
_MAX_PHOTOS = 4096

# Of parts: as in training of the networks themselves (Szegedy et al., 2015, arXiv:1409.4842), only milder.
_LEAST_AREA = 0.25
_ASPECT = 4 / 3
_TRIES = 10
_COLOURED = 0.5  # of the views have their contrast, brightness and colours changed, by at most:
_CONTRAST, _BRIGHTNESS, _COLOUR = 0.2, 0.1, 0.1
_PASTED, _BLENDED = 0.25, 0.25  # of the views hold a part of another one, or are mixed with it


def find(folder: Path) -> tuple[Path, ...]:
    """Every photo in a folder and the folders below it, sorted by path.

    Raises InputError for a folder that cannot be read, holds none, or more than anybody calibrates with.
    """
    try:
        found = sorted(
            path for path in folder.rglob("*") if path.suffix.lower() in images.PHOTO_ENDINGS and path.is_file()
        )
    except OSError as error:
        raise InputError(f"cannot read the calibration folder {folder}: {files.reason(error)}: check it") from error
    if not found:
        raise InputError(f"{folder} holds no calibration photos: give a folder with .jpg, .jpeg or .png files")
    if len(found) > _MAX_PHOTOS:
        raise InputError(f"{folder} holds {len(found):,} photos, calibration takes {_MAX_PHOTOS:,} at most: give fewer")
    return tuple(found)


def form(model: Model, photos: tuple[Path, ...], views: int, *, seed: int) -> F32:
    """Tensors (views * photos, rows, cols, channels): all photos as they are, then all mirrored, then parts of them.

    Parts are cropped, mirrored and recoloured as `fresh` does it. Networks that form pictures as ccv does get the
    middle patch of the first two.
    """
    rng = np.random.default_rng(seed)
    result = np.empty((views, len(photos), *model.input_shape), np.float32)
    for number, path in enumerate(photos):
        picture = images.read_picture(path)
        for view in range(views):
            if view < _WHOLE:
                tensor = images.form(model, picture)
                result[view, number] = tensor[:, ::-1] if view else tensor
            else:
                result[view, number] = _part_view(model, picture, rng)
    return result.reshape(-1, *model.input_shape)


def fresh(model: Model, photos: tuple[Path, ...], count: int, rng: np.random.Generator) -> F32:
    """Tensors (count, rows, cols, channels) that look like no others: photos cropped, mirrored, recoloured, mixed.

    What is tuned on them cannot learn them by heart. Half of them are parts of one photo; the others have a rectangle
    of another one pasted in (CutMix: Yun et al., 2019, arXiv:1905.04899) or are blends of two (mixup: Zhang et al.,
    2017, arXiv:1710.09412): no photos, but the float network's answer to them is as good a lesson.
    """
    drawn = rng.integers(0, len(photos), count)
    tensors = np.stack([_part_view(model, images.read_picture(photos[number]), rng) for number in drawn])
    result = tensors.copy()
    rows, cols, _ = model.input_shape
    for number, other in enumerate(rng.permutation(count)):
        kind = rng.random()
        if kind < _PASTED:
            side = math.sqrt(rng.uniform(0.15, 0.6))
            height, width = max(1, int(side * rows)), max(1, int(side * cols))
            top, left = rng.integers(0, rows - height + 1), rng.integers(0, cols - width + 1)
            part = np.s_[top : top + height, left : left + width]
            result[number][part] = tensors[other][part]
        elif kind < _PASTED + _BLENDED:
            share = np.float32(rng.uniform(0.2, 0.8))
            result[number] = share * tensors[number] + (1 - share) * tensors[other]
    return result


def _part_view(model: Model, picture: U8, rng: np.random.Generator) -> F32:
    """A part of a picture as the network reads it, in half of the cases mirrored."""
    part = _recoloured(_part(picture, rng), rng)
    if isinstance(model.formation, CropFormation):
        tensor = images.form(model, part, "none")
    else:
        whole = images.feed(model, part)
        rows, cols, _ = model.input_shape
        top, left = rng.integers(0, whole.shape[0] - rows + 1), rng.integers(0, whole.shape[1] - cols + 1)
        tensor = whole[top : top + rows, left : left + cols]
    return tensor[:, ::-1] if rng.random() < 0.5 else tensor


def _part(picture: U8, rng: np.random.Generator) -> U8:
    rows, cols, _ = picture.shape
    for _ in range(_TRIES):
        area = rows * cols * rng.uniform(_LEAST_AREA, 1)
        aspect = math.exp(rng.uniform(-1, 1) * math.log(_ASPECT))
        height, width = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < height <= rows and 0 < width <= cols:
            break
    else:
        height = width = min(rows, cols)
    top, left = rng.integers(0, rows - height + 1), rng.integers(0, cols - width + 1)
    return picture[top : top + height, left : left + width]


def _recoloured(picture: U8, rng: np.random.Generator) -> U8:
    if rng.random() >= _COLOURED:
        return picture
    values = picture.astype(np.float32)
    middle = values.mean()
    values = (values - middle) * np.float32(rng.uniform(1 - _CONTRAST, 1 + _CONTRAST)) + middle
    values += np.float32(255 * rng.uniform(-_BRIGHTNESS, _BRIGHTNESS))
    colours: npt.NDArray[np.float64] = rng.uniform(1 - _COLOUR, 1 + _COLOUR, 3)
    result: U8 = np.clip(np.rint(values * colours.astype(np.float32)), 0, 255).astype(np.uint8)
    return result
