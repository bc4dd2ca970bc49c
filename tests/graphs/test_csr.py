"""The compressed graph, against a graph drawn by hand."""

from pathlib import Path

import numpy as np
import pytest

from stscale.errors import InputError, StscaleError
from stscale.graphs.csr import Graph, block_diagonal, from_pairs, load, with_edges

# 0-1, 0-2, 1-2, 2-3; spot 4 is alone
INDPTR = [0, 2, 4, 7, 8, 8]
INDICES = [1, 2, 0, 2, 0, 1, 3, 2]


@pytest.fixture
def drawn() -> Graph:
    return Graph(indptr=np.array(INDPTR, np.int64), indices=np.array(INDICES, np.int32))


def dense(graph: Graph) -> np.ndarray:
    out = np.zeros((graph.n, graph.n), int)
    for i in range(graph.n):
        for j in graph.indices[graph.indptr[i] : graph.indptr[i + 1]]:
            out[i, j] += 1
    return out


def same(a: Graph, b: Graph) -> bool:
    return np.array_equal(a.indptr, b.indptr) and np.array_equal(a.indices, b.indices)


def test_pairs_in_any_direction_with_repeats_and_loops_make_the_drawn_graph(drawn: Graph) -> None:
    row = np.array([2, 0, 1, 3, 0, 4, 2])
    col = np.array([0, 1, 0, 2, 1, 4, 1])
    graph = from_pairs(5, row, col)
    assert graph.indptr.tolist() == INDPTR
    assert graph.indices.tolist() == INDICES
    assert graph.indptr.dtype == np.int64
    assert graph.indices.dtype == np.int32
    assert (drawn.n, drawn.n_edges, drawn.degree().tolist()) == (5, 8, [2, 2, 3, 1, 0])
    drawn.validate()


@pytest.mark.parametrize("times", [128, 256, 512])
def test_a_pair_repeated_often_is_one_edge(times: int) -> None:
    row, col = np.zeros(times, int), np.ones(times, int)
    assert from_pairs(3, row, col).indices.tolist() == [1, 0]
    assert from_pairs(3, np.r_[row, col], np.r_[col, row]).indices.tolist() == [1, 0]


def test_no_pair_gives_empty_rows() -> None:
    graph = from_pairs(3, np.empty(0, int), np.empty(0, int))
    assert graph.indptr.tolist() == [0, 0, 0, 0]
    assert graph.n_edges == 0
    graph.validate()


def test_rows_come_in_the_order_asked_with_repeats(drawn: Graph) -> None:
    lengths, near = drawn.rows(np.array([3, 4, 2, 0, 2, 3]))
    assert lengths.tolist() == [1, 0, 3, 2, 3, 1]
    assert near.tolist() == [2, 0, 1, 3, 1, 2, 0, 1, 3, 2]


def test_rows_of_nobody_are_empty(drawn: Graph) -> None:
    lengths, near = drawn.rows(np.empty(0, np.int64))
    assert (len(lengths), len(near)) == (0, 0)


def test_subgraph_numbers_nodes_by_their_place_in_the_list(drawn: Graph) -> None:
    part = drawn.subgraph(np.array([3, 0, 2]))
    # 3-2 and 0-2 stay: the new 0-2 and 1-2
    assert part.indptr.tolist() == [0, 1, 2, 4]
    assert part.indices.tolist() == [2, 2, 0, 1]


def test_subgraph_equals_the_dense_cut() -> None:
    rng = np.random.default_rng(0)
    graph = from_pairs(30, rng.integers(30, size=80), rng.integers(30, size=80))
    nodes = rng.permutation(30)[:17]
    assert np.array_equal(dense(graph.subgraph(nodes)), dense(graph)[np.ix_(nodes, nodes)])


def test_block_diagonal_shifts_three_unequal_graphs(drawn: Graph) -> None:
    pair, path = from_pairs(2, np.array([0]), np.array([1])), from_pairs(3, np.array([0, 1]), np.array([1, 2]))
    joined = block_diagonal([pair, drawn, path])
    assert joined.indptr.tolist() == [0, 1, 2, 4, 6, 9, 10, 10, 11, 13, 14]
    assert joined.indices.tolist() == [1, 0, 3, 4, 2, 4, 2, 3, 5, 4, 8, 7, 9, 8]
    assert joined.indptr.dtype == np.int64
    assert joined.indices.dtype == np.int32
    joined.validate()
    assert same(joined.subgraph(np.arange(2, 7)), drawn)


def test_no_graph_to_join_is_refused() -> None:
    with pytest.raises(InputError, match="at least one slice"):
        block_diagonal([])


@pytest.mark.parametrize(
    ("indptr", "indices", "said"),
    [
        ([1, 2, 2], [1, 0], "monotone"),
        ([0, 1, 3], [1, 0], "monotone"),
        ([0, 2, 1, 2], [1, 0], "monotone"),
        ([0, 1, 2], [2, 0], "outside"),
        ([0, 1, 2], [-1, 0], "outside"),
        ([0, 2, 3], [0, 1, 0], "self-loops"),
        ([0, 2, 4], [1, 1, 0, 0], "repeated"),
        ([0, 1, 1], [1], "not symmetric"),
        ([0, 1, 2, 3], [1, 2, 0], "not symmetric"),
        ([0, 2, 3, 4], [2, 1, 0, 0], "increasing"),
    ],
)
def test_validate_names_the_broken_invariant(indptr: list[int], indices: list[int], said: str) -> None:
    broken = Graph(indptr=np.array(indptr, np.int64), indices=np.array(indices, np.int32))
    with pytest.raises(StscaleError, match=said):
        broken.validate()


def test_a_saved_graph_is_read_back(drawn: Graph, tmp_path: Path) -> None:
    path = tmp_path / "sub" / "graph.npz"
    drawn.save(path)
    back = load(path)
    assert same(back, drawn)
    assert (back.indptr.dtype, back.indices.dtype) == (np.int64, np.int32)
    assert [p.name for p in path.parent.iterdir()] == ["graph.npz"]


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "flipped", "missing", "other arrays", "one array"])
def test_a_damaged_file_is_an_input_error_that_names_it(drawn: Graph, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "graph.npz"
    drawn.save(path)
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "text":
        path.write_text("no graph " * 50)
    elif damage == "flipped":
        content[200] ^= 255
        path.write_bytes(content)
    elif damage == "missing":
        path.unlink()
    elif damage == "other arrays":
        np.savez(path, indptr=drawn.indptr)
    else:
        with path.open("wb") as file:
            np.save(file, drawn.indptr)
    with pytest.raises(InputError, match=r"graph\.npz"):
        load(path)


def test_edges_are_added_once_in_both_directions_and_loops_are_dropped():
    graph = from_pairs(6, np.array([0, 1, 4]), np.array([1, 2, 5]))
    more = with_edges(graph, np.array([2, 3, 3, 1, 5]), np.array([3, 2, 3, 0, 0]))
    more.validate()
    expected = {(0, 1), (1, 2), (4, 5), (2, 3), (0, 5)}
    row = np.repeat(np.arange(6), more.degree())
    assert set(zip(row.tolist(), more.indices.tolist(), strict=True)) == expected | {(b, a) for a, b in expected}
    same = with_edges(graph, np.empty(0, np.int64), np.empty(0, np.int64))
    np.testing.assert_array_equal(same.indptr, graph.indptr)
    np.testing.assert_array_equal(same.indices, graph.indices)
    assert (same.indptr.dtype, same.indices.dtype) == (graph.indptr.dtype, graph.indices.dtype)
