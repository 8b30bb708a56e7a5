"""Sufficient statistics of two processes, each with half of the data, give the M-step of the whole."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from functools import reduce
from operator import add

import numpy as np
import pytest

from scratchgen import GaussianMixture, datasets
from scratchgen.em import e_step, m_step, m_step_from_statistics
from scratchgen.fast.em_statistics import expected_statistics


def m_step_of_parts(parts, mixture, pool):
    """One iteration of EM, (18) and (15), with one part of the data a process."""
    found = pool.map(expected_statistics, parts, [mixture] * len(parts))
    return m_step_from_statistics(reduce(add, (statistics for statistics, _ in found)), mixture)


@pytest.mark.equation(15, 18)
def test_two_processes_with_half_of_the_data_take_the_step_of_one():
    x = datasets.penguins().measurements
    halves = x[:100], x[100:]  # of different lengths, and of different species
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        mixture = GaussianMixture(3, max_iter=1, rng=0).fit(x).mixture_
        for _ in range(5):
            whole, mixture = m_step(x, e_step(x, mixture)[0], mixture), m_step_of_parts(halves, mixture, pool)
            for name in "weights", "means", "covariances":
                ours, theirs = getattr(whole, name), getattr(mixture, name)
                assert np.abs(theirs - ours).max() < 1e-12 * np.abs(ours).max()
    assert np.abs(m_step(halves[0], e_step(halves[0], mixture)[0], mixture).means - mixture.means).max() > 1
