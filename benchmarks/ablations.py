"""Measure again every figure that a comment of the package quotes: `python -m benchmarks.ablations`.

A ratio compares the code with the same code without one trick, in interleaved rounds on one core.  "1.2x" means that
the code without the trick takes 1.2 times as long.  The script replaces pieces of source code; it fails if a piece no
longer exists in the package.
"""

from __future__ import annotations

import argparse
import inspect
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from benchmarks import sampling
from benchmarks.anatomy import interleaved
from benchmarks.em import data
from benchmarks.startup import child
from benchmarks.timing import Work, pin_to_one_core
from benchmarks.training import Ours, ddpm_problem, mlp_problem
from scratchgen import MLP, VAE, VP, Mixture, NoiseSchedule, datasets
from scratchgen.fast import em_statistics
from scratchgen.fast import silu as fast_silu
from scratchgen.grading import chain
from scratchgen.models import vae
from scratchgen.nn import adam, features, mlp
from scratchgen.sde import probability_flow_log_prob

RNG = np.random.default_rng(0)


class Figure(NamedTuple):
    """A quoted figure, and the function that measures it again."""

    where: str
    quoted: str
    measure: Callable[[int], str]  # number of rounds -> the measured figure as text


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """`owner.name` is `value` within this context."""
    kept = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, kept)


def rewritten(function: Any, *replacements: tuple[str, str]) -> Any:
    """The function, with pieces of its source replaced."""
    source, space = textwrap.dedent(inspect.getsource(function)), dict[str, Any]()
    for old, new in replacements:
        if old not in source:
            raise ValueError(f"{function.__qualname__} no longer contains {old!r}; adapt this script and the comment")
        source = source.replace(old, new)
    exec(compile(source, function.__code__.co_filename, "exec"), function.__globals__, space)
    return space[function.__name__]


def times(rounds: int, plain: Work, other: Work) -> float:
    """Median over the rounds of time(other)/time(plain)."""
    seconds = interleaved({"plain": plain, "other": other}, 3 * rounds)
    return float(np.median(np.array(seconds["other"]) / np.array(seconds["plain"])))


def ratio(*pairs: tuple[Work, Work]) -> Callable[[int], str]:
    """time(second)/time(first) of every pair."""
    return lambda rounds: ", ".join(f"{times(rounds, *pair):.2f}x" for pair in pairs)


def repeated(work: Work, n: int) -> Work:
    def many() -> None:
        for _ in range(n):
            work()

    return many


def patched(work: Work, owner: Any, name: str, value: Any) -> tuple[Work, Work]:
    """The work as it is, and the work with `owner.name` replaced."""

    def other() -> None:
        with replaced(owner, name, value):
            work()

    return work, other


# --- nn and fast/silu ------------------------------------------------------------------------------------------------

STEP = """
import time
import numpy as np
real = np.empty
{patch}
import scratchgen.nn
np.empty = real
from benchmarks.training import Ours, mlp_problem
run = Ours(mlp_problem((66, 128, 128, 128, 2), 256, 60)).run
run()
began = time.process_time()
for _ in range(5):
    run()
print(time.process_time() - began)
"""
NOT_FREED = "np.empty = lambda shape, **options: real(1 if shape == 2**25 - 2**13 else shape, **options)"


def freed_block(rounds: int) -> str:
    """A training step in processes with and without the release of a large block before it."""
    seconds = [[float(child(STEP.format(patch=patch))[1]) for patch in ("", NOT_FREED)] for _ in range(rounds)]
    return f"{np.median([without / plain for plain, without in seconds]):.2f}x"


def network_figures() -> Iterator[Figure]:
    wide, x = MLP((66, 128, 128, 128, 2), rng=0), RNG.standard_normal((10_000, 66), dtype=np.float32)
    call = patched(lambda: wide(x), mlp, "ROWS", 10**9)
    yield Figure("nn/mlp.py, ROWS", "1.1x to 1.2x", ratio(call))
    yield Figure("nn/mlp.py, one large block freed", "1.3x to 1.5x", freed_block)
    small = Ours(mlp_problem((66, 64, 64, 64, 2), 64, 60)).run
    products = [("h.dot(weight)", "h @ weight"), ("grad.dot(self.weights[i].T)", "grad @ self.weights[i].T")]
    products += [("np.dot(entering", "np.matmul(entering"), ("np.dot(ones, grad", "np.matmul(ones, grad")]
    with_matmul = patched(small, MLP, "vjp", rewritten(MLP.vjp, *products))
    yield Figure("nn/mlp.py, np.dot for @", "1.05x", ratio(with_matmul))
    grad = RNG.standard_normal((256, 128), dtype=np.float32)
    ones = np.ones(256, dtype=np.float32)
    sums = repeated(lambda: np.dot(ones, grad), 200), repeated(lambda: grad.sum(axis=0), 200)
    yield Figure("nn/mlp.py, product with ones for `sum`", "1.5x to 4x", ratio(sums))
    large = Ours(mlp_problem((66, 512, 512, 512, 2), 256, 5)).run
    yield Figure("nn/adam.py, BLOCK", "1x to 1.06x", ratio(patched(large, adam, "BLOCK", 10**9)))
    step = Ours(ddpm_problem(2, 32, 32, 60)).run
    uncached = patched(step, features, "_time_frequencies", features._time_frequencies.__wrapped__)
    yield Figure("nn/features.py, @cache", "1.03x to 1.1x", ratio(uncached))
    flip = (fast_silu, "TANH_IS_FAST", not fast_silu.TANH_IS_FAST)
    steps = [Ours(mlp_problem((66, w, w, w, 2), b, 20)).run for w, b in ((64, 64), (128, 256), (256, 256))]
    chains = [sampling.ours(sampling.chain("DDIM", *size)) for size in ((2, 128, 1000), (64, 256, 500))]
    for name, quoted, works in ("training", "1.02x to 1.1x", steps), ("sampling", "1.05x to 1.2x", chains):
        flipped = [patched(work, *flip) for work in works]
        yield Figure(f"fast/silu.py, the slower sigmoid: {name}", quoted, ratio(*flipped))


# --- likelihood, EM --------------------------------------------------------------------------------------------------


def numerical_figures() -> Iterator[Figure]:
    z = RNG.uniform(0, 1, 100_000)
    out = np.empty_like(z)
    normal, subnormal, far = (partial(np.exp, z - shift, out=out) for shift in (600.0, 740.0, 2000.0))
    yield Figure("likelihood.py, fast/em_statistics.py, subnormal exp", "10x to 50x", ratio((normal, subnormal)))
    yield Figure("likelihood.py, exp far below", "8x", ratio((normal, far)))
    law, ones = RNG.random((8192, 17), dtype=np.float32), np.ones(17, dtype=np.float32)
    sums = repeated(lambda: law @ ones, 20), repeated(lambda: law.sum(axis=1), 20)
    yield Figure("likelihood.py, product with ones for `sum`, 17 terms", "8x", ratio(sums))
    problems = [data(100_000, 2, 10), data(20_000, 8, 10), data(20_000, 8, 50)]
    iterations = [partial(em_statistics.expected_statistics, *problem) for problem in problems]
    smaller = [patched(work, em_statistics, "BLOCK", block) for work in iterations for block in (8192, 32_768)]
    yield Figure("fast/em_statistics.py, BLOCK, smaller ones", "1.1x to 1.9x", ratio(*smaller))
    sums_of = [
        (partial(em_statistics.quadratic_sums, *problem), partial(em_statistics.whitened_sums, *problem))
        for problem in problems
    ]
    yield Figure("fast/em_statistics.py, whitened for quadratic features", "1.5x to 5x", ratio(*sums_of))
    block_by_block = [
        (partial(em_statistics.whitened_sums, *problem), partial(em_statistics.statistics_of_blocks, *problem))
        for problem in (*problems, data(10_000, 64, 10))
    ]
    yield Figure("fast/em_statistics.py, blocks for whitened", "1.8x to 5x", ratio(*block_by_block))
    yield Figure("fast/em_statistics.py, errors over `condition`", "at most 7e-16", lambda _: f"{worst_error():.1e}")
    yield Figure("fast/em_statistics.py, one factor's square: D = 64", "0.75x", ratio(squares(64)))
    yield Figure("fast/em_statistics.py, one factor's square: D = 2, 8", "1.1x to 1.2x", ratio(squares(2), squares(8)))
    covariances = np.stack([np.cov(RNG.standard_normal((16, 40))) for _ in range(10)])
    roots = partial(np.linalg.cholesky, covariances), partial(np.linalg.eigh, covariances)
    yield Figure("em/gaussian.py, eigenvalues for Cholesky", "18x", ratio(roots))


def squares(D: int) -> tuple[Work, Work]:
    """Σ q y yᵀ as a product of two arrays, and as the product z zᵀ of one array."""
    y, q = RNG.standard_normal((D + 1, 2000)), RNG.random(2000)

    def one_factor() -> Any:
        z = y * np.sqrt(q)
        return z @ z.T

    return repeated(lambda: (y * q) @ y.T, 20), repeated(one_factor, 20)


def worst_error() -> float:
    """Largest error of a mean from quadratic features, in units of the component's width, over `condition`."""
    worst = 0.0
    for D in (1, 2, 8, 32, 64):
        for away in (1.0, 30.0, 1e3):
            x, start = data(2000, D, 3)
            mixture = Mixture(start.weights, start.means + away * np.arange(3)[:, None], start.covariances)
            x = np.concatenate([x + away * k for k in range(3)])
            quadratic, whitened = (
                em_statistics.quadratic_sums(x, mixture)[0],
                em_statistics.whitened_sums(x, mixture)[0],
            )
            seen = quadratic[:, D, D] > 1e-3
            by_quadratic = mixture.mean() + quadratic[seen, :D, D] / quadratic[seen, D, D, None]
            factors = np.linalg.cholesky(mixture.covariances[seen])
            shift = whitened[seen, :D, D] / whitened[seen, D, D, None]
            gap = by_quadratic - (mixture.means[seen] + (factors @ shift[:, :, None])[:, :, 0])
            own = np.linalg.solve(factors, gap[:, :, None])
            worst = max(worst, float(np.abs(own).max()) / em_statistics.condition(mixture))
    return worst


# --- VAE, grading, the rest -------------------------------------------------------------------------------------------


def variance_left(_: int) -> str:
    """s² above its optimum E‖x − x̂‖²/D after 2000 steps on the digits, if log s² has the networks' learning rate."""
    x = datasets.dequantize(datasets.digits("train").images, rng=0)
    with replaced(vae, "LOG_VARIANCE_RATE", 1.0):
        model = VAE(8, (128, 64), n_steps=2000, standardize="global", rng=0).fit(x)
    mean, variance = model.encode(x)
    z = mean + np.sqrt(variance) * np.random.default_rng(0).standard_normal(mean.shape)
    return f"{float(model.decoder_variance_[0]) / float(((x - model.decode(z)) ** 2).mean()) - 1:.0%}"


def full_table(axis: np.ndarray, centres: np.ndarray, std: float) -> np.ndarray:
    """`grading.chain._kernel` without the window."""
    return np.exp(-0.5 * ((axis - centres[:, None]) / std) ** 2) / ((2 * np.pi) ** 0.5 * std)


THREADS = """
import time, numpy as np
q, z = np.random.default_rng(0).random((2, {n}))
def seconds(work):
    began = time.perf_counter()
    for _ in range(300):
        work()
    return time.perf_counter() - began
dot, total = (lambda: q @ z), (lambda: (q * z).sum())
print(sorted(seconds(dot) / seconds(total) for _ in range(15))[7])
"""


def on_all_cores(code: str, **environment: str) -> str:
    """Output of a fresh interpreter on all cores, whose libraries choose the number of their threads."""
    free = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    cores = range(os.cpu_count() or 1)
    unpinned = (lambda: os.sched_setaffinity(0, cores)) if hasattr(os, "sched_setaffinity") else None
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, env=free | environment, preexec_fn=unpinned, capture_output=True, text=True, check=True
    ).stdout


def woken_threads(rounds: int) -> str:
    """Wall time of dot products over that of sums, in a process whose BLAS may use all cores."""
    found = [f"{float(on_all_cores(THREADS.format(n=n))):.2f}x" for n in (5_000, 20_000, 100_000)]
    return f"{', '.join(found)} on {os.cpu_count()} cores"


STEPS_OF_WIDTH = """
import time
from benchmarks.training import Ours, mlp_problem
run = Ours(mlp_problem((66, {width}, {width}, {width}, 2), 256, 20)).run
run()
began = time.perf_counter()
for _ in range(5):
    run()
print(time.perf_counter() - began)
"""


def second_thread(rounds: int) -> str:
    """Wall time of training steps with two threads of BLAS over that with one; the other core must be idle."""
    found = []
    for width in (128, 256, 512):
        code = STEPS_OF_WIDTH.format(width=width)
        seconds = [[float(on_all_cores(code, OPENBLAS_NUM_THREADS=n)) for n in "12"] for _ in range(rounds)]
        found.append(f"{np.median([two / one for one, two in seconds]):.2f}x")
    return ", ".join(found)


def imports(rounds: int) -> str:
    """CPU seconds of the import with scipy.special over those without it."""
    empty = min(child("pass")[0] for _ in range(rounds))
    plain, more = (
        np.median([child(code)[0] for _ in range(rounds)]) - empty
        for code in ("import scratchgen", "import scratchgen, scipy.special")
    )
    return f"{more / plain:.1f}x"


def flow_error(_: int) -> str:
    """Error of log p along the flow of a Gaussian, over rtol."""
    law, sde, rtol = Mixture([1.0], [[0.5, -1.0]], [[[0.4, 0.1], [0.1, 0.2]]]), VP(), 1e-6
    x = law.sample(50, rng=0)

    def score_and_divergence(x: np.ndarray, t: float) -> tuple[np.ndarray, np.ndarray]:
        p_t = law.diffuse(*sde.level(t))
        return p_t.score(x), np.trace(p_t.score_jacobian(x), axis1=1, axis2=2)

    tight, loose = (probability_flow_log_prob(sde, score_and_divergence, x, rtol=r) for r in (1e-12, rtol))
    return f"{np.abs(loose - tight).max() / rtol:.2f}"


def quadrature_errors(_: int) -> str:
    """Errors of E‖∇log p‖² for two components five standard deviations apart, at two spacings."""
    law = Mixture([0.5, 0.5], [[0.0], [5.0]], np.ones((2, 1, 1)))

    def information(spacing: float) -> float:
        points, weights = law.quadrature(spacing)
        return float(weights @ (np.exp(law.log_prob(points)) * (law.score(points) ** 2).sum(axis=1)))

    exact = information(0.06)
    return ", ".join(f"{abs(information(spacing) - exact):.0e}" for spacing in (0.5, 0.15))


def other_figures() -> Iterator[Figure]:
    output = RNG.standard_normal((256, 16), dtype=np.float32)
    view, copy = output[:, :8], output[:, :8].copy()
    sums = repeated(lambda: copy.sum(axis=1), 100), repeated(lambda: view.sum(axis=1), 100)
    yield Figure("vae/training.py, sums over rows of views", "1.2x", ratio(sums))
    yield Figure("vae/training.py, LOG_VARIANCE_RATE = 1: s² above its optimum", "28%", variance_left)
    axis, centres = np.linspace(-8, 8, 1200), RNG.uniform(-3, 3, 3000)
    step = axis[1] - axis[0]
    nearest, half = np.rint((centres - axis[0]) / step).astype(np.intp), int(np.ceil(chain.REACH * 0.05 / step))
    tables = partial(chain._kernel, axis, centres, 0.05, nearest, half), partial(full_table, axis, centres, 0.05)
    yield Figure("grading/chain.py, full tables of kernels", "10x", ratio(tables))
    yield Figure("grading/one_latent.py, dot products that wake threads", "5x for 100,000 numbers", woken_threads)
    yield Figure("RESULTS.md, a second BLAS thread, widths 128, 256, 512", "0.94x, 0.75x, 0.75x", second_thread)
    yield Figure("`import scratchgen` with scipy.special", "2.2x", imports)
    yield Figure("sde/flow.py, errors of log p over rtol", "0.1", flow_error)
    yield Figure("mixture.py, errors of quadrature at spacings 0.5, 0.15", "1e-04, 1e-11", quadrature_errors)
    table = NoiseSchedule.linear(1000).variances - np.linspace(1e-4, 0.02, 1000)
    yield Figure("schedule.py, linear(1000) and Ho's table", "1%", lambda _: f"{np.abs(table).max() / 0.02:.1%}")


def main() -> None:
    """Print one Markdown table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ablations", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="only figures whose place or quoted text contains TEXT"
    )
    options = parser.parse_args()
    pin_to_one_core()
    print("| where | quoted | measured here |\n|---|---|---|")
    for figure in (*network_figures(), *numerical_figures(), *other_figures()):
        if options.only in figure.where:
            print(f"| {figure.where} | {figure.quoted} | {figure.measure(options.rounds)} |", flush=True)


if __name__ == "__main__":
    main()
