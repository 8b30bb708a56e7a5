"""Values of `arguments` that a function accepts, each with the reason."""

import re

BROADCASTS = "the docstring says that the arrays broadcast"
ANY_SHAPE = "a function of every element, for any shape"
IN_PLACE = "steps change the array in place, so that no other array can stand for it"
UNUSED = "this element is not used, as the docstring says"
FORMULA = "a formula for every t; samplers, losses and models check the times"
CAUGHT = "`check_step` raises ArithmeticError in the loop, before the parameters change"
ROWS = "one number for each row or column is documented, and the list has as many"
FLOORS = "the function raises eigenvalues below the floor to the floor"
DENSITIES = "unnormalised tables are used, such as a joint p(x, z) in place of q"

# (function, argument, bad value, reason), the first three as regular expressions
ALLOWED = [
    ("logsumexp|softmax|quiet_log|levels_of|bits_per_dim|importance_weighted_bound|TimeSampler.time_at", ".*",
     "further axis", ANY_SHAPE),
    ("quiet_log", "a", "negative", "NaN, as in NumPy; the logarithm of a negative number"),
    ("cross_entropy_discrete|kl_discrete", "p|q", "X = 1", BROADCASTS),
    ("cross_entropy_discrete|kl_discrete", "q", "sum 2", DENSITIES),
    ("elbo_split_table|joint_kl_table|vae_loss_table", "decoder|prior", "sum 2", DENSITIES),
    ("gaussian_log_prob|log_bin_mass.*|kl_diag_standard|reparameterise|reconstruction_error", ".*",
     "[NDk] = 1|further axis", BROADCASTS),
    ("log_bin_mass.*|edm_coefficients", "std|sigma", "list", ANY_SHAPE),
    ("linear_gaussian_.*", "noise_variance", "list", ROWS),
    ("linear_gaussian_elbo", "q_cov", "asymmetric", "a 1 x 1 matrix is symmetric"),
    ("factor_analysis_em_step", "noise_floor", "list", ROWS),
    ("reconstruction_error|vae_loss.*|log_importance_weight|OneLatent", ".*log_variance", "list", ROWS),
    ("reconstruction_error|vae_loss.*|log_importance_weight", "decoder_log_variance", "inf",
     "the message names std = exp(½ log s²), which training sees as well"),
    ("dequantize.*", "levels", "negative|further axis", "whole numbers of any sign and shape"),
    ("NoiseSchedule.log_signal_ratio|eps_coefficients|posterior_coefficients", "s|t", "\\(N, 1\\)|three steps",
     "the result has the shape of s and t"),
    ("covariance_maximum|floor_eigenvalues|floored_mixture", "spread|covariances", "not positive", FLOORS),
    ("m_step.*|relaxed_mixture|covariance_maximum|floor_eigenvalues|floored_mixture|starting_mixture",
     "(covariance_)?floor", "list", ROWS),
    ("reverse_variance.*|negative_elbo|ddpm.train", "variance|noise_loss|weights", "NaN|inf", UNUSED),
    ("q_path|bound_terms.*", "noise", "iterator of rows", "an iterator of the noise of each step is documented"),
    ("reverse_log_prob", "path", "NaN|inf", "with a decoder x_0 is not used"),
    ("dequantisation_cost", "k", "negative", "whole numbers of any sign"),
    ("ddpm.train_step|score_step|sliced_step", "weight", "NaN|inf", CAUGHT),
    ("draw_directions", "like", "NaN|inf", "only shape and dtype are used"),
    ("random_batch", "x", "NaN|inf", "rows that are not drawn are not looked at; `train` looks at all"),
    ("(VP|SubVP|VE)\\.(log_scale|std|rate|diffusion|marginal|log_snr|beta|beta_integral)", "t",
     "beyond the horizon|some beyond|negative|NaN", FORMULA),
    ("(VP|SubVP|VE).time_at", "log_snr", "two numbers|\\(N, D\\)", ANY_SHAPE),
    ("euler_std|euler_step", "s", "negative", "the next step, and `as_times` for a grid, refuse it"),
    ("path_coefficients", ".*", "two numbers|\\(N, D\\)", BROADCASTS),
    ("sde_log_prob_bound", "noise_weights", "None", "equal weights"),
    ("vae.elbo", "noise", "N = 1", "one draw for all examples is documented, (n, 1, k)"),
    ("(Residual)?MLP.backward|Adam.step|EMA.update", "grad|gradient|parameters", "NaN|inf", CAUGHT),
    ("testing.as_spd", "A", "further axis", "a stack of matrices is documented"),
    ("vae.train", "draw", ".*", "a visible loop; Python names the missing part of the tuple"),
    ("check_step", ".*", ".*", "the loops pass their own numbers; types without a dot product get a named error"),
    ("sde.predict_score", "t", "one element", "equal, but an array of times gives the dtype of x, as for (N,)"),
    ("ddpm.train_step", "network|t|weight", ".*", "Algorithm 1 as the book shows it; the loop `train` checks"),
    ("train_on_synthetic", "labels|labels_y", "too large", "the classes are those of both arrays together"),
    ("drop_labels", "labels", "too large", "the network knows the number of classes"),
    (".*", "verbose", "True|np.True_", "False, True or a number are documented"),
    ("Adam|EMA", "parameters|average", "nested lists|read-only|subclass|float16 array", IN_PLACE),
    ("logsumexp", "a", "no columns|nothing", "the logarithm of an empty sum is −inf"),
    ("DDPM.*.respace", "steps", "one element", "a list of the steps to keep"),
    ("reconstruction_error|vae_loss.*|log_importance_weight|sde.reconstruction_loss", "x_hat|noise", "inf",
     "the limit: the outermost level has all the probability"),
]  # fmt: skip


def allowed(function, argument, what):
    """Whether the function may accept this value, or raise another error."""
    given = function, argument, what
    return any(all(map(re.fullmatch, row[:3], given)) for row in ALLOWED)
