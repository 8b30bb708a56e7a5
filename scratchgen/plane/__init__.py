"""Laws in the plane whose diffused densities are known but are no finite mixtures: a histogram, and the pinwheel."""

from scratchgen.plane.histogram import BlurredHistogram, Histogram
from scratchgen.plane.pinwheel import Needles, Pinwheel

__all__ = ["BlurredHistogram", "Histogram", "Needles", "Pinwheel"]
