import pytest

from align.recipe.foreign import axolotl
from align.recipe.foreign.dialects import DIALECTS
from align.recipe.trainer_fields import OWNED, known_fields

NAMED = (
    *("base_model", "rl", "datasets", "sequence_len", "micro_batch_size", "num_epochs", "adapter", "lora_r"),
    *("lora_alpha", "lora_target_linear", "lora_target_modules", "val_set_size", "optimizer", "learning_rate"),
    *("lr_scheduler", "rl_beta", "dpo_beta", "dpo_use_weighting", "dpo_label_smoothing", "evals_per_epoch"),
    *("saves_per_epoch", "warmup_ratio", "bf16", "flash_attention", "deepspeed", "wandb_project", "wandb_watch"),
)


def test_the_usual_keys_have_an_answer():
    assert not [key for key in NAMED if DIALECTS["axolotl"].answer(key) is None]


def test_answers_lead_to_fields_that_a_recipe_can_set():
    to = [a.to.removeprefix("trainer.") for a in axolotl.TABLE.values() if a.to.startswith("trainer.")]
    assert len(to) > 40
    assert not [name for name in to if name not in known_fields() or name in OWNED]


def test_a_trainer_field_of_transformers_is_not_known_unless_axolotl_has_it():
    assert DIALECTS["axolotl"].answer("per_device_train_batch_size") is None


@pytest.mark.parametrize(("theirs", "ours"), [("drop", "drop"), ("truncate", "keep_start")])
def test_what_is_done_with_long_pairs(theirs, ours):
    assert axolotl.TABLE["excess_length_strategy"].value(theirs) == ours


def test_values_without_counterpart_say_so():
    with pytest.raises(ValueError, match="no setting stops"):
        axolotl.TABLE["excess_length_strategy"].value("raise")
    with pytest.raises(ValueError, match="Axolotl's own"):
        axolotl.TABLE["lr_scheduler"].value("rex")
    assert axolotl.TABLE["gradient_checkpointing"].value("offload") is True
