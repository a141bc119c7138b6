"""The calibrated schemes on small nets: what each step gains, and that nothing depends on chance."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from klaus_runtime import evaluate
from klaus_runtime.errors import InputError
from klaus_runtime.evaluate import FastEngine
from klaus_runtime.model import (
    F32,
    U8,
    Activation,
    Add,
    Codebook,
    Convolution,
    CropFormation,
    FullConnect,
    GlobalPool,
    Layer,
    Model,
    Weights,
    Window,
)
from klaus_runtime.quantize import assign, auto, calibrated, fit, importance, moments, quantize, sequential, tune, views
from klaus_runtime.quantize.assign import Book, Problem
from klaus_runtime.quantize.checkpoints import Checkpoints
from klaus_runtime.quantize.gradient import Graph, kl_divergence, weight_slope
from klaus_runtime.quantize.sequential import LayerPlan, Method

from . import nets
from .zoo import assert_same

NOTHING_KEPT = Checkpoints(None)


def small(seed: int = 0) -> Model:
    """A residual net with dense, depthwise and grouped convolutions and a full connect behind a pool."""
    rng = np.random.default_rng(seed)
    relu6 = Activation.RELU6
    layers: list[Layer] = [
        Convolution(
            "stem", (-1,), Window(3, 3, 2, 2, (0, 0, 1, 1)), nets.weights(rng, 8, 3, 3, 3, scale=True), 1, relu6
        ),
        Convolution("expand", (0,), Window(1, 1), nets.weights(rng, 24, 1, 1, 8, scale=True), 1, relu6),
        Convolution(
            "depthwise", (1,), Window(3, 3, 1, 1, (1, 1, 1, 1)), nets.weights(rng, 24, 3, 3, 1, scale=True), 24, relu6
        ),
        Convolution("project", (2,), Window(1, 1), nets.weights(rng, 8, 1, 1, 24, scale=True)),
        Add("add", (3, 0)),
        Convolution("grouped", (4,), Window(3, 3, 2, 2, (1, 1, 1, 1)), nets.weights(rng, 32, 3, 3, 4), 2, relu6),
        GlobalPool("pool", (5,)),
        FullConnect("classes", (6,), nets.weights(rng, 10, 32)),
    ]
    return nets.network(layers, (16, 16, 3), CropFormation(4, (127, 127, 127), (1 / 64, 1 / 64, 1 / 64)))


def wide() -> Model:
    """The small net with enough weights that bits show in the package."""
    rng = np.random.default_rng(5)
    model = small()
    layers = [*model.layers[:-1], FullConnect("classes", (6,), nets.weights(rng, 900, 32))]
    return replace(model, layers=tuple(layers))


def inputs(model: Model, count: int, seed: int = 0) -> F32:
    """Smooth random pictures: neighbours alike, as in photos."""
    rng = np.random.default_rng(seed)
    coarse = rng.standard_normal((count, 4, 4, 3)).repeat(4, axis=1).repeat(4, axis=2)
    return (coarse + 0.3 * rng.standard_normal((count, *model.input_shape))).astype(np.float32)


def problem(seed: int = 0, outputs: int = 20, size: int = 30) -> Problem:
    rng = np.random.default_rng(seed)
    mix = rng.standard_normal((size, size)) * (np.arange(size) < 6)[:, None] + 0.3 * np.eye(size)
    covariance = assign.damped((mix.T @ mix)[None], 0.01)
    return Problem(rng.standard_normal((1, outputs, size)), covariance, np.ones((1, outputs)))


def book(given: Problem, entries: int = 8, price: float = 0.0) -> Book:
    return Book(np.linspace(-2, 2, entries), np.ones(given.target.shape[:2]), np.full(entries, price))


def test_compensation_beats_rounding_and_descent_beats_both() -> None:
    given = problem()
    chosen = book(given)
    rounded = assign.nearest(given, chosen)
    handed_on = assign.compensate(given, chosen)
    settled = assign.descend(given, chosen, handed_on, 20)
    errors = [assign.error(given, chosen, indices).sum() for indices in (rounded, handed_on, settled)]
    assert errors[1] < 0.7 * errors[0]
    assert errors[2] < 0.98 * errors[1]
    assert_same(assign.descend(given, chosen, settled, 5), settled)
    # No single change of an index helps any more: what coordinate descent promises.
    for output in range(3):
        for column in range(0, 30, 7):
            for entry in range(8):
                other = settled.copy()
                other[0, output, column] = entry
                assert (
                    assign.error(given, chosen, other)[0, output]
                    >= assign.error(given, chosen, settled)[0, output] - 1e-9
                )


def test_without_correlation_all_ways_round_to_the_nearest() -> None:
    given = replace(problem(), covariance=np.eye(30)[None])
    chosen = book(given)
    rounded = assign.nearest(given, chosen)
    assert_same(assign.compensate(given, chosen), rounded)
    assert_same(assign.descend(given, chosen, rounded, 3), rounded)


def test_prices_trade_error_for_bits() -> None:
    given = problem()
    found = [fit.fit(given, 16, rate=rate) for rate in (0.0, 0.05, 0.5, 5.0)]
    assert [f.bits for f in found] == sorted((f.bits for f in found), reverse=True)
    assert found[0].error < found[-1].error
    assert found[-1].bits < 0.6 * found[0].bits


def test_a_fit_is_exact_where_it_can_be() -> None:
    rng = np.random.default_rng(0)
    entries = np.array([-1, -0.5, 0.25, 1.5])
    scale = rng.uniform(0.5, 2, (1, 12))
    target = entries[rng.integers(0, 4, (1, 12, 40))] * scale[:, :, None]
    found = fit.fit(Problem(target, np.eye(40)[None], np.ones((1, 12))), 4)
    got = found.entries.astype(np.float64)[found.indices] * found.scale[:, :, None]
    assert np.abs(got - target).max() < 5e-3


def test_moments_are_the_layers_own() -> None:
    model = small()
    x = np.random.default_rng(0).standard_normal((5, 8, 8, 8)).astype(np.float32)
    for number in (1, 5):
        layer = model.layers[number]
        assert isinstance(layer, Convolution)
        found = moments.measure(layer, [(x, 2 * x)], rows=10**6, seed=0)
        linear = replace(layer, activation=Activation.LINEAR, weights=replace(layer.weights, scale=None))
        output = evaluate.prepare(linear)([x])
        groups = layer.groups
        rows = layer.weights.stored().reshape(groups, -1, found.quantized.shape[1]).astype(np.float64)
        wanted = output.reshape(-1, output.shape[3]).astype(np.float64).var(axis=0)
        got = np.einsum("gok,gkl,gol->go", rows, found.cross / 2, rows).ravel()
        np.testing.assert_allclose(got, wanted, rtol=1e-4)
        np.testing.assert_allclose(found.quantized, 2 * found.cross, rtol=1e-4, atol=1e-4)


def test_gradients_agree_with_differences() -> None:
    model = nets.everything()
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2, *model.input_shape)).astype(np.float32)
    graph = Graph(model)
    outputs = graph.forward(x)
    slope = 100 * rng.standard_normal(outputs[-1].shape).astype(np.float32)
    found = {}
    graph.backward(
        x,
        outputs,
        slope,
        lambda n, layer, i, _o, s: found.update({n: (s.sum(axis=(0, 1, 2)), weight_slope(layer, i[0], s))}),
    )
    for number, (by_bias, by_weight) in found.items():
        layer = model.layers[number]
        assert isinstance(layer, Convolution | FullConnect)
        plain = Weights(layer.weights.effective(), layer.weights.bias)

        def loss(weights: Weights, layer: Layer = layer, number: int = number) -> float:
            assert isinstance(layer, Convolution | FullConnect)
            layers = (*model.layers[:number], replace(layer, weights=weights), *model.layers[number + 1 :])
            return float((Graph(replace(model, layers=layers)).forward(x)[-1].astype(np.float64) * slope).sum())

        step = np.float32(1e-3)
        # Differences across a kink of an activation or a maximum are no gradient: most directions must agree.
        near = 0
        for trial in range(6):
            along = np.random.default_rng(trial).standard_normal(plain.bias.shape).astype(np.float32)
            ends = [loss(replace(plain, bias=plain.bias + sign * step * along)) for sign in (1, -1)]
            near += np.isclose((ends[0] - ends[1]) / (2 * step), (by_bias * along).sum(), rtol=0.03, atol=0.5)
            across = np.random.default_rng(trial).standard_normal(plain.values.shape).astype(np.float32)
            ends = [
                loss(replace(plain, values=(plain.values + sign * step * across).astype(np.float32)))
                for sign in (1, -1)
            ]
            near += np.isclose((ends[0] - ends[1]) / (2 * step), (by_weight * across).sum(), rtol=0.03, atol=0.5)
        assert near >= 8, f"layer {number}"


def test_importance_foretells_the_loss() -> None:
    model = small()
    tensors = inputs(model, 64)
    measured = importance.measure(model, tensors, seed=0)
    exact = FastEngine(model).logits(tensors)
    rng = np.random.default_rng(0)
    for number, values in enumerate(measured):
        layer = model.layers[number]
        if values is None:
            continue
        assert isinstance(layer, Convolution | FullConnect)
        noise = 0.05 * rng.standard_normal(len(values)).astype(np.float32)
        noisy = replace(layer, weights=replace(layer.weights, bias=layer.weights.bias + noise))
        layers = (*model.layers[:number], noisy, *model.layers[number + 1 :])
        loss = kl_divergence(exact, FastEngine(replace(model, layers=layers)).logits(tensors)).mean()
        # An error that is the same at all positions adds up: the diagonal says its order, not its size.
        assert (values * noise**2).sum() < 3 * loss


def run(model: Model, tensors: F32, plan: list[LayerPlan | None], **more: object) -> Model:
    method = Method(**more)  # type: ignore[arg-type]
    return sequential.quantize_layers(model, tensors, plan, method=method, seed=0, checkpoints=NOTHING_KEPT)


def plans(model: Model, entries: int) -> list[LayerPlan | None]:
    return [LayerPlan(entries) if isinstance(layer, Convolution | FullConnect) else None for layer in model.layers]


def plain(model: Model, entries: int) -> Model:
    """Every layer by k-means on its weights alone."""
    layers: list[Layer] = []
    for layer in model.layers:
        if isinstance(layer, Convolution | FullConnect):
            values = layer.weights.values.astype(np.float64)
            found = fit._kmeans(values.ravel(), np.ones(values.size), np.linspace(values.min(), values.max(), entries))
            indices = np.abs(values[..., None] - found).argmin(axis=-1).astype(np.uint8)
            weights = replace(layer.weights, values=indices, codebook=Codebook(found.astype(np.float16)))
            layers.append(replace(layer, weights=weights))
        else:
            layers.append(layer)
    return replace(model, layers=tuple(layers))


def batches(model: Model, course: tune.Course) -> tune.Views:
    return lambda step: inputs(model, course.batch, 1000 + step)


def loss(model: Model, quantized: Model, seed: int = 7) -> float:
    tensors = inputs(model, 100, seed)
    return float(kl_divergence(FastEngine(model).logits(tensors), FastEngine(quantized).logits(tensors)).mean())


def test_each_step_gains_on_photos_not_seen() -> None:
    model = small()
    tensors = inputs(model, 200)
    by_layers = run(model, tensors, plans(model, 4))
    course = tune.Course(steps=150, batch=32, rate=5e-3, hidden_rate=0)
    tuned = tune.tune(model, by_layers, batches(model, course), course=course, checkpoints=NOTHING_KEPT)
    losses = [loss(model, found) for found in (plain(model, 4), by_layers, tuned)]
    assert losses[1] < 0.5 * losses[0]
    assert losses[2] < 0.97 * losses[1]
    for layer in tuned.layers:
        if isinstance(layer, Convolution | FullConnect):
            assert layer.weights.codebook is not None
            assert layer.weights.codebook.values.dtype == np.float16
            assert layer.weights.scale is not None
            for kept in (layer.weights.scale, layer.weights.bias):
                assert_same(kept.astype(np.float16).astype(np.float32), kept)


def test_fewer_views_in_memory_still_see_all_layers() -> None:
    model = small()
    tensors = inputs(model, 60)
    tight = run(model, tensors, plans(model, 16), live_bytes=8 * 60 * 2000)
    assert loss(model, tight) < 0.1 * loss(model, plain(model, 4))


def test_an_interrupted_run_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    model = small()
    tensors = inputs(model, 40)
    course = tune.Course(steps=25, batch=8)

    def work(stop_at: str | None) -> Model:
        def report(what: str, done: int, _total: int) -> None:
            if stop_at == f"{what} {done}":
                raise KeyboardInterrupt

        kept = Checkpoints(tmp_path, model, tensors, "test")
        first = sequential.quantize_layers(
            model, tensors, plans(model, 16), method=Method(), seed=0, checkpoints=kept, report=report
        )
        return tune.tune(model, first, batches(model, course), course=course, checkpoints=kept, report=report)

    for stop in ("project 3", "tuning 22"):
        with pytest.raises(KeyboardInterrupt):
            work(stop)
    resumed = work(None)
    whole = run(model, tensors, plans(model, 16))
    whole = tune.tune(model, whole, batches(model, course), course=course, checkpoints=NOTHING_KEPT)
    assert_same(resumed, whole)


def test_the_price_of_a_bit_meets_the_bits_asked_for() -> None:
    costs = [(1000, 3.7, 0.02), (50000, 3.6, 0.5), (300, 7.0, 1e-6)]
    rate = calibrated.solve_rate(costs, 2.9)
    taken = [n * max(0.5, min(b, b + 0.5 * np.log2(e / n * 2 * np.log(2) / rate))) for n, b, e in costs]
    assert sum(taken) / 51300 == pytest.approx(2.9, abs=1e-3)
    assert calibrated.solve_rate(costs, 8) == 0


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(24):
        coarse = rng.integers(0, 255, (5, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((30, 24)).save(folder / f"{number:02d}.png")
    return folder


def test_views_of_photos(photos: Path) -> None:
    model = small()
    found = views.find(photos)
    tensors = views.form(model, found, 4, seed=0)
    assert tensors.shape == (96, 16, 16, 3)
    assert_same(tensors[24:48], tensors[:24, :, ::-1])
    assert_same(views.form(model, found, 4, seed=0), tensors)
    assert not np.array_equal(views.form(model, found, 4, seed=1), tensors)


def test_fresh_views_are_new_every_time_and_the_same_again(photos: Path) -> None:
    model = small()
    found = views.find(photos)

    def drawn(step: int) -> F32:
        return views.fresh(model, found, 16, np.random.default_rng((0, step)))

    first = drawn(0)
    assert first.shape == (16, 16, 16, 3)
    assert first.dtype == np.float32
    assert_same(drawn(0), first)
    assert not np.array_equal(drawn(1), first)
    # Mean 127, scale 1/64: no view leaves what a picture can hold.
    assert first.min() >= -127 / 64 - 1e-6
    assert first.max() <= 128 / 64 + 1e-6
    whole = views.form(model, found, 2, seed=0)
    seen = sum(any(np.array_equal(view, one) for one in whole) for view in first)
    assert seen == 0


def test_tuning_moves_indices_where_that_gains() -> None:
    model = small()
    start = plain(model, 4)
    results = {}
    for hidden_rate in (0.0, 2e-3):
        course = tune.Course(steps=120, batch=32, rate=3e-3, hidden_rate=hidden_rate)
        results[hidden_rate] = tune.tune(model, start, batches(model, course), course=course, checkpoints=NOTHING_KEPT)

    def indices(found: Model) -> list[U8]:
        return [
            layer.weights.values.astype(np.uint8)
            for layer in found.layers
            if isinstance(layer, Convolution | FullConnect)
        ]

    for before, still, moved in zip(*(indices(found) for found in (start, *results.values())), strict=True):
        assert_same(before, still)
        assert 0 <= (before != moved).mean() < 0.5
    assert any(not np.array_equal(a, b) for a, b in zip(indices(start), indices(results[2e-3]), strict=True))
    assert loss(model, results[2e-3]) < 0.97 * loss(model, results[0.0]) < loss(model, start)


def test_hidden_weights_start_in_the_cell_of_their_entry() -> None:
    model = small()
    start = plain(model, 8)
    for origin, layer in zip(model.layers, start.layers, strict=True):
        if isinstance(layer, Convolution | FullConnect):
            assert isinstance(origin, Convolution | FullConnect)
            assert layer.weights.codebook is not None
            hidden = tune._hidden(origin.weights, layer.weights)
            found = tune._nearest(hidden, layer.weights.codebook.values)
            assert_same(found, layer.weights.values.ravel().astype(np.uint8))


@pytest.mark.parametrize("scheme", ["q8", "q6", "q4", "q3"])
def test_schemes(photos: Path, tmp_path: Path, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small()
    recipe = calibrated.RECIPES[scheme]
    if scheme == "q3":  # tuning, too, is the same every time
        monkeypatch.setitem(calibrated.RECIPES, scheme, replace(recipe, course=tune.Course(steps=5, batch=8)))
    seen = []
    result = quantize(
        model, scheme, calibration=photos, work=tmp_path, report=lambda what, done, of: seen.append((what, done, of))
    )
    assert_same(result, quantize(model, scheme, calibration=photos))
    assert result.provenance.scheme.startswith(f"{scheme} (")
    assert all(0 <= done <= of for _, done, of in seen)
    for number, layer in enumerate(result.layers):
        if isinstance(layer, Convolution | FullConnect):
            assert layer.weights.codebook is not None
            entries = len(layer.weights.codebook.values)
            assert entries <= (256 if calibrated.is_fine(model.layers[number]) else recipe.entries)


def test_photos_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--calibration DIR"):
        quantize(small(), "q4")
    with pytest.raises(InputError, match="no calibration photos"):
        quantize(small(), "q4", calibration=tmp_path)
    nobody = replace(small(), formation=None)
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="does not say how"):
        quantize(nobody, "q4", calibration=tmp_path)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer views, and a few steps of tuning at the lowest bits."""
    for name, recipe in calibrated.RECIPES.items():
        course = tune.Course(steps=3, batch=8) if name == "q3" else None
        monkeypatch.setitem(calibrated.RECIPES, name, replace(recipe, course=course, views=1))


@pytest.mark.usefixtures("quick")
def test_auto_keeps_to_a_budget(photos: Path) -> None:
    model = wide()
    few = calibrated.apply(model, auto._recipe(2.9), views.find(photos), seed=0, work=None, report=lambda *_: None)
    many = quantize(model, "q8", calibration=photos)
    budget = (2 * auto.package_bytes(few) + auto.package_bytes(many)) // 3
    found = quantize(model, "auto", calibration=photos, budget=budget)
    assert 0.9 * budget <= auto.package_bytes(found) <= budget
    assert found.provenance.scheme.startswith("auto (")
    assert f"for {budget} bytes" in found.provenance.scheme
    with pytest.raises(InputError, match="too few for model"):
        quantize(model, "auto", calibration=photos, budget=2000)


@pytest.mark.usefixtures("quick")
def test_auto_keeps_to_a_loss(photos: Path, tmp_path: Path) -> None:
    model = small()
    for number in range(100):
        source = np.random.default_rng(number).integers(0, 255, (6, 5, 3), dtype=np.uint8)
        Image.fromarray(source).resize((24, 30)).save(tmp_path / f"{number:03d}.png")
    loose = quantize(model, "auto", calibration=tmp_path, max_loss=100)
    assert loose.provenance.scheme.startswith("auto (q3, ")
    strict = quantize(model, "auto", calibration=tmp_path, max_loss=10)
    tensors = views.form(model, views.find(tmp_path), 1, seed=0)
    same = FastEngine(model).logits(tensors).argmax(axis=1) == FastEngine(strict).logits(tensors).argmax(axis=1)
    assert same.mean() > 0.85
    with pytest.raises(InputError, match="too few to measure"):
        quantize(model, "auto", calibration=photos, max_loss=10)


def test_auto_is_told_one_thing(photos: Path) -> None:
    for given in ({}, {"budget": 10**6, "max_loss": 1.0}):
        with pytest.raises(InputError, match="one of --budget"):
            quantize(small(), "auto", calibration=photos, **given)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="other schemes take neither"):
        quantize(small(), "q4", calibration=photos, budget=10**6)
    with pytest.raises(InputError, match="--calibration DIR"):
        quantize(small(), "auto", budget=10**6)
