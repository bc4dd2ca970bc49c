import pytest

from stscale.alignment import PairList
from stscale.errors import InputError

NAMES = ("a", "b", "c", "d")


@pytest.mark.parametrize(
    ("rule", "reference", "pairs"),
    [
        ("sequential", None, [(1, 0), (2, 1), (3, 2)]),
        ("sequential", "c", [(0, 1), (1, 2), (3, 2)]),
        ("star", None, [(1, 0), (2, 0), (3, 0)]),
        ("star", "c", [(0, 2), (1, 2), (3, 2)]),
        ("all", None, [(1, 0), (2, 0), (3, 0), (2, 1), (3, 1), (3, 2)]),
    ],
)
def test_rules(rule, reference, pairs):
    made = PairList.build(NAMES, rule, reference=reference)
    assert list(made.pairs) == pairs
    assert made.names[made.reference] == (reference or "a")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.toml", 'pairs = [["b", "a"], ["d", "a"], ["c", "d"]]'),
        ("p.csv", "source,target\nb,a\n d , a\n\nc,d\n"),
        ("p.csv", "b,a\nd,a\nc,d\n"),
    ],
)
def test_files(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert PairList.build(NAMES, tmp_path / name).pairs == ((1, 0), (3, 0), (2, 3))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("b,a\nx,a", "no slice is called 'x'; the slices are a, b, c, d"),
        ("b,b", "with itself"),
        ("b,a\na,b", "listed twice"),
        ("b,a\nc,d", "joins 'c' to 'a'"),
        ("b,a,c", "pair 1"),
        ("", "joins 'b' to 'a'"),
    ],
)
def test_bad_lists(tmp_path, text, said):
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(InputError, match=said) as caught:
        PairList.build(NAMES, tmp_path / "p.csv")
    assert "\n" not in str(caught.value)


def test_unreadable_lists(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        PairList.build(NAMES, tmp_path / "none.csv")
    with pytest.raises(InputError, match=r"expected sequential, star, all, or a file"):
        PairList.build(NAMES, "ring")
    (tmp_path / "p.toml").write_text("pairs = 3")
    with pytest.raises(InputError, match="no list `pairs"):
        PairList.build(NAMES, tmp_path / "p.toml")
    (tmp_path / "p.toml").write_text("pairs = [")
    with pytest.raises(InputError, match="not TOML"):
        PairList.build(NAMES, tmp_path / "p.toml")


def test_one_slice_and_doubled_names():
    with pytest.raises(InputError, match="at least two"):
        PairList.build(["a"])
    with pytest.raises(InputError, match="different names"):
        PairList.build(["a", "b", "a"])
    with pytest.raises(InputError, match="reference: no slice is called 'z'"):
        PairList.build(NAMES, reference="z")
