"""A trunk for the whole picture, and a small network shared over its pixels, with hand-written derivatives.

    y_d = F_d(x) + H_d σ(W_2 σ(W_1 P_d + V c_d + U e + p_d) + b)

F is the trunk: an MLP or a ResidualMLP.  P_d are the 5 × 5 neighbours of pixel d in every channel of x, with zeros
outside the picture; c_d are 8 further outputs of the trunk, the context of the pixel; e are the told inputs.  p_d and
H_d belong to the pixel.  All other weights are shared: a picture of 64 pixels trains them with 64 examples.
"""

from collections.abc import Callable, Sequence

import numpy as np

from scratchgen.fast.silu import silu_and_slope
from scratchgen.nn.flat import FlatParameters, Shapes
from scratchgen.nn.mlp import MLP, Backward
from scratchgen.nn.residual import ResidualMLP
from scratchgen.validation import RNG, Array, DTypeLike, as_generator

N_CONTEXT = 8  # outputs of the trunk for a pixel that enter the shared network
REACH = 2  # pixels on every side of a pixel that the shared network sees
SIDE = 2 * REACH + 1
WIDTH = 32  # of the two hidden layers of the shared network

Trunk = MLP | ResidualMLP


class PixelNetwork(FlatParameters):
    """The shared network; inside, arrays are (D, features, N), with the examples on the last axis.

    Parameters
    ----------
    picture : (int, int)
        Height and width; D is their product.
    n_channels, n_told, n_outputs : int
        Channels of the input and outputs, both for every pixel, and told inputs.
    rng, dtype
        As for `MLP`; the heads H_d are 0.
    """

    def __init__(
        self, picture: tuple[int, int], n_channels: int, n_told: int, n_outputs: int, rng: RNG, dtype: DTypeLike
    ) -> None:
        super().__init__(self.shapes(picture, n_channels, n_told, n_outputs), dtype)
        self.picture, self.n_channels = picture, n_channels
        rng = as_generator(rng)
        patch, context, told, _, inner, _, _ = self._arrays
        for weight in patch, context, told, inner:
            weight[:] = rng.standard_normal(weight.shape) / max(weight.shape[1], 1) ** 0.5

    @staticmethod
    def shapes(picture: tuple[int, int], n_channels: int, n_told: int, n_outputs: int) -> Shapes:
        """Shapes of W_1, V, U, p, W_2, b and H."""
        D, n_patch = picture[0] * picture[1], n_channels * SIDE**2
        inner = [(WIDTH, WIDTH), (WIDTH, 1)]
        return [(WIDTH, n_patch), (WIDTH, N_CONTEXT), (WIDTH, n_told), (D, WIDTH, 1), *inner, (D, n_outputs, WIDTH)]

    def vjp(self, x: Array, context: Array) -> tuple[Array, Callable[[Array, bool], tuple[Array | None, Array]]]:
        """Outputs, (N, D · n_outputs), pixel by pixel, and their backward pass.

        Parameters
        ----------
        x : (N, n_channels · D + n_told)
            Pictures, channel by channel, and told inputs.
        context : (N, D · N_CONTEXT)
            Pixel by pixel.

        Returns
        -------
        y : (N, D · n_outputs)
        backward : callable
            backward(∂loss/∂y, inputs) overwrites `gradient` and returns ∂loss/∂x, None unless `inputs`, and
            ∂loss/∂context.
        """
        W_patch, W_context, W_told, place, W_inner, b_inner, heads = self._arrays
        N, D = len(x), len(heads)
        channels, told = np.split(x, [self.n_channels * D], axis=1)
        patches, context = self._patches(channels), context.T.reshape(D, N_CONTEXT, N)
        z = W_patch @ patches
        z += W_context @ context
        z += W_told @ told.T
        z += place
        first, first_slope = silu_and_slope(z)
        z = W_inner @ first
        z += b_inner
        second, second_slope = silu_and_slope(z)

        def backward(grad: Array, inputs: bool) -> tuple[Array | None, Array]:
            by_patch, by_context, by_told, by_place, by_inner, by_b_inner, by_heads = self._derivatives
            by_y = grad.T.reshape(D, -1, N)
            np.matmul(by_y, second.swapaxes(1, 2), out=by_heads)
            by_z = heads.swapaxes(1, 2) @ by_y
            by_z *= second_slope
            np.sum(by_z @ first.swapaxes(1, 2), axis=0, out=by_inner)
            np.sum(by_z, axis=(0, 2), out=by_b_inner[:, 0])
            by_z = W_inner.T @ by_z
            by_z *= first_slope
            np.sum(by_z @ patches.swapaxes(1, 2), axis=0, out=by_patch)
            np.sum(by_z @ context.swapaxes(1, 2), axis=0, out=by_context)
            np.sum(by_z, axis=2, keepdims=True, out=by_place)
            by_z_of_all = by_z.sum(axis=0)  # (WIDTH, N)
            np.matmul(by_z_of_all, told, out=by_told)
            by_x = None
            if inputs:
                by_x = np.concatenate([self._by_channels(W_patch.T @ by_z), by_z_of_all.T @ W_told], axis=1)
            return by_x, _by_example(W_context.T @ by_z)

        return _by_example(heads @ second), backward

    def _patches(self, channels: Array) -> Array:
        """The neighbours of every pixel in every channel, (D, n_channels · 25, N); 0 outside the picture."""
        (height, width), n, N = self.picture, self.n_channels, len(channels)
        framed = np.zeros((n, height + SIDE - 1, width + SIDE - 1, N), channels.dtype)
        framed[:, REACH:-REACH, REACH:-REACH] = channels.T.reshape(n, height, width, N)
        windows = np.lib.stride_tricks.sliding_window_view(framed, (SIDE, SIDE), axis=(1, 2))
        return windows.transpose(1, 2, 0, 4, 5, 3).reshape(height * width, n * SIDE**2, N)

    def _by_channels(self, by_patches: Array) -> Array:
        """∂loss/∂channels, (N, n_channels · D), for ∂loss/∂patches: a pixel is a neighbour of 25 pixels."""
        (height, width), n = self.picture, self.n_channels
        by_patches = by_patches.reshape(height, width, n, SIDE, SIDE, -1)
        framed = np.zeros((n, height + SIDE - 1, width + SIDE - 1, by_patches.shape[-1]), by_patches.dtype)
        for i, j in np.ndindex(SIDE, SIDE):
            framed[:, i : i + height, j : j + width] += by_patches[:, :, :, i, j].transpose(2, 0, 1, 3)
        return _by_example(framed[:, REACH:-REACH, REACH:-REACH])


def _by_example(features: Array) -> Array:
    """(..., N) as (N, features)."""
    return features.reshape(-1, features.shape[-1]).T


class PictureNetwork:
    """Trunk and shared network together, with the calls of an `MLP`; the inputs are channels, then told inputs.

    Parameters
    ----------
    trunk : MLP or ResidualMLP
        With the widths `trunk_sizes`.
    n_outputs : int
        Number of outputs, D for every output of a pixel.
    n_told : int
        Number of told inputs, the last columns of x; those before are pictures, channel by channel.
    picture : (int, int)
        Height and width; D is their product.
    rng, dtype
        As for `MLP`.

    Attributes
    ----------
    parameters, gradient : (P,)
        Flat vectors, see `FlatParameters`: the trunk, then the shared network.
    trunk : MLP or ResidualMLP
    pixels : PixelNetwork
    """

    def __init__(
        self,
        trunk: Trunk,
        n_outputs: int,
        n_told: int,
        picture: tuple[int, int],
        rng: RNG,
        dtype: DTypeLike,
    ) -> None:
        rng = as_generator(rng)
        D, n_pictures = picture[0] * picture[1], trunk.sizes[0] - n_told
        self._n_outputs = n_outputs
        self.trunk = trunk
        self.pixels = PixelNetwork(picture, n_pictures // D, n_told, n_outputs // D, rng, dtype)
        of_context = trunk.weights[-1][:, n_outputs:]  # not 0: the shared network starts with a context
        of_context[:] = rng.standard_normal(of_context.shape) / len(of_context) ** 0.5
        self.parameters = np.concatenate([self.trunk.parameters, self.pixels.parameters])
        self.gradient = np.zeros_like(self.parameters)
        self._join()

    def _join(self) -> None:
        """Let both parts work on the joint vectors."""
        n = len(self.trunk.parameters)
        self.trunk.place(self.parameters[:n], self.gradient[:n])
        self.pixels.place(self.parameters[n:], self.gradient[n:])

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._join()

    def __call__(self, x: Array) -> Array:
        """Compute the output for x, (N, n_outputs), without dropout."""
        return self.vjp(x)[0]

    def vjp(self, x: Array, rng: np.random.Generator | None = None) -> tuple[Array, Backward]:
        """Compute the output for x and return the backward pass, see `ResidualMLP.vjp`."""
        n = self._n_outputs
        both, trunk_backward = self.trunk.vjp(x, rng)
        shared, pixels_backward = self.pixels.vjp(x.astype(both.dtype, copy=False), both[:, n:])

        def backward(grad: Array, inputs: bool = False) -> Array | None:
            grad = np.asarray(grad, dtype=both.dtype)
            by_x_of_pixels, by_context = pixels_backward(grad, inputs)
            by_x_of_trunk = trunk_backward(np.concatenate([grad, by_context], axis=1), inputs)
            if by_x_of_trunk is None or by_x_of_pixels is None:
                return None
            return by_x_of_trunk + by_x_of_pixels

        return both[:, :n] + shared, backward


def trunk_sizes(sizes: Sequence[int], picture: tuple[int, int]) -> tuple[int, ...]:
    """Widths of the trunk: `sizes` with the context among the outputs."""
    return (*sizes[:-1], sizes[-1] + N_CONTEXT * picture[0] * picture[1])
