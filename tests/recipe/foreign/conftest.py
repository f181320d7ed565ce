from pathlib import Path

import pytest
import yaml

TRL = """\
model_name_or_path: org/tiny
dataset_name: org/pairs
dataset_train_split: train_prefs
dataset_test_split: test_prefs
beta: 0.05
max_length: 256
learning_rate: 5e-7
eval_strategy: steps
eval_steps: 10
use_peft: true
lora_target_modules: [q_proj, v_proj]
output_dir: out/trl
"""

HANDBOOK = """\
# a recipe in alignment-handbook's form, of our own writing
model_name_or_path: org/tiny
torch_dtype: null
dataset_mixture:
  datasets:
    - {id: org/one, config: plain, split: train_prefs, columns: [chosen, rejected], weight: 0.5}
    - {id: org/two, split: test_prefs, weight: 1.0}
  test_split_size: 200
  seed: 0
dataset_num_proc: 4
bf16: yes
beta: 0.01
do_eval: true
eval_strategy: steps
eval_steps: 100
learning_rate: 5.0e-7
max_length: 512
max_prompt_length: 128
loss_type: sigmoid
output_dir: out/handbook
warmup_ratio: 0.1
"""

AXOLOTL = """\
base_model: org/tiny
rl: dpo
rl_beta: 0.2
chat_template: chatml
datasets:
  - path: org/pairs
    type: chat_template.default
    field_messages: conversation
    field_chosen: better
    field_rejected: rejected
    message_property_mappings: {role: role, content: content}
    roles: {user: [user], assistant: [assistant]}
val_set_size: 0.05
sequence_len: 2048
adapter: lora
lora_r: 8
lora_alpha: 16
lora_dropout: 0.05
lora_target_linear: true
load_in_8bit: false
load_in_4bit: true
micro_batch_size: 2
gradient_accumulation_steps: 4
num_epochs: 4
optimizer: adamw_torch
lr_scheduler: cosine
learning_rate: 0.0002
bf16: auto
flash_attention: true
gradient_checkpointing: true
evals_per_epoch: 4
saves_per_epoch: 1
warmup_steps: 10
wandb_project:
dataset_prepared_path:
output_dir: out/axolotl
"""

FILES = {"trl": TRL, "alignment-handbook": HANDBOOK, "axolotl": AXOLOTL}
"""One recipe of each project, in its form."""


def unfolded(text: str) -> str:
    """Return lines of a file: the text itself, or the entries of a mapping that is written in one line."""
    if not text.startswith("{"):
        return text + "\n"
    flow = ((key, yaml.safe_dump(value, default_flow_style=True)) for key, value in yaml.safe_load(text).items())
    return "".join(f"{key}: {value.splitlines()[0]}\n" for key, value in flow)


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Write a recipe of a project, changed, into an empty current folder and return its name."""
    monkeypatch.chdir(tmp_path)

    def to_file(project: str, more: str = "", without: str = "") -> str:
        lines = [line for line in FILES[project].splitlines() if not without or not line.startswith(without)]
        Path("theirs.yaml").write_text("\n".join(lines) + "\n" + more, encoding="utf-8")
        return "theirs.yaml"

    return to_file
