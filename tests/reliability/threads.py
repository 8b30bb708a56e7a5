"""One fitted model used by eight threads, and two models trained at once."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from scratchgen import ScoreSDE, to_ddpm, to_sde
from tests.reliability.models import KINDS, data, fitted, numbers
from tests.reliability.report import Figure

N_THREADS = 8


def verbs(kind):
    """Every method of a fitted model that computes, by name, as functions that return bytes."""
    model, x = fitted(kind), data(fitted(kind))
    calls = {
        "sample": lambda: model.sample(50, rng=1),
        "elbo": lambda: model.elbo(x, rng=1),
        "score": lambda: model.score(x) if kind.split()[0] not in ("VAE", "DDPM") else 0.0,
    }
    for name in "log_prob", "encode", "reconstruct", "predict_proba", "predict", "bic", "aic":
        if hasattr(model, name) and not (name == "log_prob" and getattr(model, "n_levels", None) and "SDE" in kind):
            calls[name] = lambda name=name: getattr(model, name)(x)
    for name in "iwae", "bound_terms", "noise_losses":
        if hasattr(model, name):
            calls[name] = lambda name=name: getattr(model, name)(x, rng=1)
    if hasattr(model, "predict_score"):
        t = 0.5 if isinstance(model, ScoreSDE) else 3
        calls["eps_hat"] = lambda: model.eps_hat(x, t)
        calls["predict_score"] = lambda: model.predict_score(x, t)
    if isinstance(model, ScoreSDE):
        calls["score_and_divergence"] = lambda: np.hstack(
            [part.reshape(len(x), -1) for part in model.score_and_divergence(x, 0.5)]
        )
        for method in "ddim", "euler", "heun", "adaptive":
            calls[f"sample by {method}"] = lambda method=method: model.sample(20, 1, stochasticity=0, method=method)
        if kind == "ScoreSDE":
            calls["to_ddpm"] = lambda: to_ddpm(model, 4).sample(5, rng=1)
    if hasattr(model, "respace"):
        calls["respace"] = lambda: model.respace(4).sample(5, rng=1)
        calls["sample by multistep steps"] = lambda: model.sample(5, rng=1, stochasticity=0.5)
        calls["sample by DDIM"] = lambda: model.sample(5, rng=1, eta=0.5)
        calls["to_sde"] = lambda: to_sde(model).sample(5, rng=1)
    if hasattr(model, "mixture_"):
        calls["diffuse"] = lambda: model.mixture_.diffuse(0.8, 0.6).score(x)
    return {name: lambda call=call: as_bytes(call()) for name, call in calls.items()}


def as_bytes(result):
    """The bytes of an array, or of a tuple of arrays."""
    return b"".join(np.asarray(part).tobytes() for part in (result if isinstance(result, tuple) else (result,)))


def shared(repeats):
    """Verbs of all kinds in eight threads at once: number of calls, and those that differ from one thread."""
    count, wrong = 0, []
    with ThreadPoolExecutor(N_THREADS) as pool:
        for kind in KINDS:
            calls = verbs(kind)
            alone = {name: call() for name, call in calls.items()}
            for name, call in calls.items():
                results = list(pool.map(lambda _, call=call: call(), range(repeats * N_THREADS)))
                count += len(results)
                wrong += [f"{kind}.{name}"] * sum(result != alone[name] for result in results)
            mixed = list(calls) * repeats
            for name, result in zip(mixed, pool.map(lambda name, calls=calls: calls[name](), mixed), strict=True):
                count += 1
                wrong += [f"{kind}.{name} beside others"] * (result != alone[name])
    return count, wrong


def trained_at_once():
    """Pairs of models trained in two threads, and those that differ from models trained in turn."""

    def train(kind):
        return numbers(KINDS[kind]().fit(data(fitted(kind))))

    kinds = list(KINDS)
    pairs = [(kinds[i], kinds[(i + shift) % len(kinds)]) for shift in (0, 1, 5) for i in range(len(kinds))]
    with ThreadPoolExecutor(2) as pool:
        at_once = [list(pool.map(train, pair)) for pair in pairs]
    in_turn = {kind: train(kind) for kind in kinds}
    wrong = [" and ".join(p) for p, got in zip(pairs, at_once, strict=True) if got != [in_turn[kind] for kind in p]]
    return len(pairs), wrong


def measure(quick):
    """Figures of threads."""
    calls, wrong = shared(2 if quick else 20)
    pairs, differ = trained_at_once()
    return [
        Figure(
            f"{calls} calls of the verbs of {len(KINDS)} models in eight threads", "the bytes of one thread",
            f"{len(wrong)} differ {sorted(set(wrong)) or ''}".strip(), not wrong,
            "NumPy releases the interpreter's lock only in long operations; a free-threaded Python was not tried",
        ),
        Figure(
            f"{pairs} pairs of models trained in two threads", "the numbers of models trained in turn",
            f"{len(differ)} differ {differ or ''}".strip(), not differ, "two threads, small models",
        ),
    ]  # fmt: skip
