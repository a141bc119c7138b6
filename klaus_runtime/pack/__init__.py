"""Model <-> packed model (NAME.klaus), and the batch of pictures that `klaus-run classify` reads.

Every struct comes from kernels/include/klaus/format.h through cffi (structs.py); the writer and the reader only say
which field a Model's value goes to.
"""

from klaus_runtime.pack.batch import write_batch
from klaus_runtime.pack.layouts import Carried, Layout, add_layouts, carried
from klaus_runtime.pack.reader import read_packed
from klaus_runtime.pack.writer import pack

__all__ = ["Carried", "Layout", "add_layouts", "carried", "pack", "read_packed", "write_batch"]
