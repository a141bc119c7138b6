"""The package: what is shipped. NAME.sqlite3 and index pictures beside it.

Version 1 is what Klaus' own loader reads: ccv's tables, and NAME-layer-N.png for each full connect with a codebook.
Version 2 is for all other networks with codebooks: the weights of all layers are one stream of bytes, shown as the
picture NAME-layers.png. Tables of our own (klaus_*) keep the rest; docs/package-format.md describes them. Reading gives
back exactly the Model that was written.
"""

from klaus_runtime.package.reader import read_package
from klaus_runtime.package.tables import is_package, picture_path
from klaus_runtime.package.writer import Compat, Package, default_name, why_not_klaus, write_package

__all__ = [
    "Compat",
    "Package",
    "default_name",
    "is_package",
    "picture_path",
    "read_package",
    "why_not_klaus",
    "write_package",
]
