"""A recipe's model and data as a run would meet them, without weights: what validation looks at."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import datasets
import torch
from transformers import PreTrainedTokenizerBase, TrainingArguments

from align.data.negatives import negatives_of
from align.data.prepare import PreparedPairs, prepare_pairs, prepare_unpaired, split_by_prompt
from align.data.rows import Row
from align.data.store import noun_of
from align.data.template import render_prompt
from align.models.load import Source, load_tokenizer
from align.models.precision import Precision, choose_precision
from align.models.skeleton import load_config, skeleton
from align.recipe.paths import REFERENCES
from align.recipe.schema import GenerationSettings, LoraSettings, Recipe, SourceSettings, SynthSettings
from align.sampling.prompts import load_prompts
from align.trainers.check import reads_completions, reference_kind
from align.trainers.combinations import checkpointing
from align.trainers.forecast import SampledTokens
from align.trainers.pair import check_scores
from align.trainers.preference import length_limit
from align.trainers.sections import check_sections, other_models


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedModel:
    """The policy as structure, and what goes with it.

    Attributes:
        source: where it is loaded from, and in which number type.
        config: its config.
        policy: on the meta device, adapters on.
        lora: those adapters; None for none.
        tokenizer: of the policy.
        reference: kind of reference, or a model's path.
        other: a reference with a path of its own, as structure.
        precision: number types.
        autocast: number type of autocast in training, None for none.
    """

    source: Source
    config: Any
    policy: Any
    lora: LoraSettings | None
    tokenizer: PreTrainedTokenizerBase
    reference: str
    other: Any
    precision: Precision
    autocast: torch.dtype | None

    @property
    def arithmetic(self) -> torch.dtype:
        """The number type of matrix products."""
        return self.autocast or self.precision.weights


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRows:
    """Pairs or single completions as training will see them.

    Attributes:
        train: to train on.
        held_out: to evaluate on, or None.
        reports: what became of the rows, by split of the recipe.
        synthetic: whether some are not made yet: then there are at most so many, at most so long.
    """

    train: datasets.Dataset
    held_out: datasets.Dataset | None
    reports: dict[str, Any]
    synthetic: bool

    @property
    def noun(self) -> str:
        """What a row is called: a pair or a completion."""
        return noun_of(self.train.column_names)


def plan_model(recipe: Recipe, arguments: TrainingArguments, *, on_gpus: bool = False) -> PlannedModel:
    """Read configs and tokenizer, build the structure, and check that the parts fit.

    Args:
        recipe: of the run.
        arguments: of its trainer.
        on_gpus: whether number types are those of GPUs that are fast at bfloat16, whatever is here.

    Raises:
        ValueError: if they do not.
    """
    settings, lora = recipe.model, recipe.model.lora is not None
    if on_gpus:
        precision = choose_precision(settings.dtype, torch.device("cuda"), lora=lora, fast=True)
    else:
        precision = choose_precision(settings.dtype, arguments.device, lora=lora)
    source = Source(
        path=settings.path,
        revision=settings.revision,
        dtype=precision.weights,
        attn_implementation=settings.attn_implementation,
        trust_remote_code=settings.trust_remote_code,
    )
    tokenizer = load_tokenizer(source)
    config = load_config(source)
    policy = skeleton(source, settings.lora, config=config)
    _check_checkpointing(policy, recipe)
    check_sections(recipe, config, tokenizer)
    kind = reference_kind(recipe)
    own = kind not in REFERENCES
    for key, path in other_models(recipe).items():
        check_tokens(key, replace(source, path=path, revision=None), tokenizer)
    return PlannedModel(
        source=source,
        config=config,
        policy=policy,
        lora=settings.lora,
        tokenizer=tokenizer,
        reference=kind,
        other=skeleton(replace(source, path=kind, revision=None)) if own else None,
        precision=precision,
        autocast=_autocast(recipe, arguments, precision),
    )


def computing_in(model: PlannedModel, dtype: torch.dtype) -> PlannedModel:
    """Return the same models with all weights in one type, as engines have them that cast them before they compute."""

    def cast(structure: Any) -> Any:
        for parameter in structure.parameters():
            parameter.data = parameter.data.to(dtype)
        return structure

    source = replace(model.source, dtype=dtype)
    other = None if model.other is None else cast(skeleton(replace(source, path=model.reference, revision=None)))
    return replace(model, policy=cast(skeleton(source, model.lora, config=model.config)), other=other, autocast=None)


@contextmanager
def plan_rows(recipe: Recipe, model: PlannedModel, folder: Path) -> Iterator[PlannedRows]:
    """Prepare the rows as training does, and keep them for it; pairs that a model has yet to make are stood in for.

    Pairs that an earlier run of the recipe has made are read from its folder.

    Raises:
        ValueError: if a row cannot be used or lacks scores that the objective needs, or a split would be empty.
    """
    settings = recipe.data
    prepare = prepare_unpaired if reads_completions(recipe) else prepare_pairs
    limit = length_limit(model.policy, settings.max_length)
    with TemporaryDirectory() as scratch:

        def prepared(sources: Sequence[SourceSettings], name: str) -> tuple[PreparedPairs, bool]:
            files = [_made(source, folder / "pairs" / f"{name}-{i}.jsonl") for i, source in enumerate(sources)]
            given: list[Any] = [s if s.synth is None else _stand_in(s.synth, model.tokenizer) for s in files]
            missing = any(source.synth is not None for source in files)
            options: dict[str, Any] = {
                "max_length": limit,
                "truncation": settings.truncation,
                "on_bad_row": settings.on_bad_row,
            }
            if missing:
                options["cache_dir"] = Path(scratch)
            found = prepare(given, model.tokenizer, **options)
            return _negatives(found, recipe, name), missing

        train, missing = prepared(settings.train, "training")
        reports = {"train": train.report}
        held_out = None
        dataset = train.dataset
        if settings.eval:
            evaluated, also = prepared(settings.eval, "held-out")
            reports["held_out"], held_out, missing = evaluated.report, evaluated.dataset, missing or also
        elif settings.eval_fraction:
            dataset, held_out = split_by_prompt(train, settings.eval_fraction)
        if not missing:  # pairs that a model makes come with scores
            check_scores(recipe.objective, dataset, "train_dataset")
            if held_out is not None:
                check_scores(recipe.objective, held_out, "eval_dataset")
        yield PlannedRows(train=dataset, held_out=held_out, reports=reports, synthetic=missing)


def _negatives(found: PreparedPairs, recipe: Recipe, name: str) -> PreparedPairs:
    """Return the rows that d2o trains on: one for each sample, where each is held against the negative by itself."""
    if recipe.d2o is None:
        return found
    rows = negatives_of(found.dataset, name)
    if recipe.d2o.level == "instance" and "chosen" in recipe.objective.reads:
        rows = rows.select([i for i in range(len(rows)) for _ in range(recipe.d2o.samples)])
    return replace(found, dataset=rows)


def sampled_tokens(
    settings: SynthSettings | GenerationSettings, tokenizer: PreTrainedTokenizerBase
) -> tuple[SampledTokens, int]:
    """Return what a stage samples, and the tokens of its longest prompt."""
    prompts = load_prompts(settings.prompts, settings.split, settings.limit)
    sizes = [len(render_prompt(tokenizer, prompt)) for prompt in prompts]
    sequences = len(prompts) * settings.samples
    tokens = SampledTokens(
        sequences=sequences,
        prompt_tokens=sum(sizes) * settings.samples,
        new_tokens=sequences * settings.max_new_tokens,
    )
    return tokens, max(sizes)


def check_vocabulary(model: PlannedModel, largest_id: int, noun: str = "pair") -> list[str]:
    """Compare the tokenizer with the rows of the embedding, and return what deserves a warning.

    Args:
        model: the policy and its tokenizer.
        largest_id: of the prepared rows.
        noun: what a row is called.

    Raises:
        ValueError: if an id that will be used has no row.
    """
    rows, tokenizer = int(model.policy.get_input_embeddings().weight.shape[0]), model.tokenizer
    used = {f"the {noun}s": largest_id, "eos_token": tokenizer.eos_token_id, "pad_token": tokenizer.pad_token_id}
    for what, number in used.items():
        if number is not None and int(str(number)) >= rows:
            raise ValueError(
                f"model.path {model.source.path}: {what} use token id {number}, but the embedding has {rows:,} rows: "
                "the tokenizer has tokens that the model lacks; give the model's own tokenizer, or resize the embedding"
            )
    if len(tokenizer) > rows:
        return [
            f"the tokenizer knows {len(tokenizer):,} tokens, the embedding has {rows:,} rows; the {noun}s use none "
            "above"
        ]
    return []


def check_tokens(key: str, source: Source, tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that the tokens of another model are the policy's.

    Args:
        key: of the recipe, that names the model.
        source: of the model.
        tokenizer: of the policy.

    Raises:
        ValueError: if some are not.
    """
    theirs, ours = load_tokenizer(source).get_vocab(), tokenizer.get_vocab()
    known = {number: token for token, number in theirs.items()}
    strange = [token for token, number in ours.items() if known.get(number) != token]
    if strange:
        raise ValueError(
            f"{key} {source.path!r} has another vocabulary than model.path: {len(strange):,} of "
            f"{len(ours):,} tokens differ, {strange[0]!r} among them, and its log-probabilities would be of other "
            "tokens; name a reference of the same family, or leave it out"
        )


def _check_checkpointing(policy: Any, recipe: Recipe) -> None:
    if checkpointing(recipe) and not policy.supports_gradient_checkpointing:
        raise ValueError(
            f"trainer.activation_checkpointing=true with model.path {recipe.model.path}: {type(policy).__name__} does "
            "not support it; leave it out, and lower trainer.per_device_train_batch_size instead"
        )


def _autocast(recipe: Recipe, arguments: TrainingArguments, precision: Precision) -> torch.dtype | None:
    if {"bf16", "fp16"} & recipe.trainer.keys():
        return torch.bfloat16 if arguments.bf16 else torch.float16 if arguments.fp16 else None
    return torch.bfloat16 if precision.autocast else None


def _made(source: SourceSettings, file: Path) -> SourceSettings:
    return replace(source, synth=None, path=str(file)) if source.synth is not None and file.is_file() else source


def _stand_in(settings: SynthSettings, tokenizer: PreTrainedTokenizerBase) -> datasets.Dataset:
    """Return a pair for every prompt, both completions as long as they may become."""
    prompts = load_prompts(settings.prompts, settings.split, settings.limit)
    size = settings.max_new_tokens
    rows = [
        {
            "prompt_ids": render_prompt(tokenizer, prompt),
            "chosen_ids": [0] * size,
            "rejected_ids": [1] * size,
            "chosen_score": 1.0,
            "rejected_score": 0.0,
            "where": f"prompt {number}",
            "prompt_hash": _prompt_digest(prompt),
        }
        for number, prompt in enumerate(prompts, 1)
    ]
    return datasets.Dataset.from_list(rows)


def _prompt_digest(prompt: str) -> str:
    turns: Any = [{"role": "user", "content": prompt}]
    return Row(prompt=turns, chosen="", rejected="", where="").prompt_digest
