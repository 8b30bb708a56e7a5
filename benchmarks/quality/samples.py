"""Metrics of a set of samples of the digits, against test images that no model has seen."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.quality.records import Record
from scratchgen.metrics import (
    density_coverage,
    frechet_distance,
    median_bandwidth,
    mmd2,
    nearest_train_ratio,
    precision_recall,
    two_sample_accuracy,
)
from scratchgen.validation import Array, IntArray

LETTERS = "abcdefghijklmnopq"  # of the 17 levels
C2ST = ("mlp", "forest", "svm", "boosting")


def grade(samples: Array, labels: IntArray | None, train: Any, test: Any, seed: int, quick: bool = False) -> Record:
    """Metrics of samples, (n, 64), with labels, (n,), if they were drawn for some; `train`, `test` as of `digits`."""
    x, n = test.images, len(samples)
    found: Record = {"frechet": frechet_distance(x, samples)}
    found["mmd2"] = 1e4 * mmd2(x, samples, median_bandwidth(x, train.images))
    found |= precision_recall(x, samples)._asdict() | density_coverage(x, samples)._asdict()
    found["nearest_train"] = nearest_train_ratio(samples, train.images, x).ratio
    for name in ("svm",) if quick else C2ST:
        found[f"c2st_{name}"] = c2st(x, samples, name, seed)
    if labels is not None and (judge := svc()) is not None:
        found["svc_agrees"] = float((judge.fit(train.images, train.labels).predict(samples) == labels).mean())
        found["synthetic_svc"] = float((svc().fit(samples, labels).predict(x) == test.labels).mean())
    return found | {"n": n}


def svc() -> Any:
    """The support vector classifier of scikit-learn for the digits; None where scikit-learn is missing."""
    try:
        from sklearn.svm import SVC
    except ModuleNotFoundError:
        return None
    return SVC(C=10.0, gamma=1e-3)


def c2st(x: Array, samples: Array, name: str, seed: int) -> float | None:
    """Accuracy of a classifier that tells samples from x, by cross-validation; .5 at best; None if it is missing."""
    if name == "mlp":
        return two_sample_accuracy(x, samples, rng=seed).accuracy
    try:
        from sklearn.ensemble import HistGradientBoostingClassifier
        from sklearn.model_selection import StratifiedKFold, cross_val_score
    except ModuleNotFoundError:
        return None
    if name == "forest":
        return two_sample_accuracy(x, samples, "forest", rng=seed).accuracy
    n = min(len(x), len(samples))
    rng = np.random.default_rng(seed)
    rows = np.concatenate([rng.permutation(x)[:n], rng.permutation(samples)[:n]])
    classifier = svc() if name == "svm" else HistGradientBoostingClassifier(random_state=seed)
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    return float(cross_val_score(classifier, rows, np.repeat([0, 1], n), cv=folds).mean())


def as_letters(images: Array) -> list[str]:
    """Images, (n, 64), as texts of 64 letters, a for level 0."""
    return ["".join(LETTERS[level] for level in row) for row in np.rint(images).astype(int)]


def as_images(texts: list[str]) -> Array:
    """The images of `as_letters`."""
    return np.array([[LETTERS.index(letter) for letter in text] for text in texts], dtype=np.float64)
