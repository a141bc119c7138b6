"""Model <-> packed model (NAME.klaus), and the batch of pictures that `klaus-run classify` reads.

Every struct comes from kernels/include/klaus/format.h through cffi (structs.py); the writer and the reader only say
which field a Model's value goes to.
"""

from klaus_runtime.pack.batch import write_batch
from klaus_runtime.pack.layouts import Layout, add_layouts, has_layouts
from klaus_runtime.pack.reader import read_packed
from klaus_runtime.pack.writer import pack

__all__ = ["Layout", "add_layouts", "has_layouts", "pack", "read_packed", "write_batch"]
