"""Finished packages that come with the project, so that what took photos and minutes to choose is at hand without.

Each stands in a folder of its own under data/, with the licence of its weights and the command that makes it again.
"""

from __future__ import annotations

from pathlib import Path

from klaus_runtime.quantize import needs_photos

_DATA = Path(__file__).resolve().parent / "data"
_PACKAGES = {("lite0", "q4"): _DATA / "lite0-q4" / "lite0-q4.sqlite3"}  # by model's name and scheme


def package_of(model: str, scheme: str) -> Path | None:
    """The sqlite3 file of the package that comes with the project for a model's name and a scheme; None without."""
    return _PACKAGES.get((model, scheme))


def needs_calibration(model: str, scheme: str) -> bool:
    """Whether a scheme cannot be had of this model without photos."""
    return needs_photos(scheme) and package_of(model, scheme) is None


def files_of(path: Path) -> tuple[Path, ...]:
    """The files of a shipped package: sqlite3, then its pictures."""
    return (path, *sorted(path.parent.glob(f"{path.stem}-layer*.png")))
