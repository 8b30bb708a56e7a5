"""One table of all sample metrics, each beside its floor: the same metric of data against data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from scratchgen.metrics.classifiers import two_sample_accuracy
from scratchgen.metrics.distances import as_pair, as_rows
from scratchgen.metrics.laws import frechet_distance, median_bandwidth, mmd2, sliced_wasserstein2
from scratchgen.metrics.neighbours import density_coverage, nearest_train_ratio, precision_recall
from scratchgen.validation import RNG, Array, ArrayLike, as_count, as_generator, check_flag

FOREST, MEMORISATION = "forest_accuracy", "nearest_train_ratio"


class Estimate(NamedTuple):
    """Mean over repetitions, and their standard deviation; None if the repetitions share most of their rows."""

    mean: float
    spread: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        """The estimate from the values of two repetitions or more."""
        return cls(float(np.mean(values)), float(np.std(values, ddof=1)))


class Comparison(NamedTuple):
    """A row of the table: a metric, its value for data against data, and for every set of samples."""

    metric: str
    floor: Estimate
    values: dict[str, Estimate]


def compare(
    x: ArrayLike,
    y: ArrayLike,
    draws: Mapping[str, Sequence[ArrayLike]],
    train: ArrayLike | None = None,
    k: int = 5,
    rng: RNG = None,
    *,
    forest: bool = False,
) -> list[Comparison]:
    """All sample metrics of some models beside the floor, y against x in place of samples against x.

    Every repetition has its own n samples of each model and its own n rows of y; the seed of a metric and the bandwidth
    of the kernel are the same for all.  A model cannot be told from the data where its value is within the floor and
    its spread.

    Parameters
    ----------
    x : (N, D)
        Data that no model has seen.
    y : (M, D)
        Other data of the same law, n rows or more, such as those of training.  For n > M/2 the floor has no spread,
        since its repetitions share rows.
    draws : mapping from str to sequences of (n, D)
        Samples by the name of their model: two or more repetitions, as many for every model, all of n rows.
    train : (T, D), optional
        All rows that the models were trained on: adds `nearest_train_ratio`, with a half of x as samples for the floor.
    k : int
        Neighbours of precision, recall, density and coverage.
    rng : int, Generator or None
    forest : bool
        Add `forest_accuracy`, the two-sample test by scikit-learn's random forest.

    Returns
    -------
    list of Comparison
        A row for each metric: metric, floor, values by model.

    Raises
    ------
    TypeError, ValueError
        If an argument is no array of finite real numbers of such a shape, or draws have different sizes.
    """
    k, rng = as_count(k, "k"), as_generator(rng)
    check_flag(forest, "forest")
    x, y = as_pair(x, y, n_min=k + 2)
    sets, n, n_repeats = _as_draws(draws, x, k)
    if n > len(y):
        raise ValueError(f"draws must have at most as many rows as y, {len(y)}, got {n}; draw fewer samples")
    train = None if train is None else as_pair(x, train, names=("x", "train"))[1]
    bandwidth = median_bandwidth(x, y)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ("", *sets)}
    for repeat in range(n_repeats):
        seed = int(rng.integers(2**63))
        ours = {"": rng.permutation(y)[:n]} | {name: parts[repeat] for name, parts in sets.items()}
        half = rng.permutation(x)[: (len(x) + 1) // 2]
        for name, samples in ours.items():
            values = dict(_metrics(x, samples, k, bandwidth, seed))
            if forest:
                values[FOREST] = two_sample_accuracy(x, samples, "forest", rng=seed).accuracy
            if train is not None:
                values[MEMORISATION] = nearest_train_ratio(half if name == "" else samples, train, x).ratio
            found[name].append(values)
    metrics = list(found[""][0])
    table = {metric: {name: Estimate.of([one[metric] for one in found[name]]) for name in found} for metric in metrics}
    floors = {metric: values.pop("") for metric, values in table.items()}
    if n > len(y) / 2:
        floors = {metric: floor._replace(spread=None) for metric, floor in floors.items()}
    return [Comparison(metric, floors[metric], values) for metric, values in table.items()]


def _as_draws(draws: Mapping[str, Sequence[ArrayLike]], x: Array, k: int) -> tuple[dict[str, list[Array]], int, int]:
    """Return the draws as arrays, the number of rows n, and that of repetitions."""
    given = draws.values() if isinstance(draws, Mapping) and "" not in draws else ()
    if not given or not all(isinstance(parts, Sequence | np.ndarray) for parts in given):
        raise TypeError(
            f"draws must map names of models to lists of arrays (n, D), got {draws!r:.60}; pass {{'model': [a, b, c]}}"
        )
    sets = {name: [as_rows(part, f"draws[{name!r}]", k + 1) for part in parts] for name, parts in draws.items()}
    shapes = {part.shape for parts in sets.values() for part in parts}
    counts = {len(parts) for parts in sets.values()}
    if len(counts) != 1 or min(counts) < 2 or len(shapes) != 1:
        raise ValueError(
            f"draws must hold two repetitions or more, as many for every model, of one shape, got {sorted(counts)} "
            f"repetitions of shapes {sorted(shapes)}; draw as many rows each time"
        )
    n, D = shapes.pop()
    if x.shape[1] != D:
        raise ValueError(f"draws must have the {x.shape[1]} columns of x, got {D}; pass samples of the same columns")
    return sets, n, counts.pop()


def _metrics(x: Array, samples: Array, k: int, bandwidth: float, seed: int) -> Iterator[tuple[str, float]]:
    """Names and values of the metrics of all samples."""
    yield "frechet_distance", frechet_distance(x, samples)
    yield "mmd2", mmd2(x, samples, bandwidth)
    yield "sliced_wasserstein2", sliced_wasserstein2(x, samples, rng=seed)
    yield from precision_recall(x, samples, k)._asdict().items()
    yield from density_coverage(x, samples, k)._asdict().items()
    yield "two_sample_accuracy", two_sample_accuracy(x, samples, rng=seed).accuracy
