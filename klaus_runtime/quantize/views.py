"""Calibration photos as tensors: what a quantizer may look at of a photo folder, mirrored and cropped in more ways.

Unlabelled photos are all that calibration needs. A mirrored photo, or another crop of it, is one more sample of what a
layer reads: the inputs' statistics of the last layers, which see few positions a photo, gain most.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from klaus_runtime import files, images
from klaus_runtime.errors import InputError
from klaus_runtime.model import F32, U8, CropFormation, Model

_LEAST_CROP = 0.7  # of the shorter side, in views of an ordinary crop formation
_MAX_PHOTOS = 4096


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
    """Tensors (views * photos, rows, cols, channels): all photos as they are, then all mirrored, then other crops.

    Every second view is mirrored. Networks that form pictures as ccv does get the middle patch, then the corners.
    """
    rng = np.random.default_rng(seed)
    result = np.empty((views, len(photos), *model.input_shape), np.float32)
    for number, path in enumerate(photos):
        picture = images.read_picture(path)
        for view in range(views):
            tensor = _view(model, picture, view, rng)
            result[view, number] = tensor[:, ::-1] if view % 2 else tensor
    return result.reshape(-1, *model.input_shape)


def _view(model: Model, picture: U8, view: int, rng: np.random.Generator) -> F32:
    if view < 2:
        return images.form(model, picture)
    if isinstance(model.formation, CropFormation):
        rows, cols, _ = picture.shape
        side = max(1, round(min(rows, cols) * rng.uniform(_LEAST_CROP, 1)))
        top, left = rng.integers(0, rows - side + 1), rng.integers(0, cols - side + 1)
        return images.form(model, picture[top : top + side, left : left + side], "none")
    whole = images.feed(model, picture)
    rows, cols, _ = model.input_shape
    top, left = rng.integers(0, whole.shape[0] - rows + 1), rng.integers(0, whole.shape[1] - cols + 1)
    return whole[top : top + rows, left : left + cols]
