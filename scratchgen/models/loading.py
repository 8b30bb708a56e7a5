"""`load`: a model of any class from its file."""

from __future__ import annotations

import os

from scratchgen.models.categorical_mixture import CategoricalMixture
from scratchgen.models.ddpm import DDPM
from scratchgen.models.estimator import Estimator
from scratchgen.models.files import ModelFileError, reading
from scratchgen.models.gaussian_mixture import GaussianMixture
from scratchgen.models.linear_gaussian import PPCA, FactorAnalysis
from scratchgen.models.linear_vae import LinearVAE
from scratchgen.models.score_sde import ScoreSDE
from scratchgen.models.vae import VAE

MODELS: dict[str, type[Estimator]] = {
    cls.__name__: cls
    for cls in (GaussianMixture, PPCA, FactorAnalysis, CategoricalMixture, VAE, LinearVAE, DDPM, ScoreSDE)
}


def load(path: str | os.PathLike[str]) -> Estimator:
    """Read a model that `save` wrote, of whichever class of the package it is, or a trained model of the package.

    Nothing in the file is trusted: the class is looked up by its name in a fixed table, and its `load` checks the rest.

    Parameters
    ----------
    path : str or pathlib.Path
        A file, or the name of a trained model of the package, such as "digits-tables"; `scratchgen sample --help` lists
        them.  They are models of `datasets.digits("train")`.  A file of such a name comes first.

    Returns
    -------
    model : GaussianMixture, PPCA, FactorAnalysis, CategoricalMixture, VAE, LinearVAE, DDPM or ScoreSDE

    Raises
    ------
    TypeError
        If `path` is neither text nor a Path.
    FileNotFoundError
        If there is no such file and no such model.
    ModelFileError
        If the file is damaged or holds no model of the package, or no fit could have given its numbers.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from scratchgen import PPCA, load
    >>> x = np.random.default_rng(0).standard_normal((50, 3))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     PPCA(2).fit(x).save(os.path.join(folder, "model.npz"))
    ...     load(os.path.join(folder, "model.npz"))
    PPCA(n_components=2)
    >>> load("digits-tables").sample(2, rng=0).shape
    (2, 64)
    """
    with reading(path) as archive:
        if archive.model not in MODELS:
            raise ModelFileError(f"it holds a {archive.model!r:.60}, and the models are {', '.join(MODELS)}")
        return MODELS[archive.model]._from_archive(archive)
