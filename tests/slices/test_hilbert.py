import numpy as np
import pytest

from stscale.slices import hilbert_order


def grid(side: int, dims: int) -> np.ndarray:
    axes = np.meshgrid(*[np.arange(side)] * dims, indexing="ij")
    return np.stack([axis.ravel() for axis in axes], axis=1).astype(np.float64)


@pytest.mark.parametrize(("side", "dims"), [(2, 2), (16, 2), (4, 3), (8, 3)])
def test_consecutive_grid_points_are_neighbours(side, dims):
    xy = grid(side, dims)[np.random.default_rng(3).permutation(side**dims)]
    steps = np.abs(np.diff(xy[hilbert_order(xy)], axis=0)).sum(axis=1)
    assert (steps == 1).all()


def test_order_is_a_permutation_and_tiles_are_compact():
    xy = np.random.default_rng(0).random((5000, 2)) * [3000.0, 1000.0] - 500.0
    order = hilbert_order(xy)
    assert order.dtype == np.int64
    assert np.array_equal(np.sort(order), np.arange(5000))
    tiles = xy[order][: 5000 // 50 * 50].reshape(-1, 50, 2)
    spread = np.sqrt(np.prod(np.ptp(tiles, axis=1), axis=1))
    # 50 of 5 000 spots on 3 000 x 1 000 fill a square of side 173 when packed perfectly
    assert np.median(spread) < 2 * 173


def test_points_in_one_cell_keep_their_order():
    xy = np.array([[1.0, 1.0], [0.0, 0.0], [1.0, 1.0], [0.0, 0.0], [1.0, 1.0]])
    order = hilbert_order(xy)
    assert order.tolist() in ([1, 3, 0, 2, 4], [0, 2, 4, 1, 3])


def test_shift_and_scale_by_powers_of_two_change_nothing():
    xy = np.random.default_rng(1).integers(0, 1000, (400, 2)).astype(np.float64)
    assert np.array_equal(hilbert_order(xy), hilbert_order(xy * 8 + 1024))


def test_batches_do_not_show(monkeypatch):
    xy = np.random.default_rng(2).random((101, 3))
    whole = hilbert_order(xy)
    monkeypatch.setattr("stscale.slices.hilbert._BATCH", 10)
    assert np.array_equal(hilbert_order(xy), whole)


@pytest.mark.parametrize("xy", [np.zeros((0, 2)), np.zeros((1, 2)), np.full((4, 3), 7.0)])
def test_degenerate_points_stay_in_place(xy):
    assert np.array_equal(hilbert_order(xy), np.arange(len(xy)))


@pytest.mark.parametrize("xy", [np.zeros(3), np.zeros((3, 1)), np.array([[0.0, np.nan], [1.0, 2.0]])])
def test_refuses_what_has_no_order(xy):
    with pytest.raises(ValueError, match="coordinates"):
        hilbert_order(xy)


def test_input_is_not_changed():
    xy = np.random.default_rng(5).random((20, 2))
    xy.flags.writeable = False
    hilbert_order(xy)
