"""Which project a recipe is of, what its keys are called here, and the one error that says so."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from align.recipe.errors import Origin, RecipeError
from align.recipe.foreign import axolotl, handbook, trl
from align.recipe.foreign.answers import Answer, Table, dropped, missed, renamed
from align.recipe.yaml_tree import Node

OWN_SECTIONS = (
    *("model", "data", "objective", "trainer", "evaluation", "diagnostics", "disentangle", "spo", "d2o", "speed"),
    "output",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How another project writes its recipes.

    Attributes:
        name: as ``--from`` takes it.
        title: what the project calls itself.
        table: its keys that are not fields of ``transformers.TrainingArguments`` of the same name.
        signs: keys that no other project of these has.
        defaults: our settings that its silence stands for.
        defaults_of: whose defaults they are.
        prefixes: answers to families of keys.
        has_trainer_fields: whether the fields of ``TrainingArguments`` are keys of it.
    """

    name: str
    title: str
    table: Table
    signs: frozenset[str]
    defaults: Mapping[str, Any]
    defaults_of: str
    prefixes: Mapping[str, Answer] = field(default_factory=dict)
    has_trainer_fields: bool = True

    def answer(self, key: str) -> Answer | None:
        """Return what becomes of a key, or None for one that the project does not have."""
        if key in self.table:
            return self.table[key]
        found = next((answer for prefix, answer in self.prefixes.items() if key.startswith(prefix)), None)
        return found or (_trainer_field(key) if self.has_trainer_fields else None)


DIALECTS: dict[str, Dialect] = {
    "axolotl": Dialect(
        name="axolotl",
        title="Axolotl",
        table=axolotl.TABLE,
        signs=frozenset({"base_model", "micro_batch_size", "sequence_len", "rl"}),
        defaults=axolotl.DEFAULTS,
        defaults_of="Axolotl",
        prefixes=axolotl.PREFIXES,
        has_trainer_fields=False,
    ),
    "alignment-handbook": Dialect(
        name="alignment-handbook",
        title="alignment-handbook",
        table=trl.TABLE | handbook.TABLE,
        signs=frozenset({"dataset_mixer", "dataset_mixture", "dataset_splits", "gamma_beta_ratio"}),
        defaults=trl.DEFAULTS,
        defaults_of="TRL",
    ),
    "trl": Dialect(
        name="trl",
        title="TRL",
        table=trl.TABLE,
        signs=frozenset({"model_name_or_path", "dataset_name", "loss_type", "use_peft"}),
        defaults=trl.DEFAULTS,
        defaults_of="TRL",
    ),
}
"""By name, the most particular first."""

OTHER_METHODS = {
    "reward_funcs": "online training with reward functions (GRPO, RLOO)",
    "num_generations": "online training (GRPO, RLOO)",
    "dataset_text_field": "supervised fine-tuning",
    "assistant_only_loss": "supervised fine-tuning",
    "reward_model_path": "PPO",
}
"""Keys of TRL's other trainers, and what they train."""

_OWNED_THAT_TRAINS: dict[str, tuple[Any, ...]] = {
    "label_smoothing_factor": (0,),
    "neftune_noise_alpha": (0,),
    "auto_find_batch_size": (False,),
}


_COMMON = ("alpha",)
"""Keys of others whose name says nothing outside the section ``objective``."""
_OF_SOURCES = {
    "id": "path",
    "name": "config",
    "fraction": "weight, a share of this source's rows",
    "data_files": "path, one source a file",
    "type": "columns, where theirs are called otherwise",
    **{f"field_{ours}": f"columns: {{{ours}: ...}}" for ours in ("prompt", "chosen", "rejected")},
    "field_messages": "columns: {prompt: ...}",
}


def _trainer_field(key: str) -> Answer | None:
    from align.recipe.trainer_fields import OWNED, known_fields

    if key in OWNED:
        return missed(OWNED[key], *_OWNED_THAT_TRAINS[key]) if key in _OWNED_THAT_TRAINS else dropped(OWNED[key])
    return renamed(f"trainer.{key}") if key in known_fields() else None


def detect(root: Node) -> Dialect | None:
    """Return the project a file is of, or None for a recipe of align's or of nobody known.

    A file with a section of align's own is align's; what overrides add does not count.
    """
    if not isinstance(root.value, dict):
        return None
    keys = {key: node for key, node in root.value.items() if node.origin.override is None}
    own = [key for key in OWN_SECTIONS if key in keys and isinstance(keys[key].value, dict)]
    if own and "base_model" not in keys:
        return None
    return next((dialect for dialect in DIALECTS.values() if dialect.signs & keys.keys()), None)


def refuse_foreign(root: Node) -> None:
    """Stop at a recipe of another project, with all its keys and what they are called here.

    Raises:
        RecipeError: naming the project and the command that converts the file.
    """
    dialect = detect(root)
    if dialect is None:
        return
    assert isinstance(root.value, dict)
    file = root.origin.file or "FILE"
    given = {key: node for key, node in root.value.items() if node.origin.override is None}
    width = max(len(key) for key in given)
    lines = [f"  line {node.origin.line or 0:<3} {key:{width}}  {_said(dialect, key)}" for key, node in given.items()]
    head = f"this is a recipe of {dialect.title}, not of align. To bring it over:"
    command = f"  align recipes convert {file} --to RECIPE.yaml"
    raise RecipeError("\n".join([head, command, "What its keys are called here:", *lines]), origin=Origin(file))


def _said(dialect: Dialect, key: str) -> str:
    answer = dialect.answer(key)
    return f"not a key of {dialect.title} that is known here" if answer is None else answer.text


def renamed_hint(name: str, key: str) -> str:
    """Return "; TRL's name: here ..." for a key of another project that stands in one of our recipes, or "".

    Args:
        name: the key.
        key: its dotted path in the recipe; where ours has the same, there is nothing to say.
    """
    if name in _COMMON and not key.startswith("objective"):
        return ""
    if key.startswith(("data.train.", "data.eval.")) and name in _OF_SOURCES:
        return f"; here: {_OF_SOURCES[name]}"
    for dialect in reversed(DIALECTS.values()):
        answer = dialect.table.get(name)
        if answer is not None and not answer.to:
            return f"; {dialect.title}'s {name!r} has no counterpart here: {answer.says}"
        if answer is not None and answer.to not in (key, f"trainer.{name}"):
            return f"; {dialect.title}'s {name!r} is here: {answer.text}"
    return _trainer_hint(name, key)


def _trainer_hint(name: str, key: str) -> str:
    answer = _trainer_field(name)
    if answer is None or answer.to == key:
        return ""
    return f"; here: {answer.to}" if answer.to else f"; transformers' {name!r} is not set in a recipe: {answer.says}"
