"""The linear VAE, whose optimum is PPCA's: the training of a VAE, graded by a closed form."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from scratchgen.models.estimator import Progress
from scratchgen.models.vae import GaussianVAE
from scratchgen.quadrature import sigma_points
from scratchgen.vae import elbo, sigma_batch
from scratchgen.validation import RNG, Array, ArrayLike
from scratchgen.variational import linear_gaussian_log_prob


@dataclass(eq=False, repr=False)
class LinearVAE(GaussianVAE):
    """A VAE with affine encoder and decoder, trained by the same code on exact expectations.

    The loss is quadratic in z, so that the 2k `sigma_points` in place of random ξ give (13) itself.  The best
    attainable mean ELBO is the maximum likelihood of PPCA, and with one s² there is no other maximum (Lucas et al.
    2019); `scratchgen.grading.grade_linear_vae` compares a fitted model with that maximum.

    Parameters
    ----------
    n_latents : int
        k.
    decoder_variance : float, None or "diag"
        s², in the model's units squared; None learns one, whose optimum is PPCA's σ²; "diag" one a dimension, and the
        optimum is that of `FactorAnalysis`, but without its floor.  A given s² switches off every latent whose
        eigenvalue does not exceed kl_weight · s²: posterior collapse, exactly predicted.
    kl_weight : float
        As for `VAE`.  With a given s², training equals that with decoder variance kl_weight · s² and weight 1.
    n_steps, learning_rate : int, float
        Of Adam over all of x, whose rate falls to 0 along half a cosine.
    standardize : bool
        Work on (x − mean)/scale instead of x; see `StandardizedEstimator`.
    rng : int, Generator or None
        Of initial weights.

    Attributes
    ----------
    components_ : (D, k)
        W of p_θ(x | z) = N(W z + μ, s² I), in the data's units.
    decoder_mean_ : (D,)
        μ.
    decoder_variance_, losses_, network_
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

    n_latents: int = 2
    decoder_variance: float | str | None = None
    kl_weight: float = 1.0
    n_steps: int = 3000
    learning_rate: float = 1e-2
    standardize: bool = True
    rng: RNG = None

    # Fixed values: without annotations the dataclass makes no fields of them.
    hidden = decoder_hidden = ()
    activation = "identity"
    n_levels = None
    dtype = "float64"

    def train(self, x: ArrayLike) -> Iterator[Progress]:
        """Maximise the exact ELBO by Adam on all of x; yields after every step with −ELBO, nats an example."""
        return self._train(x, partial(sigma_batch, n_latents=self.n_latents))

    def log_prob(self, x: ArrayLike) -> Array:
        """log p_θ(x) = log N(x; μ, W Wᵀ + s² I), (N,), nats, exact."""
        x = self._as_fitted_samples(x)
        return linear_gaussian_log_prob(x, self.components_, self.decoder_mean_, self.decoder_variance_)

    def elbo(self, x: ArrayLike, rng: RNG = None, n_draws: int = 16) -> Array:
        """ELBO of every x, (N,), nats, exact: neither `rng` nor `n_draws` is needed."""
        data = self._as_data(x)
        return elbo(self.network_, data, sigma_points(self.network_.n_latents)[:, None]) - self._log_volume

    @property
    def components_(self) -> Array:
        """W, (D, k), in the data's units."""
        self._require_fitted()
        return (self.network_.decoder.weights[0] * self.scale_).T

    @property
    def decoder_mean_(self) -> Array:
        """μ, (D,), in the data's units."""
        self._require_fitted()
        return self.to_data(self.network_.decoder.biases[0])
