"""Every loss that TRL 1.16 has: value and gradient of its own code, on the same random logits."""

import pytest

from scripts.studies.objective_parity import CASES, compare


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_loss_and_gradient_equal_trls(case):
    found = compare(case)
    assert found["value"] <= case.tolerance
    assert found["gradient"] <= case.tolerance


def test_no_loss_of_trl_is_left_out():
    fifteen = {
        *("sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired"),
        *("apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm"),
    }
    kinds = [case.trl["loss_type"] for case in CASES if case.trainer == "dpo"]
    assert {k for kind in kinds for k in (kind if isinstance(kind, list) else [kind])} == fifteen
