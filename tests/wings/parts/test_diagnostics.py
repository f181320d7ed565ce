import math

import pytest
import torch

from align.wings.parts.diagnostics import alpha_req, hardness, rankme, threshold_rank, tolerance, uniformity


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def orthogonal(width, seed=0):
    return torch.linalg.qr(random(width, width, seed=seed)).Q


def spectrum(values, n=40, seed=0):
    """Rows whose singular values are given."""
    values = torch.tensor(values, dtype=torch.float64)
    left = torch.linalg.qr(random(n, len(values), seed=seed)).Q
    return left @ torch.diag(values) @ orthogonal(len(values), seed + 1)


def test_rankme_is_the_papers_formula():
    z = random(30, 5)
    values = torch.linalg.eigvalsh(z.T @ z).clamp_min(0).sqrt()
    p = values / values.sum() + 1e-7
    assert rankme(z) == pytest.approx(float(torch.exp(-(p * p.log()).sum())), rel=1e-10)


def test_rankme_of_orthonormal_columns_is_their_number():
    for k in (2, 7, 16):
        assert rankme(spectrum([1.0] * k)) == pytest.approx(k, rel=1e-5)


def test_rankme_of_one_direction_is_one():
    one = random(30, 1) @ random(1, 6)
    assert rankme(one) == pytest.approx(1, abs=2e-5)
    assert rankme(random(30, 1)) == pytest.approx(1, abs=2e-6)


def test_rankme_of_two_equal_singular_values_is_two():
    assert rankme(spectrum([3.0, 3.0, 0.0, 0.0])) == pytest.approx(2, abs=1e-4)


def test_rankme_by_hand():
    # Shares 1/2, 1/4, 1/4: entropy 1.5 log 2.
    assert rankme(spectrum([2.0, 1.0, 1.0])) == pytest.approx(2**1.5, rel=1e-5)


def test_rankme_is_blind_to_scale_and_to_rotations_of_either_side():
    z = random(24, 6)
    known = rankme(z)
    assert rankme(1e3 * z) == pytest.approx(known, rel=1e-9)
    assert rankme(1e-3 * z) == pytest.approx(known, rel=1e-9)
    assert rankme(z @ orthogonal(6)) == pytest.approx(known, rel=1e-9)
    assert rankme(orthogonal(24) @ z) == pytest.approx(known, rel=1e-9)


def test_rankme_neither_centres_nor_normalises():
    z = random(40, 6)
    assert rankme(z + 5) < rankme(z) - 0.5
    longer = z * torch.linspace(0.1, 10, 40, dtype=torch.float64)[:, None]
    assert rankme(longer) != pytest.approx(rankme(z), rel=1e-3)


def test_rankme_cannot_exceed_the_number_of_rows():
    assert rankme(random(4, 32)) <= 4 + 1e-4


@pytest.mark.parametrize("wrong", [torch.zeros(0, 4), torch.zeros(4), torch.tensor([[1.0, float("nan")]])])
def test_rankme_refuses_what_has_no_rank(wrong):
    with pytest.raises(ValueError, match="rankme needs"):
        rankme(wrong)


def test_rankme_of_nothing_but_zeros_is_a_number():
    assert math.isfinite(rankme(torch.zeros(5, 3)))


def test_threshold_rank_counts_what_is_more_than_a_share_of_the_largest():
    z = spectrum([10.0, 1.0, 0.02, 0.005])
    assert threshold_rank(z) == 3
    assert threshold_rank(z, tolerance=0.05) == 2
    assert threshold_rank(z, tolerance=0.5) == 1
    assert threshold_rank(1e4 * z) == 3


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
def test_alpha_req_finds_the_exponent_of_a_power_law(exponent):
    place = torch.arange(1, 13, dtype=torch.float64)
    left = torch.linalg.qr(random(60, 13)).Q  # of which the first column makes the others sum to nothing
    left = torch.linalg.qr(torch.cat([torch.ones(60, 1, dtype=torch.float64), left], 1)).Q[:, 1:13]
    z = left * place.pow(-exponent / 2)
    assert alpha_req(z) == pytest.approx(exponent, rel=1e-8)
    assert alpha_req(7 * z + 3) == pytest.approx(exponent, rel=1e-6)


def test_uniformity_is_the_papers_formula_over_pairs():
    z = random(9, 4)
    unit = z / z.norm(dim=1, keepdim=True)
    terms = [torch.exp(-2 * (unit[i] - unit[j]).square().sum()) for i in range(9) for j in range(i)]
    assert uniformity(z) == pytest.approx(float(torch.stack(terms).mean().log()), rel=1e-10)


def test_uniformity_by_hand_and_its_range():
    assert uniformity(torch.ones(5, 3)) == pytest.approx(0, abs=1e-6)
    opposite = torch.tensor([[1.0, 0.0], [-3.0, 0.0]])
    assert uniformity(opposite) == pytest.approx(-8, rel=1e-6)
    z = random(50, 8)
    assert uniformity(z * 10) == pytest.approx(uniformity(z), rel=1e-9)  # of normalised rows
    assert uniformity(z) < uniformity(z + 2)


def test_tolerance_is_the_mean_cosine_of_a_class_without_a_row_with_itself():
    z = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0], [5.0, 5.0]])
    labels = torch.tensor([0, 0, 1, 1])
    assert tolerance(z, labels) == pytest.approx((0 + math.sqrt(0.5)) / 2, rel=1e-6)


def test_hardness_is_a_softmax_over_negatives_alone():
    similarity = random(3, 5)
    negative = torch.tensor([[0, 1, 1, 0, 1]] * 3).bool()
    shares = hardness(similarity, negative, temperature=0.3)
    expected = (similarity / 0.3).exp() * negative
    torch.testing.assert_close(shares, expected / expected.sum(1, keepdim=True))
    flat = hardness(similarity, negative, temperature=1e8)
    torch.testing.assert_close(flat, negative.double() / 3, atol=1e-6, rtol=0)
