"""The `klaus` command: classify, look at, quantize, pack and measure models on this computer.

One file a family of commands; words.py is how it speaks, options.py what commands share, main.py the way in.
"""

from klaus_runtime.cli.main import main
from klaus_runtime.cli.words import clean

__all__ = ["clean", "main"]
