"""Published figures that ours stand beside: in the quantization table, its chart and every report."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reference:
    """A published figure."""

    name: str
    size: str
    memory: str
    top1_miss: float | None  # percent
    top5_miss: float | None
    note: str = ""


# As published by their authors; Klaus' from its README (2014), misses on ImageNet's 50,000 validation photos.
REFERENCES = (
    Reference("Klaus, 8 bits", "", "", 41.15, 18.18),
    Reference("Klaus, 4 bits", "", "", 41.38, 18.28),
    Reference("Klaus, 2 bits", "", "", 45.22, 20.62),
    Reference("Klaus, as shipped (4 and 8 bits)", "19.3 MiB", "about 100 MiB", None, 18.20, "3 s on an iPhone 5"),
    Reference("ccv", "110 MiB", "220 MiB", None, 16.17),
    Reference("Caffe", "about 200 MiB", "", None, None),
    Reference("OverFeat", "about 1 GiB", "", None, None),
    Reference("Deep Compression, AlexNet", "6.9 MB", "", None, None, "no loss against its float network"),
)
KLAUS_SHIPPED_BYTES = round(19.3 * 2**20)
