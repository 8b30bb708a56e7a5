"""Both sides of (34) for a fitted ScoreSDE on data of a known law."""

from typing import NamedTuple

from scratchgen.grading.chain import euler_density
from scratchgen.grading.noise import grade_kl_bound
from scratchgen.law import Law
from scratchgen.models.score_sde import ScoreSDE
from scratchgen.sde import reverse_times
from scratchgen.validation import as_count, as_number, check_type

FINEST = 0.05  # detail of the times of a sampler, in the model's units, if the law has finer details


class ScoreSDEGrade(NamedTuple):
    """Both sides of (34), nats; the left side is below the right but for the finite steps of the sampler."""

    bound: float  # ½ ∫ g² E‖∇log p_t − s_θ‖² dt + KL(p_T‖π)
    kl: float  # KL(p_{t_min}‖p_{θ, t_min}) of Euler-Maruyama steps


def grade_score_sde(model: ScoreSDE, law: Law, n_steps: int = 100, rtol: float = 3e-3) -> ScoreSDEGrade:
    """Both sides of (34) at the model's t_min: the bound, and the exact KL of its reverse SDE in finitely many steps.

    The KL is the same in the units of the data and in those of the model.

    Parameters
    ----------
    model : ScoreSDE
        Fitted to data in one or two dimensions, without `n_levels`.
    law : Law
        The law p of the data, in their units, such as `datasets.two_moons()`.
    n_steps : int
        Number of Euler-Maruyama steps, at the `reverse_times` for the details of p.
    rtol : float
        Relative tolerance of the integral over time.

    Raises
    ------
    TypeError, ValueError
        If model is no fitted ScoreSDE of real numbers, or law has another dimension.
    ArithmeticError
        As for `euler_density` and `grade_kl_bound`.
    """
    check_type(model, ScoreSDE, "model", "pass a fitted ScoreSDE")
    check_type(law, Law, "law", "pass the law of the data")
    n_steps, rtol = as_count(n_steps, "n_steps"), as_number(rtol, "rtol", low=0.0, open_low=True)
    if model.n_levels is not None:
        raise ValueError("model must have n_levels=None, since whole numbers have no density; use its elbo")
    if law.dimension != model.n_features_in_:
        raise ValueError(f"law must have {model.n_features_in_} dimensions, as model has, got {law.dimension}")
    sde, t_min = model.sde_, model.t_min
    data = law.standardized(model.mean_, model.scale_)
    bound = grade_kl_bound(sde, model.predict_score, data, t_min, rtol).bound
    start = data.diffuse(*sde.level(t_min))
    times = reverse_times(sde, n_steps, t_min, max(start.detail, FINEST))
    spacing = min(start.detail, FINEST)
    density = euler_density(sde, model.predict_score, times, data.dimension, final_spacing=spacing)
    return ScoreSDEGrade(bound, density.kl_from(start))
