"""The table of the README: a few cases, with all libraries in one row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.timing import LIMIT, Timing

CASES = (
    "MLP step, width 64, batch 64",
    "MLP step, width 128, batch 256",
    "MLP step, width 256, batch 256",
    "MLP step, width 512, batch 256",
    "DDPM step, 2-D, width 128, batch 256",
    "DDPM step, 64-D, width 256, batch 256",
    "VAE step, 64-D, 2 latents, batch 128",
    "VAE step, 64-D, 16 latents, batch 512",
    "ancestral, 2-D, width 128, 10,000 chains",
    "ancestral, 64-D, width 256, 2,000 chains",
    "Euler-Maruyama, 2-D, width 128, 10,000 chains",
    "EM, full, N = 1,000,000, D = 2, K = 10",
    "EM, full, N = 100,000, D = 8, K = 10",
    "EM, full, N = 10,000, D = 64, K = 10",
    "EM, diag, N = 100,000, D = 2, K = 10",
)
DOES_NOT_APPLY = "–"
COLUMNS = {  # title: sides
    "torch": ("torch, eager", "torch.inference_mode"),
    "torch.compile": ("torch.compile",),
    "jax.jit": ("jax.jit",),
    "JAX, whole loop": ("jax.lax.scan", "jax.lax.fori_loop"),
    "diffusers": ("diffusers loop",),
    "scikit-learn": ("scikit-learn",),
}


def report(record: dict[str, Any]) -> Iterator[str]:
    """Lines of Markdown: medians of time(peer)/time(ours), and of time(ours)/time(bare matrix products).

    A cell without a number gives the reason: "missing" if the library is not installed, "disagrees" if its results
    differ from ours, a dash if it cannot do this work.
    """
    yield f"| one step, iteration or sampler's step | ms | {' | '.join(COLUMNS)} | over its products |"
    yield f"|---|{'---|' * (len(COLUMNS) + 2)}"
    timings = {timing.name: timing for suite in ("training", "sampling", "em") for timing in record.get(suite, [])}
    for name in CASES:
        if name in timings:
            timing = timings[name]
            cells = [_ratio(timing, sides) for sides in COLUMNS.values()]
            limit = f"{timing.ratio('scratchgen', LIMIT)[0]:.2f}" if LIMIT in timing.seconds else DOES_NOT_APPLY
            yield f"| {name} | {1e3 * timing.median('scratchgen'):.3g} | {' | '.join(cells)} | {limit} |"


def _ratio(timing: Timing, sides: tuple[str, ...]) -> str:
    """The median of the side that was timed, or the reason why there is none."""
    for side in sides:
        if side in timing.seconds:
            return f"{timing.ratio(side)[0]:.2f}"
        if side in timing.missing or side in timing.disagreeing:
            return "missing" if side in timing.missing else "disagrees"
    return DOES_NOT_APPLY
