"""Metrics by classifiers: the two-sample test, and training on samples with a test on data."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from scratchgen.likelihood import logsumexp
from scratchgen.metrics.distances import as_pair
from scratchgen.nn import MLP, Adam, check_step, coordinate_features, cosine_decay
from scratchgen.validation import (
    RNG,
    Array,
    ArrayLike,
    IntArray,
    as_arrays,
    as_choice,
    as_count,
    as_generator,
    as_labels,
)

HIDDEN = (128, 128)
EPOCHS, LEAST_STEPS, BATCH = 60, 300, 64  # steps see every row EPOCHS times, but there are LEAST_STEPS or more
LEARNING_RATE, WEIGHT_DECAY = 3e-3, 1.0
FEATURES, FEW_COLUMNS = 3, 8  # frequencies of the two-sample test, for few columns; with them it found .61 in place of
# .50 on a mixture for two_moons, but .54 in place of .68 on tables for the 64 columns of digits
MOST_LABELS = 10_000
CLASSIFIERS = ("mlp", "forest")

Predict = Callable[[Array], IntArray]


class Accuracy(NamedTuple):
    """Share of right answers, and its standard error for independent answers."""

    accuracy: float
    standard_error: float


def logistic_loss(logits: Array, labels: ArrayLike) -> tuple[Array, Array]:
    """−log softmax(logits)[label] of every row, (N,), nats, and its derivative by the logits, (N, K).

    The derivative is softmax(logits) − onehot(label).  For K = 2 this is the logistic loss of the difference of the two
    logits.

    Parameters
    ----------
    logits : (N, K)
    labels : (N,) of int
        0..K−1.
    """
    logits = as_arrays("logits (N, K)", logits)
    labels = as_labels(labels, len(logits), logits.shape[1])
    rows, log_p = np.arange(len(logits)), logits - logsumexp(logits)[:, None]
    gradient = np.exp(log_p)
    gradient[rows, labels] -= 1
    return -log_p[rows, labels], gradient


def train_classifier(
    x: Array, labels: IntArray, n_classes: int, rng: np.random.Generator, n_features: int = 0
) -> Predict:
    """Train an MLP on x, (N, D), with labels 0..K−1, (N,), and return the function from rows to labels.

    Columns are standardised by the mean and standard deviation of x; a constant column is only centred.  With n > 0
    features the MLP also has the inputs `coordinate_features` of the columns at n frequencies.  The MLP has
    two hidden layers of 128 and is trained by AdamW on `logistic_loss`, for 60 passes over the rows, but 300 steps or
    more.

    Raises
    ------
    ArithmeticError
        If the training diverges.
    """
    mean, std = x.mean(axis=0), x.std(axis=0)
    std[std == 0] = 1.0

    def inputs_of(rows: Array) -> Array:
        standardized = ((rows - mean) / std).astype(np.float32)
        return np.concatenate([standardized, coordinate_features(standardized, n_features)], axis=1)

    inputs = inputs_of(x)
    network = MLP((inputs.shape[1], *HIDDEN, n_classes), rng=rng)
    adam = Adam(network.parameters, LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    size = min(BATCH, len(x))
    n_steps = max(EPOCHS * len(x) // size, LEAST_STEPS)
    order = np.empty(0, dtype=np.int64)
    for step in range(n_steps):
        if len(order) < size:
            order = np.concatenate([order, rng.permutation(len(x))])
        batch, order = order[:size], order[size:]
        logits, backward = network.vjp(inputs[batch])
        losses, gradient = logistic_loss(logits, labels[batch])
        backward(gradient / len(batch))
        check_step(step, float(losses.mean()), network.gradient)
        adam.step(network.gradient, cosine_decay(step, n_steps, LEARNING_RATE))
    return lambda rows: network(inputs_of(rows)).argmax(axis=1)


def _train_forest(x: Array, labels: IntArray, n_classes: int, rng: np.random.Generator) -> Predict:
    """scikit-learn's random forest of 200 trees, in the form of `train_classifier`."""
    try:
        from sklearn.ensemble import RandomForestClassifier
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "classifier 'forest' needs scikit-learn; run: pip install scikit-learn, or pass classifier='mlp'"
        ) from None
    forest = RandomForestClassifier(200, random_state=int(rng.integers(2**31)))
    predict: Predict = forest.fit(x, labels).predict
    return predict


def two_sample_accuracy(
    x: ArrayLike, y: ArrayLike, classifier: str = "mlp", folds: int = 5, rng: RNG = None
) -> Accuracy:
    """Accuracy of a classifier that tells rows of x from rows of y, by cross-validation (Lopez-Paz and Oquab 2017).

    The accuracy is the mean of those on x and on y.  For two sets of one law its mean is 0.5, and for laws without
    overlap it can reach 1.  A value near 0.5 says that this classifier found no difference.

    Parameters
    ----------
    x, y : (N, D), (M, D)
        Rows of two laws; `folds` rows or more each.  Training takes as many of x as of y, drawn at random.
    classifier : {"mlp", "forest"}
        The MLP of `train_classifier`, with 3 frequencies for 8 columns or fewer, or scikit-learn's random forest, if it
        is installed.
    folds : int
        Number of parts, each with an equal share of x and of y; a part is classified after training on the others.
    rng : int, Generator or None

    Returns
    -------
    Accuracy
        accuracy, and its standard error as if the answers were independent.  Answers share the classifiers, so that the
        spread over repetitions may be larger.

    Raises
    ------
    TypeError, ValueError
        If x or y is not an array of finite real numbers of such a shape, classifier is unknown, or folds is below 2.
    ModuleNotFoundError
        For "forest" without scikit-learn.
    """
    as_choice(classifier, "classifier", CLASSIFIERS)
    folds, rng = as_count(folds, "folds", minimum=2), as_generator(rng)
    x, y = as_pair(x, y, n_min=folds)
    mlp = partial(train_classifier, n_features=FEATURES if x.shape[1] <= FEW_COLUMNS else 0)
    train = mlp if classifier == "mlp" else _train_forest
    parts = [_parts(len(rows), folds, rng) for rows in (x, y)]
    right = [np.zeros(len(rows), dtype=bool) for rows in (x, y)]
    for fold in range(folds):
        kept = [rows[part != fold] for rows, part in zip((x, y), parts, strict=True)]
        n = min(map(len, kept))
        equal = [rng.permutation(rows)[:n] for rows in kept]
        predict = train(np.concatenate(equal), np.repeat([0, 1], n), 2, rng)
        for label, (rows, part) in enumerate(zip((x, y), parts, strict=True)):
            right[label][part == fold] = predict(rows[part == fold]) == label
    accuracies = [float(answers.mean()) for answers in right]
    variance = sum(a * (1 - a) / len(answers) for a, answers in zip(accuracies, right, strict=True)) / 4
    return Accuracy(sum(accuracies) / 2, variance**0.5)


def _parts(n: int, folds: int, rng: np.random.Generator) -> IntArray:
    """The part 0..folds−1 of every row, (n,), at random; sizes differ by one at most."""
    return rng.permutation(np.arange(n) % folds)


def train_on_synthetic(x: ArrayLike, labels: ArrayLike, y: ArrayLike, labels_y: ArrayLike, rng: RNG = None) -> Accuracy:
    """Accuracy on data x of a classifier that is trained on labelled samples y (Esteban et al. 2017).

    Compare it with the accuracy after training on as many rows of data.

    Parameters
    ----------
    x, labels : (N, D), (N,) of int
        Data and their labels 0, 1, ….
    y, labels_y : (M, D), (M,) of int
        Samples and the labels that they were drawn for.
    rng : int, Generator or None
        Source of the initial weights and the batches of `train_classifier`.

    Returns
    -------
    Accuracy
        accuracy, and its standard error √(a (1 − a)/N).

    Raises
    ------
    TypeError, ValueError
        If an argument is not an array of such numbers and shape.
    """
    x, y = as_pair(x, y)
    labels, labels_y = as_labels(labels, len(x), MOST_LABELS), as_labels(labels_y, len(y), MOST_LABELS, "labels_y")
    n_classes = max(int(labels.max()), int(labels_y.max())) + 1
    right = train_classifier(y, labels_y, n_classes, as_generator(rng))(x) == labels
    accuracy = float(right.mean())
    return Accuracy(accuracy, (accuracy * (1 - accuracy) / len(x)) ** 0.5)
