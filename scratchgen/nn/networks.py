"""The networks inside a noise predictor, by name: an MLP or a ResidualMLP, with or without a picture."""

from collections.abc import Sequence

from scratchgen.nn.flat import total
from scratchgen.nn.mlp import MLP, n_parameters
from scratchgen.nn.picture_network import SIDE, PictureNetwork, PixelNetwork, Trunk, trunk_sizes
from scratchgen.nn.residual import ResidualMLP
from scratchgen.validation import RNG, DTypeLike, as_choice, as_generator, as_number, as_widths

NETWORKS = ("mlp", "residual")
Network = MLP | ResidualMLP | PictureNetwork
Picture = tuple[int, int]
N_CHANNELS = 3  # pictures among the inputs: the noisy picture and two denoised ones


def check_choices(network: str, hidden: Sequence[int], dropout: float, picture: Picture | None) -> None:
    """Raise TypeError or ValueError unless the arguments go together."""
    if as_choice(network, "network", NETWORKS) == "residual":
        ResidualMLP.shapes((1, *hidden, 1))
    if as_number(dropout, "dropout", low=0.0, high=1 - 1e-6) and network == "mlp":
        raise ValueError(f"dropout must be 0 for network='mlp', got {dropout}; pass network='residual'")
    if picture is not None and len(as_widths(picture, "picture")) != 2:
        raise ValueError(f"picture must be the height and the width, or None, got {picture!r:.60}; pass (8, 8)")


def numbers_a_pixel(picture: Picture | None) -> int:
    """Numbers in a row of the largest array of a `PictureNetwork`, for every pixel; 1 without a picture."""
    return 1 if picture is None else N_CHANNELS * SIDE**2


def new_trunk(sizes: Sequence[int], n_told: int, network: str, dropout: float, rng: RNG, dtype: DTypeLike) -> Trunk:
    """Create an MLP or a ResidualMLP of these widths, whose output is 0; the last n_told inputs are the told ones."""
    if network == "mlp":
        return MLP(sizes, rng=rng, dtype=dtype, zero_last=True)
    return ResidualMLP(sizes, n_told, dropout, rng, dtype)


def new_network(
    sizes: Sequence[int],
    n_told: int,
    network: str,
    dropout: float,
    picture: Picture | None,
    rng: RNG,
    dtype: DTypeLike,
) -> Network:
    """Create a trunk, or with a picture a PictureNetwork; arguments as for `new_trunk`."""
    if picture is None:
        return new_trunk(sizes, n_told, network, dropout, rng, dtype)
    rng = as_generator(rng)
    trunk = new_trunk(trunk_sizes(sizes, picture), n_told, network, dropout, rng, dtype)
    return PictureNetwork(trunk, sizes[-1], n_told, picture, rng, dtype)


def count_parameters(sizes: Sequence[int], n_told: int, network: str, picture: Picture | None) -> int:
    """Length of `parameters` of a `new_network` with these arguments."""
    trunk = sizes if picture is None else trunk_sizes(sizes, picture)
    n = n_parameters(trunk) if network == "mlp" else total(ResidualMLP.shapes(trunk, n_told))
    if picture is None:
        return n
    n_outputs = sizes[-1] // (picture[0] * picture[1])
    return n + total(PixelNetwork.shapes(picture, N_CHANNELS, n_told, n_outputs))
