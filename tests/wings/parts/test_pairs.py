import pytest
import torch
import torch.nn.functional as F

from align.wings.parts.diagnostics import hardness
from align.wings.parts.pairs import Pairs, agreement, cosines, info_nce, simple, spectral


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def value_and_gradient(function, *inputs):
    leaves = [one.detach().clone().requires_grad_() for one in inputs]
    value = function(*leaves)
    return value.detach(), torch.autograd.grad(value.sum(), leaves)


def same(one, other):
    torch.testing.assert_close(one[0], other[0], rtol=1e-9, atol=1e-12)
    for a, b in zip(one[1], other[1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


# ---- what columns are to rows ------------------------------------------------------------------------------------


def test_matching_pairs_what_has_the_same_number_and_holds_apart_the_rest():
    pairs = Pairs.matching(torch.tensor([2, 0]), torch.tensor([0, 1, 2]))
    assert pairs.positive.tolist() == [[False, False, True], [True, False, False]]
    assert (pairs.positive ^ pairs.negative).all()


def test_matching_ignores_what_is_the_same_and_keeps_it_as_a_positive():
    alike = torch.tensor([[True, True, False], [False, False, True]])
    pairs = Pairs.matching(torch.tensor([0, 1]), torch.tensor([0, 1, 2]), same=alike)
    assert pairs.positive.tolist() == [[True, False, False], [False, True, False]]
    assert pairs.negative.tolist() == [[False, False, True], [True, False, False]]


def test_two_views():
    pairs = Pairs.of_two_views(3)
    for row in range(6):
        assert pairs.positive[row].nonzero()[:, 0].tolist() == [(row + 3) % 6]
        assert pairs.negative[row].nonzero()[:, 0].tolist() == [c for c in range(6) if c % 3 != row % 3]


def test_classes():
    pairs = Pairs.of_classes(torch.tensor([5, 7, 5, 5]))
    assert pairs.positive.int().tolist() == [[0, 0, 1, 1], [0, 0, 0, 0], [1, 0, 0, 1], [1, 0, 1, 0]]
    assert pairs.negative.int().tolist() == [[0, 1, 0, 0], [1, 0, 1, 1], [0, 1, 0, 0], [0, 1, 0, 0]]


def test_the_rows_of_a_process_among_everyones_are_rows_of_the_whole_table():
    numbers = torch.tensor([4, 1, 4, 1, 9, 3, 9, 3])  # two processes, two views of two pictures each
    whole = Pairs.of_classes(numbers)
    for rank in (0, 1):
        mine = torch.arange(4) + 4 * rank
        part = Pairs.among(numbers[mine], numbers, mine)
        assert torch.equal(part.positive, whole.positive[mine])
        assert torch.equal(part.negative, whole.negative[mine])


# ---- losses --------------------------------------------------------------------------------------------------------


def test_cosines():
    a, b = random(3, 4), random(5, 4, seed=1)
    expected = torch.tensor([[float(x @ y / x.norm() / y.norm()) for y in b] for x in a], dtype=torch.float64)
    torch.testing.assert_close(cosines(a, b), expected)


@pytest.mark.parametrize("temperature", [0.05, 0.5, 3.0])
def test_info_nce_with_one_positive_is_cross_entropy(temperature):
    s = random(6, 6)
    pairs = Pairs.matching(torch.arange(6), torch.arange(6))
    same(
        value_and_gradient(lambda t: info_nce(t, pairs, temperature=temperature), s),
        value_and_gradient(lambda t: F.cross_entropy(t / temperature, torch.arange(6), reduction="none"), s),
    )


def nt_xent(z, temperature):
    """Chen et al. 2020, equation 1, over rows z_1 ... z_n and then their other views."""
    n = len(z) // 2
    unit = z / z.norm(dim=1, keepdim=True)
    rows = []
    for i in range(2 * n):
        others = [k for k in range(2 * n) if k != i]
        numerator = torch.exp(unit[i] @ unit[(i + n) % (2 * n)] / temperature)
        rows.append(-torch.log(numerator / sum(torch.exp(unit[i] @ unit[k] / temperature) for k in others)))
    return torch.stack(rows)


def test_info_nce_of_two_views_is_nt_xent():
    z = random(8, 5)
    pairs = Pairs.of_two_views(4)
    same(
        value_and_gradient(lambda t: info_nce(cosines(t, t), pairs, temperature=0.2), z),
        value_and_gradient(lambda t: nt_xent(t, 0.2), z),
    )


def sup_con(z, labels, temperature):
    """Khosla et al. 2020, equation 2, the sum outside the logarithm."""
    rows = []
    for i in range(len(z)):
        others = [k for k in range(len(z)) if k != i]
        total = sum(torch.exp(z[i] @ z[k] / temperature) for k in others)
        alike = [p for p in others if labels[p] == labels[i]]
        terms = [-torch.log(torch.exp(z[i] @ z[p] / temperature) / total) for p in alike]
        rows.append(sum(terms) / len(terms) if terms else 0 * z[i].sum())
    return torch.stack(rows)


def test_info_nce_of_classes_is_sup_con_and_a_class_of_one_loses_nothing():
    z, labels = random(7, 4), torch.tensor([0, 1, 0, 2, 1, 0, 1])
    pairs = Pairs.of_classes(labels)
    same(
        value_and_gradient(lambda t: info_nce(t @ t.T, pairs, temperature=0.7), z),
        value_and_gradient(lambda t: sup_con(t, labels, 0.7), z),
    )
    assert info_nce(z @ z.T, pairs, temperature=0.7)[3] == 0


def test_gradient_of_the_positive_is_that_of_all_negatives_and_each_gets_its_hardness():
    s, t = random(5, 5), 0.3
    pairs = Pairs.matching(torch.arange(5), torch.arange(5))
    _, (slope,) = value_and_gradient(lambda x: info_nce(x, pairs, temperature=t), s)
    probability = (s / t).softmax(1)
    torch.testing.assert_close(slope[pairs.negative], probability[pairs.negative] / t)
    pushed = slope.where(pairs.negative, 0.0)
    torch.testing.assert_close(-slope.diagonal(), pushed.sum(1))
    torch.testing.assert_close(pushed / pushed.sum(1, keepdim=True), hardness(s, pairs.negative, t))


def test_ignored_columns_change_nothing():
    s = random(4, 4)
    same_caption = torch.zeros(4, 4, dtype=torch.bool)
    same_caption[0, 2] = same_caption[2, 0] = True
    pairs = Pairs.matching(torch.arange(4), torch.arange(4), same=same_caption)
    changed = s.clone()
    changed[0, 2] = 50.0
    torch.testing.assert_close(info_nce(s, pairs, temperature=0.5), info_nce(changed, pairs, temperature=0.5))
    _, (slope,) = value_and_gradient(lambda x: info_nce(x, pairs, temperature=0.5), s)
    assert (slope[same_caption] == 0).all()


def test_a_temperature_a_row():
    s, t = random(3, 3), torch.tensor([[0.1], [1.0], [4.0]], dtype=torch.float64)
    pairs = Pairs.matching(torch.arange(3), torch.arange(3))
    together = info_nce(s, pairs, temperature=t)
    for row in range(3):
        torch.testing.assert_close(together[row], info_nce(s, pairs, temperature=float(t[row]))[row])


def test_weights_are_factors_in_the_sum():
    s, w = random(4, 4), random(4, 4, seed=1).exp()
    pairs = Pairs.matching(torch.arange(4), torch.arange(4))

    def by_hand(x):
        terms = w * torch.exp(x / 0.5)
        return -torch.log(torch.exp(x / 0.5).diagonal() / terms.sum(1))

    same(
        value_and_gradient(lambda x: info_nce(x, pairs, temperature=0.5, weights=w), s), value_and_gradient(by_hand, s)
    )
    same(
        value_and_gradient(lambda x: info_nce(x, pairs, temperature=0.5, weights=torch.ones_like(w)), s),
        value_and_gradient(lambda x: info_nce(x, pairs, temperature=0.5), s),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_weight_of_zero_is_an_ignored_column_at_any_temperature(dtype):
    s = torch.tensor([[0.1, 1.0, 0.0], [0.0, 0.3, 0.1]], dtype=dtype)
    w = torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 1.0]], dtype=dtype)
    pairs = Pairs.matching(torch.tensor([0, 1]), torch.arange(3))
    without = Pairs(pairs.positive, pairs.negative & (w > 0))
    for t in (0.005, 0.01, 1.0):
        same(
            value_and_gradient(lambda x, t=t: info_nce(x, pairs, temperature=t, weights=w), s),
            value_and_gradient(lambda x, t=t: info_nce(x, without, temperature=t), s),
        )


def test_a_row_with_nobody_loses_nothing_and_pulls_nothing():
    nobody = Pairs(torch.tensor([[False, False], [True, False]]), torch.tensor([[False, False], [False, True]]))
    value, (slope,) = value_and_gradient(lambda x: info_nce(x, nobody, temperature=0.1), random(2, 2))
    assert value[0] == 0
    assert (slope[0] == 0).all()
    assert slope.isfinite().all()


def test_simple_is_the_limit_of_large_temperatures():
    s = random(5, 5)
    pairs = Pairs.matching(torch.arange(5), torch.arange(5))
    hot = 1e6
    # With one positive of n columns: t (L - log n) = mean of all - positive = (n - 1) / n times the simple loss.
    limit = hot * (info_nce(s, pairs, temperature=hot) - torch.log(torch.tensor(5.0, dtype=torch.float64)))
    torch.testing.assert_close(limit, simple(s, pairs) * 4 / 5, rtol=1e-4, atol=1e-5)
    by_hand = torch.stack([(s[i].sum() - s[i, i]) / 4 - s[i, i] for i in range(5)])
    torch.testing.assert_close(simple(s, pairs), by_hand)


def test_spectral_is_the_papers_formula():
    z = random(6, 3)
    pairs = Pairs.of_two_views(3)

    def by_hand(x):
        rows = []
        for i in range(6):
            apart = [k for k in range(6) if k % 3 != i % 3]
            rows.append(-2 * x[i] @ x[(i + 3) % 6] + sum((x[i] @ x[k]) ** 2 for k in apart) / len(apart))
        return torch.stack(rows)

    same(value_and_gradient(lambda x: spectral(x @ x.T, pairs), z), value_and_gradient(by_hand, z))


def test_agreement_stops_where_it_is_told_to():
    a, b = random(4, 3), random(4, 3, seed=1)
    for stop in (True, False):
        one, other = a.clone().requires_grad_(), b.clone().requires_grad_()
        value = agreement(one, other, stop=stop)
        torch.testing.assert_close(value.detach(), 1 - cosines(a, b).diagonal())
        value.sum().backward()
        assert one.grad.abs().sum() > 0
        assert (other.grad is None) == stop
