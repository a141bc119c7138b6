"""Pictures: reading them safely, and forming the tensor that a network's first layer reads."""

from __future__ import annotations

import re
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from klaus_runtime import files, resample, shapes
from klaus_runtime.engine import Crop
from klaus_runtime.errors import InputError
from klaus_runtime.model import F32, U8, CcvFormation, CropFormation, Model

MAX_FILE_BYTES = 1 << 28
MAX_PIXELS = 1 << 26
MAX_ASPECT = 16  # ccv keeps the aspect, so a thin picture would become a huge one
PHOTO_ENDINGS = (".jpg", ".jpeg", ".png")

_FORMATS = ("JPEG", "PNG", "BMP", "PPM", "WEBP")
_WNID = re.compile(r"n\d{8}")
# What Pillow's decoders raise for malformed files.
_DECODER_ERRORS = (
    OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, AttributeError, OverflowError,
    struct.error, zlib.error, Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip


def read_picture(path: str | Path) -> U8:
    """Decodes a photo to RGB (rows, cols, 3), 0..255.

    Gray is replicated, alpha dropped (not composited), 16-bit samples cut to their high byte, EXIF orientation
    ignored: as ccv does. Raises InputError for what is absent, truncated, of another kind or over MAX_PIXELS.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
    except OSError as error:
        raise InputError(f"cannot read photo {path}: {files.reason(error)}; check the path") from error
    if not path.is_file():
        raise InputError(f"photo {path} is not a file")
    if not 0 < size <= MAX_FILE_BYTES:
        raise InputError(f"photo {path} has {size} bytes; 1 to {MAX_FILE_BYTES} are possible")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.simplefilter("ignore", UserWarning)
            with Image.open(path, formats=_FORMATS) as image:
                _check_size(image, path)
                return _rgb(image)
    except MemoryError as error:
        raise InputError(f"photo {path} needs more memory than there is; give a smaller one") from error
    except UnidentifiedImageError as error:
        raise InputError(f"photo {path} is none of {', '.join(_FORMATS)}; convert it or give another") from error
    except _DECODER_ERRORS as error:
        why = ascii(str(error))[1:-1][:200]
        raise InputError(f"photo {path} is damaged or not a picture ({why}); give an intact one") from error


def form(model: Model, picture: U8, crop: Crop = "center") -> F32:
    """The tensor (rows, cols, channels) that one patch of a picture (rows, cols, 3) becomes.

    ccv's formation: the middle of what `feed` gives (offsets rounded down); it has no form without a crop.
    Crop formation: the central square is cut out and resized (Pillow's bicubic, 8 bits); with crop "none" the whole
    picture is resized to the input, its aspect not kept, so that a picture of the input's size stays as it is.
    """
    rows, cols, _ = model.input_shape
    if isinstance(model.formation, CcvFormation):
        if crop != "center":
            raise InputError(f"model {model.name!r} always crops: without a crop its pictures cannot be formed")
        return _middle(feed(model, picture), rows, cols).copy()
    if not isinstance(model.formation, CropFormation):
        raise InputError(f"model {model.name!r} takes tensors, not pictures: it does not say how pictures are prepared")
    _check_picture(picture)
    if crop == "center":
        picture = _central_square(picture, rows, model.formation.padding)
    if picture.shape[:2] != (rows, cols):
        # Columns, then rows, as the device program does: a single resize may take some shapes' rows first.
        wide = Image.fromarray(picture).resize((cols, picture.shape[0]), Image.Resampling.BICUBIC)
        picture = np.asarray(wide.resize((cols, rows), Image.Resampling.BICUBIC))
    tensor = picture.astype(np.float32)
    if model.formation.order == "bgr":
        tensor = tensor[:, :, ::-1]
    mean, scale = (np.array(values, np.float32) for values in (model.formation.mean, model.formation.scale))
    return np.ascontiguousarray((tensor - mean) * scale)


def feed(model: Model, picture: U8) -> F32:
    """What a ccv network reads of a whole picture: formed, cropped to whole strides, the mean subtracted."""
    if not isinstance(model.formation, CcvFormation):
        raise InputError(f"model {model.name!r} does not form pictures as ccv does")
    formation = model.formation
    formed = ccv_formed(picture, formation.rows, formation.cols)
    stride_rows, stride_cols = shapes.scan_strides(model)
    rows, cols = (
        size + (have - size) // stride * stride
        for size, have, stride in zip(model.input_shape, formed.shape, (stride_rows, stride_cols), strict=False)
    )
    cropped = _middle(formed, rows, cols)
    mean = formation.mean
    if mean.shape != cropped.shape:
        mean = resample.resample(mean, rows, cols, resample.ccv_cubic)
    return cropped - mean


def ccv_formed(picture: U8, rows: int, cols: int) -> F32:
    """ccv's input formation: the picture brought to at least rows x cols, aspect kept for square targets, no crop.

    Both sides larger: area rule; one side smaller: cubic rule, results may leave 0..255; else only float32.
    """
    _check_picture(picture)
    old_rows, old_cols, _ = picture.shape
    new_rows, new_cols = old_rows, old_cols
    shrinks, grows = old_rows > rows and old_cols > cols, old_rows < rows or old_cols < cols
    if shrinks or grows:
        # In float32 as ccv does it; for targets that are no squares this does not keep the aspect, there as here.
        new_rows = max(rows, int(float(np.float32(old_rows * rows) / np.float32(old_cols)) + 0.5))
        new_cols = max(cols, int(float(np.float32(old_cols * cols) / np.float32(old_rows)) + 0.5))
    if new_rows * new_cols > MAX_ASPECT * rows * cols:
        raise InputError(
            f"a picture of {old_rows} x {old_cols} would become {new_rows} x {new_cols}: too thin, crop it first"
        )
    if shrinks and (new_rows > old_rows or new_cols > old_cols):
        raise InputError(
            f"a picture of {old_rows} x {old_cols} cannot be shrunk to {new_rows} x {new_cols}; crop it first"
        )
    if not shrinks and not grows:
        return picture.astype(np.float32)
    return resample.resample(picture, new_rows, new_cols, resample.ccv_area if shrinks else resample.ccv_cubic)


def cut_patches(activation: F32, rows: int, cols: int) -> F32:
    """ccv's five patches (5, rows, cols, channels) of an activation: corners in reading order, the middle third."""
    bottom, right = activation.shape[0] - rows, activation.shape[1] - cols
    corners = ((0, 0), (0, right), (bottom // 2, right // 2), (bottom, 0), (bottom, right))
    return np.stack([activation[top : top + rows, left : left + cols] for top, left in corners])


def find_photos(folder: str | Path) -> list[tuple[str, Path]]:
    """The photos of a folder WNID/*.{jpg,jpeg,png} (any case) with their class ids, sorted by class, then name."""
    folder = Path(folder)
    try:
        classes = sorted(entry for entry in folder.iterdir() if _WNID.fullmatch(entry.name) and entry.is_dir())
        found = [
            (wnid.name, photo)
            for wnid in classes
            for photo in sorted(wnid.iterdir())
            if photo.suffix.lower() in PHOTO_ENDINGS and photo.is_file()
        ]
    except OSError as error:
        raise InputError(f"cannot read the photo folder {folder}: {files.reason(error)}; check the path") from error
    if not found:
        raise InputError(
            f"{folder} holds no photos: it needs folders named as n01440764, with .jpg, .jpeg or .png in them"
        )
    return found


def _central_square(picture: U8, size: int, padding: int) -> U8:
    rows, cols, _ = picture.shape
    side = max(1, min(rows, cols) * size // (size + padding))
    # (n + 1) // 2: the odd pixel goes to the top and left, as the source of these networks has it.
    top, left = (rows - side + 1) // 2, (cols - side + 1) // 2
    return picture[top : top + side, left : left + side]


def _middle(tensor: F32, rows: int, cols: int) -> F32:
    top, left = (tensor.shape[0] - rows) // 2, (tensor.shape[1] - cols) // 2
    return tensor[top : top + rows, left : left + cols]


def _check_picture(picture: npt.NDArray[np.uint8]) -> None:
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or not picture.size:
        raise InputError(f"a picture is uint8 (rows, cols, 3); got {picture.dtype}{picture.shape}")
    if picture.shape[0] * picture.shape[1] > MAX_PIXELS or max(picture.shape) > shapes.MAX_DIMENSION:
        raise InputError(f"a picture of {picture.shape[0]} x {picture.shape[1]} exceeds {MAX_PIXELS} pixels")


def _check_size(image: Image.Image, path: Path) -> None:
    cols, rows = image.size
    if rows * cols > MAX_PIXELS or max(rows, cols) > shapes.MAX_DIMENSION:
        raise InputError(
            f"photo {path} has {rows} x {cols} pixels; {MAX_PIXELS}, and {shapes.MAX_DIMENSION} a side, are the limit"
        )


def _rgb(image: Image.Image) -> U8:
    if image.mode.startswith("I"):  # 16-bit gray
        gray = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(gray[:, :, None], 3, axis=2)
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")
    return np.array(image.convert("RGB"), dtype=np.uint8)
