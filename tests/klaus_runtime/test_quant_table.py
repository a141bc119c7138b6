"""Tables of size against accuracy: rows are what packages give, nothing is computed twice, pages say what was done."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from klaus_runtime import accuracy, chart, images, quant_table
from klaus_runtime.errors import InputError
from klaus_runtime.evaluate import FastEngine
from klaus_runtime.model import Label
from klaus_runtime.quantize import quantize
from klaus_runtime.readers import ccv

from .golden import TINY
from .zoo import everything


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, Path]]:
    """100 pictures of noise in the classes of a tiny net."""
    folder = tmp_path_factory.mktemp("photos")
    draw = np.random.default_rng(3)
    for number in range(100):
        at = folder / f"n{number % 10:08d}"
        at.mkdir(exist_ok=True)
        coarse = draw.integers(0, 256, (6, 6, 3), np.uint8)
        Image.fromarray(coarse).resize((60, 60)).save(at / f"{number}.png")
    return images.find_photos(folder)


@pytest.fixture
def order(photos: list[tuple[str, Path]], tmp_path: Path) -> quant_table.Order:
    model = ccv.read(TINY / "model-fp16.sqlite3")
    labels = tuple(Label(f"n{number:08d}", f"thing {number}") for number in range(10))
    return quant_table.Order(
        model=replace(model, name="tiny", labels=labels),
        schemes=("klaus-8", "klaus-2"),
        photos=photos,
        packages=tmp_path / "packages",
        journal=tmp_path / "journal",
        patches=10,
        crop="center",
        effort="fast",
    )


def test_a_network_that_comes_with_codebooks_is_measured_as_it_comes(order: quant_table.Order) -> None:
    source = quantize(order.model, "klaus-4")
    schemes = quant_table.default_schemes(source, calibration=True)
    assert schemes == (quant_table.AS_IT_COMES,)
    whole, own = quant_table.make(replace(order, model=source, schemes=schemes)).rows
    assert own.total_bytes < whole.total_bytes
    assert own.change is not None
    assert (own.change.divergence, own.change.agree, own.change.top1) == (0, 100, 0)
    with pytest.raises(InputError, match="is unknown"):
        quant_table.make(replace(order, schemes=schemes))


def test_rows_are_what_packages_give(order: quant_table.Order, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    table = quant_table.make(order, lambda what, done, of: told.append(f"{what} {done}/{of}"))
    assert [row.scheme for row in table.rows] == ["float", "klaus-8", "klaus-2"]
    assert "klaus-2: photos 100/100" in told
    for row in table.rows:
        shipped = [path for path in (order.packages / row.scheme).iterdir() if path.suffix != ".json"]
        assert row.total_bytes == sum(path.stat().st_size for path in shipped)
        assert row.bits_per_weight == 8 * row.total_bytes / table.weights
    whole, eight, two = table.rows
    assert eight.total_bytes > two.total_bytes
    assert whole.change is None
    assert eight.change is not None
    assert two.change is not None
    assert 0 < eight.change.divergence < two.change.divergence
    engines = [FastEngine(model) for model in (order.model, quantize(order.model, "klaus-2"))]
    reference, found = (
        np.array([engine.probabilities(images.read_picture(path), patches=10) for _, path in order.photos])
        for engine in engines
    )
    wanted = accuracy.positions(order.model.labels, order.photos)
    assert two.score == accuracy.score(found, wanted)
    assert two.change == accuracy.compare(reference, found, wanted)

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("computed again")

    monkeypatch.setattr(quant_table, "_SharingEngine", never)
    monkeypatch.setattr("klaus_runtime.package.write_package", never)
    assert quant_table.make(order) == table  # packages and answers are kept


def test_rows_share_what_their_networks_share(order: quant_table.Order, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[int, int]] = []
    whole = FastEngine._run

    def watched(self: FastEngine, tensors: Any, first: int, stop: int) -> Any:
        ran.append((first, stop))
        return whole(self, tensors, first, stop)

    monkeypatch.setattr(FastEngine, "_run", watched)
    quant_table.make(order)
    convolutions = [pair for pair in ran if pair[0] == 0]
    assert (len(convolutions), len(ran) - len(convolutions)) == (100, 300)


def test_pages_and_charts_say_what_was_measured(order: quant_table.Order) -> None:
    table = quant_table.make(order)
    page = quant_table.markdown(table, "klaus quant-table tiny", "chart.png")
    assert "10 patches" in page
    assert "![size against misses](chart.png)" in page
    assert "| Klaus, as shipped (4 and 8 bits) | 19.3 MiB | about 100 MiB |  | 18.20 | 3 s on an iPhone 5 |" in page
    lines = [line for line in page.splitlines() if line.startswith(("| float", "| klaus-"))]
    assert [line.count("|") for line in lines] == [len(quant_table.HEADINGS) + 1] * 3
    drawn = chart.draw(table)
    assert drawn == chart.draw(table)
    with Image.open(io.BytesIO(drawn)) as image:
        assert image.size == (1200, 520)


def test_what_cannot_be_measured_is_refused(order: quant_table.Order) -> None:
    for wrong, message in (
        (replace(order, photos=order.photos[:99]), "99 photos say nothing"),
        (replace(order, schemes=("q99",)), "'q99' is unknown"),
        (replace(order, schemes=("q4",)), "give a folder of some hundred"),
        (replace(order, photos=[("n99999999", path) for _, path in order.photos]), "none of the network's 10"),
    ):
        with pytest.raises(InputError, match=message):
            quant_table.make(wrong)


def test_schemes_and_crops_by_default(order: quant_table.Order, tmp_path: Path) -> None:
    assert quant_table.default_schemes(order.model, calibration=False) == (
        "klaus-8",
        "klaus-4",
        "klaus-2",
        "klaus-mixed",
    )
    floats = quant_table._written_out(everything())
    assert quant_table.default_schemes(floats, calibration=False) == ("q8",)
    assert "q4" in quant_table.default_schemes(floats, calibration=True)
    assert quant_table.default_crop(order.model, order.photos) == "center"
    same, other = tmp_path / "same.png", tmp_path / "other.png"
    Image.new("RGB", (9, 9)).save(same)
    Image.new("RGB", (9, 10)).save(other)
    assert quant_table.default_crop(everything(), [("n00000000", same)]) == "none"
    assert quant_table.default_crop(everything(), [("n00000000", same), ("n00000000", other)]) == "center"
