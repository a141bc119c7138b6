"""What computes a model on this computer: the numpy oracle, the BLAS-backed engine, the C library. One protocol."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Protocol

from klaus_runtime.model import F32, U8

Crop = Literal["center", "none"]


class Engine(Protocol):
    """One model made ready to run."""

    def activations(self, tensor: F32) -> Iterator[F32]:
        """Yields every layer's output (rows, cols, channels) for one input tensor (rows, cols, channels)."""

    def logits(self, tensors: F32) -> F32:
        """The last layer's output (n, outputs) for tensors (n, rows, cols, channels); no softmax is added."""

    def probabilities(self, picture: U8, *, patches: Literal[1, 10], crop: Crop = "center") -> F32:
        """Class probabilities (outputs,) of a picture (rows, cols, 3) RGB: formation, patches, softmax, average."""
