"""LinearVAE: a VAE without hidden layers, for which the optimum is known in closed form from PPCA."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

from scratchgen.blocks import by_blocks
from scratchgen.models.estimator import FAR, InformationCriteria, Progress, finite
from scratchgen.models.linear_gaussian import n_parameters
from scratchgen.models.vae import GaussianVAE
from scratchgen.quadrature import sigma_points
from scratchgen.vae import Draw, elbo, sigma_batch
from scratchgen.validation import RNG, Array, ArrayLike, as_count, as_generator
from scratchgen.variational import linear_gaussian_log_prob


@dataclass(eq=False, repr=False)
class LinearVAE(InformationCriteria, GaussianVAE):
    """A VAE with affine encoder and decoder, trained on exact expectations over z.

    The loss (14) is quadratic in z.  Its mean over the 2k `sigma_points` in place of random ξ therefore is (13).  The
    largest mean ELBO is the maximum of the mean log-likelihood of PPCA.  With one s² the ELBO has no other local
    maximum (Lucas et al. 2019).  `scratchgen.grading.grade_linear_vae` compares a fitted model with the optimum.

    Parameters
    ----------
    n_latents : int
        k.
    decoder_variance : float, None or "diag"
        s² in squared units of the model.  None learns one s², with PPCA's σ² as optimum.  "diag" learns one s² a
        dimension, with the optimum of `FactorAnalysis` without noise floor.  For a given s² the optimum does not use
        directions with eigenvalues up to kl_weight · s² (posterior collapse).
    kl_weight : float
        As for `VAE`.  For a given s² the optimum is that of decoder variance kl_weight · s² and weight 1.
    n_steps : int, optional
        Number of gradient steps; every step uses all of x.  With the default, 3000, the mean ELBO on the penguins comes
        within 2e-10 nats of PPCA's maximum (the tour's row "linear: ELBO").  None takes the number of `VAE`.
    learning_rate : float
        Initial learning rate of Adam, which falls to 0 along half a cosine.
    standardize : bool or "global"
        Work on (x − mean)/scale instead of x.  True and "global" both mean one scale for all columns: s² is one number
        in the units of PPCA's σ², so that the optimum is PPCA's on the same x.  With a scale for every column it would
        be the optimum of another problem.
    early_stopping, validation_fraction, n_iter_no_change, verbose
        As for `DDPM`.
    rng : int, Generator or None
        Source of initial weights.

    Attributes
    ----------
    components_ : (D, k)
        W of p_θ(x | z) = N(W z + μ, s² I), in units of the data.
    decoder_mean_ : (D,)
        μ.
    decoder_variance_ : float, or (D,) for "diag"
        s² in squared units of the data.
    n_steps_, losses_, history_, network_
        As for `VAE`.

    Examples
    --------
    >>> import numpy as np
    >>> from scratchgen import PPCA
    >>> x = np.random.default_rng(0).standard_normal((200, 3)) * [3.0, 1.0, 1.0]
    >>> model = LinearVAE(1, rng=0).fit(x)
    >>> bool(abs(model.elbo(x).mean() - PPCA(1).fit(x).score(x)) < 1e-9)
    True
    >>> bool((model.log_prob(x) >= model.elbo(x) - 1e-12).all())
    True
    """

    learning_rate: float = field(default=1e-2, kw_only=True)
    _one_scale: ClassVar[bool] = True

    def train(self, x: ArrayLike, *, resume: bool = False) -> Iterator[Progress]:
        """Maximise the exact ELBO on x, (N, D), by Adam; `resume` goes on with a training that has not ended.

        Yields
        ------
        progress : Progress
            After every step, with the mean of −ELBO (for `kl_weight` 1), nats, in units of the data.

        Raises
        ------
        TypeError, ValueError
            If x or a constructor argument is wrong.
        ArithmeticError
            If the loss or the gradient becomes NaN or infinite, or the parameters overflow.  The model then keeps the
            last good parameters, or, if the first step fails, the fit from before.
        """
        return self._follow(partial(self._loop, x), resume)

    def _draw(self, x: Array) -> Draw:
        return partial(sigma_batch, n_latents=self.n_latents)

    def log_prob(self, x: ArrayLike) -> Array:
        """log p_θ(x) = log N(x; μ, W Wᵀ + s² I), (N,), nats, exact, for x (N, D)."""
        x = self._as_fitted_samples(x)
        law = self.components_, self.decoder_mean_, self.decoder_variance_
        return by_blocks(lambda rows: linear_gaussian_log_prob(x[rows], *law), len(x), self._numbers_a_row())

    @property
    def n_parameters_(self) -> int:
        """Number of free parameters of p_θ(x): D means, W up to rotation, and the learned s²."""
        return n_parameters(self.components_, len(self.log_variance_) if self._starting_variance()[0] else 0)

    @finite(FAR)
    def elbo(self, x: ArrayLike, rng: RNG = None, n_draws: int = 16) -> Array:
        """Exact ELBO, (N,), nats, for x (N, D); `rng` and `n_draws` are not used."""
        as_generator(rng)
        as_count(n_draws, "n_draws")
        points = sigma_points(self.network_.n_latents)[:, None]

        def of_block(data: Array, _: slice) -> Array:
            return elbo(self.network_, self._as_inputs(data), points) - self._log_volume

        return self._by_blocks(of_block, x, self._numbers_a_row())

    @property
    def decoder_variance_(self) -> float | Array:  # type: ignore[override]  # one number, as PPCA's noise_variance_
        """s² in squared units of the data: a number, or (D,) for decoder_variance="diag"."""
        variances = super().decoder_variance_
        return float(variances[0]) if len(self.log_variance_) == 1 else variances

    @property
    def components_(self) -> Array:
        """W, (D, k), in units of the data."""
        return (self.network_.decoder.weights[0] * self.scale_).T

    @property
    def decoder_mean_(self) -> Array:
        """μ, (D,), in units of the data."""
        return self.to_data(self.network_.decoder.biases[0][None])[0]
