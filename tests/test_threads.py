"""Work spread over threads: in order, with BLAS of one thread, the same bits for any number."""

import threading

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from stscale.analysis.mixture import fit_mixture
from stscale.analysis.shrunk import fit_shrunk
from stscale.threads import available_cores, one_blas_thread, set_threads, spread_over_threads


@pytest.fixture(autouse=True)
def restored():
    yield
    set_threads(available_cores())


def blas() -> set[int]:
    """Threads of NumPy's and SciPy's BLAS; FAISS has one of its own, by OpenMP."""
    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas" and "faiss" not in pool["filepath"]]
    assert pools
    return {pool["num_threads"] for pool in pools}


def test_blas_has_one_thread_within_and_as_many_as_before_after():
    set_threads(2)
    with one_blas_thread():
        assert blas() == {1}
    assert blas() == {2}

    @one_blas_thread()
    def within() -> set[int]:
        return blas()

    assert within() == {1}
    with pytest.raises(ZeroDivisionError), one_blas_thread():
        raise ZeroDivisionError
    assert blas() == {2}


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_results_come_in_order_from_as_many_threads_as_were_set(threads):
    set_threads(threads)
    meet = threading.Barrier(threads)

    def square(number: int) -> int:
        if number < threads:
            meet.wait(timeout=20)  # breaks unless so many run at once
        assert blas() == {1}
        return number**2

    assert spread_over_threads(square, iter(range(17))) == [n**2 for n in range(17)]
    assert spread_over_threads(square, []) == []


def test_an_error_in_a_thread_is_raised():
    set_threads(2)
    with pytest.raises(ZeroDivisionError):
        spread_over_threads(lambda n: 1 / n, [1, 0, 2])


@pytest.mark.parametrize("fit", ["tied", "shrunk"])
def test_mixtures_are_the_same_bits_for_any_number_of_threads(fit):
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(at, 1.0, (700, 9)) for at in (-2.0, 0.0, 1.5, 4.0)])
    found = []
    for threads in (1, 2, 3):
        set_threads(threads)
        if fit == "tied":
            mixture = fit_mixture(x, 4, starts=6, seed=1)
        else:
            mixture = fit_shrunk(x, 4, shrink=1.5, starts=6, seed=1, moves=2)
        found.append((mixture.weights, mixture.means, mixture.log_density(x[:50])))
    for other in found[1:]:
        for first, second in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(first, second)
