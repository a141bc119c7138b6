"""The package: what is shipped. NAME.sqlite3 and, for each layer with a codebook, the index picture NAME-layer-N.png.

Where a network fits ccv's schema the file holds ccv's tables too, so that Klaus' own loader reads it. Tables of our own
(klaus_*) keep what that schema has no place for; docs/package-format.md describes them. Reading gives back exactly the
Model that was written.
"""

from klaus_runtime.package.reader import read_package
from klaus_runtime.package.tables import is_package, picture_path
from klaus_runtime.package.writer import Package, default_name, write_package

__all__ = ["Package", "default_name", "is_package", "picture_path", "read_package", "write_package"]
