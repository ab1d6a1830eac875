"""Hard k-means: against exhaustive and naive k-means in float64, and where rows are few, equal or many."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from buttress.weights.kmeans import inertia, kmeans, lloyd, nearest


def rows_of(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def naive_nearest(rows, centroids):
    """Per row, the smallest squared distance, one number at a time."""
    return [min(sum((a - b) ** 2 for a, b in zip(row, c, strict=True)) for c in centroids) for row in rows]


def best_inertia(numbers, clusters):
    """Of all ways to cut the sorted numbers into so many runs, the least sum of squared distances to the means."""
    numbers, best = sorted(numbers), float("inf")
    for cuts in itertools.combinations(range(1, len(numbers)), clusters - 1):
        runs = [numbers[a:b] for a, b in itertools.pairwise((0, *cuts, len(numbers)))]
        best = min(best, sum(sum((x - sum(run) / len(run)) ** 2 for x in run) for run in runs))
    return best


@settings(max_examples=40)
@given(groups=st.integers(1, 3), rows=st.integers(1, 40), clusters=st.integers(1, 9), dim=st.integers(1, 3))
def test_nearest_is_the_least_distance(groups, rows, clusters, dim):
    rows_GND, centroids_GKD = rows_of(rows, groups, rows, dim), rows_of(clusters + 100, groups, clusters, dim)
    places = nearest(rows_GND, centroids_GKD)
    for group in range(groups):
        chosen = (rows_GND[group] - centroids_GKD[group][places[group]]).square().sum(1).tolist()
        assert chosen == pytest.approx(naive_nearest(rows_GND[group].tolist(), centroids_GKD[group].tolist()))
    torch.testing.assert_close(nearest(rows_GND[0], centroids_GKD[0]), places[0])


def test_nearest_of_numbers_takes_the_lower_of_two_as_near_and_any_order():
    numbers = torch.tensor([[-9.0], [0.5], [0.500001], [9.0]])
    assert nearest(numbers, torch.tensor([[1.0], [0.0]])).tolist() == [1, 1, 0, 0]
    assert nearest(numbers, torch.tensor([[3.0]])).tolist() == [0, 0, 0, 0]


def test_nearest_goes_by_chunks(monkeypatch):
    rows_GND, centroids_GKD = rows_of(0, 2, 100, 3), rows_of(1, 2, 5, 3)
    whole = nearest(rows_GND, centroids_GKD)
    monkeypatch.setattr("buttress.weights.kmeans._ELEMENTS", 70)
    assert torch.equal(nearest(rows_GND, centroids_GKD), whole)


@settings(max_examples=30)
@given(numbers=st.lists(st.integers(-50, 50), min_size=4, max_size=11), clusters=st.integers(1, 4))
def test_palettes_of_numbers_are_a_fixed_point_near_the_best(numbers, clusters):
    rows = torch.tensor(numbers, dtype=torch.float64)[None, :, None]
    found = kmeans(rows, clusters)
    reached, best = float(inertia(rows, found)), best_inertia([float(n) for n in numbers], clusters)
    assert best - 1e-9 <= reached <= 3 * best + 1e-9  # a local optimum, of the better of two starts
    torch.testing.assert_close(lloyd(rows, found, 300), found.sort(1).values, rtol=0, atol=1e-12)


def test_the_better_of_two_starts_is_kept():
    better = []
    for seed in range(6):
        rows = rows_of(seed, 1, 60, 1) ** 3
        numbers, share = rows.flatten().sort().values, [(number + 0.5) / 6 for number in range(6)]
        span = float(numbers[-1] - numbers[0])
        quantiles = [float(numbers[int(part * 60)]) for part in share]
        grid = [float(numbers[0]) + part * span for part in share]
        ends = [lloyd(rows, torch.tensor(s, dtype=torch.float64)[None, :, None], 300) for s in (quantiles, grid)]
        reached = [float(inertia(rows, end)) for end in ends]
        assert float(inertia(rows, kmeans(rows, 6))) == pytest.approx(min(reached), rel=1e-9)
        better.append(reached[0] < reached[1])
    assert any(better) and not all(better), "each start wins on some of these rows"


def test_palettes_of_a_normal_distribution_are_those_of_lloyd_and_max():
    rows = rows_of(0, 1, 200_000, 1)
    expected = torch.tensor([-1.510, -0.4528, 0.4528, 1.510], dtype=torch.float64)  # Max 1960, four levels
    torch.testing.assert_close(kmeans(rows, 4)[0, :, 0], expected, rtol=0, atol=0.01)


def test_groups_are_alone():
    rows = rows_of(0, 3, 500, 1) * torch.tensor([1.0, 5.0, 0.1])[:, None, None]
    together = kmeans(rows, 4)
    for group in range(3):
        torch.testing.assert_close(together[group], kmeans(rows[group : group + 1], 4)[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize("clusters", [4, 7])
def test_a_group_of_few_distinct_rows_gets_them_all(dim, clusters):
    values = torch.tensor([0.0] * 1000 + [0.1] * 3 + [0.7] * 3 + [100.0], dtype=torch.float64)
    rows = values[None, :, None].expand(1, -1, dim)
    found = kmeans(rows, clusters)
    assert found.shape == (1, clusters, dim) and kmeans(rows.float(), clusters).dtype == torch.float32
    assert float(inertia(rows, found)) < 1e-28
    if dim == 1:
        assert {0.0, 0.1, 0.7, 100.0} <= set(found[0, :, 0].tolist()), "to the bit"


@pytest.mark.parametrize("dim", [1, 2])
def test_one_row_and_equal_rows(dim):
    assert torch.equal(kmeans(torch.full((1, 1, dim), 0.3), 2), torch.full((1, 2, dim), 0.3))
    assert torch.equal(kmeans(torch.full((2, 9, dim), 0.3), 4), torch.full((2, 4, dim), 0.3))


def test_vectors_find_their_four_clouds():
    corners = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])
    rows = (corners[:, None] + 0.1 * rows_of(0, 4, 200, 2).float()).reshape(1, -1, 2)
    found = kmeans(rows, 4)[0]
    order = nearest(corners, found)
    torch.testing.assert_close(found[order], corners, rtol=0, atol=0.05)
    assert torch.equal(kmeans(rows, 4)[0], found), "the same seed, the same palette"


def test_many_vectors_are_sampled_and_all_counted_once(monkeypatch):
    monkeypatch.setattr("buttress.weights.kmeans.SAMPLE", 300)
    rows = rows_of(0, 2, 2000, 2)
    sampled = kmeans(rows, 4)
    monkeypatch.undo()
    whole = kmeans(rows, 4)
    assert bool((inertia(rows, sampled) < 1.1 * inertia(rows, whole)).all())
    assert not torch.equal(sampled, whole)


@pytest.mark.parametrize("dim", [1, 2])
def test_one_iteration_of_lloyd_takes_means(dim):
    rows, start = rows_of(0, 1, 300, dim), rows_of(1, 1, 5, dim)
    start = start.sort(1).values if dim == 1 else start
    distances = [
        [sum((a - b) ** 2 for a, b in zip(r, c, strict=True)) for c in start[0].tolist()] for r in rows[0].tolist()
    ]
    owner = [row.index(min(row)) for row in distances]
    means = torch.stack([rows[0][[i for i, o in enumerate(owner) if o == k]].mean(0) for k in range(5)])
    torch.testing.assert_close(lloyd(rows, start, 1)[0], means)


@pytest.mark.parametrize("dim", [1, 2])
def test_an_idle_centroid_moves_to_the_farthest_row(dim):
    rows = torch.tensor([0.0, 1.0, 10.0])[None, :, None].expand(1, -1, dim)
    start = torch.tensor([0.5, 90.0])[None, :, None].expand(1, -1, dim)
    assert lloyd(rows, start, 50)[0, :, 0].tolist() == [0.5, 10.0]
    there = torch.tensor([0.0, 1.0])[None, :, None].expand(1, -1, dim)
    spare = torch.tensor([0.0, 1.0, 5.0])[None, :, None].expand(1, -1, dim)
    assert torch.equal(lloyd(there, spare, 50), spare), "every row is met exactly: it stays"
