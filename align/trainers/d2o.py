"""Distributional dispreference optimisation: Duan et al., 2024, arXiv:2403.03419. Negatives only."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, TrainingArguments

from align.data.cache import cache_root
from align.data.collate import KEPT
from align.data.logp_store import PromptAndCompletion, sequences_of
from align.data.negatives import (
    SAMPLES,
    NegativeCollator,
    check_samples,
    negatives_in,
    negatives_of,
    one_a_sample,
    with_samples,
)
from align.data.packing import Packing, prefix_of
from align.data.prepare import PreparedPairs, prepare_unpaired
from align.data.store import UNPAIRED_FEATURES
from align.models.load import Source, load_model
from align.models.logprobs import completion_logps, output_head, packed_logps
from align.models.pair_logps import kept_tokens, not_computed
from align.models.quantise import is_quantised
from align.models.reference import FrozenReference, KeptReference, Reference, moving_copy, resolve_reference
from align.objectives.base import SIDES, Objective
from align.objectives.dispreference import D2O, MeanTokenLogps
from align.objectives.logps import PairTokenLogps, TokenLogps
from align.recipe.d2o import D2oSettings
from align.recipe.sync import ReferenceSyncSettings
from align.report.console import say
from align.sampling.generate import Progress, sample
from align.sampling.self_samples import check_room, decoding_of, self_samples, with_instructions
from align.trainers.base import RowLosses
from align.trainers.check import refuse_copies, refuse_to_hold_against_samples, refuse_unread_samples
from align.trainers.kept import Keeper
from align.trainers.moving import MovingReference, load_reference, save_reference
from align.trainers.pair import PairTrainer
from align.trainers.preference import PreferenceTrainer, own_forward

OF_SAMPLING = ("samples", "max_new_tokens", "temperature", "top_p", "batch_size", "seed", "instructions")
"""Settings of ``d2o`` that only drawing reads."""
SAMPLER_FILE = "sampler.safetensors"
SAMPLES_REFERENCE_FILE = "samples_reference.safetensors"


class D2OTrainer(PairTrainer):
    """Trains on negatives alone, each held against the mean of K samples of the model itself.

    Rows are single completions with ``label: false``, or pairs, whose chosen side is not read. The samples stand on the
    chosen side, their mean log-ratio as one; so objectives that read plain log-probabilities of sequences train here,
    ``d2o`` first of all, and those that read the rejected alone (``npo``, ``simnpo``, ``gradient_ascent``) without a
    sample. Two references: the trainer's own is what negatives are compared with (the paper's more helpful one), and
    ``d2o.samples_reference`` what samples are (the more harmful one); by default they are the same.

    Args:
        model: as :class:`~align.trainers.pair.PairTrainer`, and so for all other arguments but those below.
        args: transformers' training arguments.
        d2o: how samples are drawn and compared; None for the defaults.
        samples_reference: a model that samples are compared with, in place of what ``d2o`` names.

    Raises:
        ValueError: as there; or if the objective needs more than sequences' log-probabilities, weights are sharded, or
            entanglement is to be measured, which is of pairs.
    """

    def __init__(
        self,
        model: Any,
        args: TrainingArguments | None = None,
        *,
        d2o: D2oSettings | None = None,
        samples_reference: nn.Module | None = None,
        objective: Objective | str | None = None,
        **options: Any,
    ) -> None:
        self.d2o = D2oSettings() if d2o is None else d2o
        self._only: tuple[str, ...] | None = None
        self.samples_reference: Reference | None = None
        self._drawn = (-1, 0)
        self._given = samples_reference
        for name in ("diagnostics", "disentangle"):
            asked = options.get(name)
            if asked is not None and getattr(asked, "entanglement", asked) is not None:
                raise ValueError(
                    f"{name} is about two responses, and d2o holds one against a mean of many: leave it out"
                )
        super().__init__(model, args, objective=D2O() if objective is None else objective, **options)
        refuse_unread_samples(self.d2o, self.objective, given=self._given is not None)
        if self.engine.shards_weights:
            raise ValueError(
                f"d2o: the model that is trained is sampled from, and no process holds its weights under "
                f"{self.engine}: use ddp, zero1 or zero2"
            )
        self._prepare_samples()

    # ---- what it changes of a pair trainer ---------------------------------------------------------------------

    def forward_logps(self, model: nn.Module, batch: Mapping[str, Tensor]) -> PairTokenLogps:
        """Return the token log-probabilities of samples, as means, and of negatives."""
        sides = self.sides if self._only is None else self._only
        negatives = len(batch["weight"])
        of_samples = len(batch["input_ids"]) - negatives
        start, stop = (0 if "chosen" in sides else of_samples), (None if "rejected" in sides else of_samples)
        rows = slice(start, stop)
        width = int(batch["attention_mask"][rows].sum(-1).max())
        inner = self.accelerator.unwrap_model(model)
        head, layout = output_head(inner), self.speed.layout(batch, prefix_of(sides))
        tiled = self.speed.head(inner, head)
        tokens = (
            completion_logps(
                model,
                head,
                input_ids=batch["input_ids"][rows, :width],
                attention_mask=batch["attention_mask"][rows, :width],
                completion_mask=batch["completion_mask"][rows, :width],
                tiled=tiled,
            )
            if layout is None
            else packed_logps(model, head, layout, tiled=tiled)
        )
        there = of_samples - start if "chosen" in sides else 0
        rejected = tokens.rows(there, len(tokens.logp)) if "rejected" in sides else not_computed(tokens, negatives)
        chosen: TokenLogps = not_computed(tokens, negatives)
        if there:
            found = tokens.rows(0, there)
            chosen = MeanTokenLogps(logp=found.logp, mask=found.mask, count=of_samples // negatives)
        return PairTokenLogps(chosen=chosen, rejected=rejected)

    def row_losses(self, model: nn.Module, batch: Mapping[str, Tensor]) -> RowLosses:
        """Return the loss and the metrics of each negative; none of samples where none is read."""
        found = super().row_losses(model, batch)
        if "chosen" in self.sides:
            return found
        metrics = {name: values for name, values in found.metrics.items() if name.endswith("/rejected")}
        return replace(found, metrics=metrics, partial=frozenset())

    def under_reference(self, model: nn.Module, forward: Callable[[nn.Module], Any]) -> Any:
        """Return what ``forward`` gives for the references: samples under theirs, negatives under the trainer's own."""
        own = self.samples_reference
        if own is None or self.reference is None or "chosen" not in self.sides:
            return super().under_reference(model, forward)
        with self._of("rejected"):
            plus = super().under_reference(model, forward)
        with self._of("chosen"), torch.no_grad(), own.model(model) as reference:
            minus = forward(reference)
        return replace(plus, chosen=minus.chosen)

    def check_start(self, policy: Tensor, reference: Tensor | None, lengths: Tensor) -> None:
        """Check what is compared with a copy of the policy; samples may have a reference that is another model."""
        if self.samples_reference is not None and not self.samples_reference.equals_policy_at_start:
            policy = torch.stack([torch.full_like(policy[0], torch.nan), policy[1]])
        super().check_start(policy, reference, lengths)

    def computed(self, batch: Mapping[str, Tensor], pairs: int) -> Tensor:
        """All rows; only negatives where no sample is read."""
        return batch["attention_mask"]

    def real_sequences(self, real: Tensor, sequences: int) -> Tensor:
        """Samples of the first negative come before those of the second, and all negatives after them."""
        return torch.cat([real.repeat_interleave(sequences // len(real) - 1), real])

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        """Train on a batch, with samples of the policy as it is now where they are drawn online."""
        online = self.d2o.online
        if online is not None and self.state.global_step >= online.warmup and self._sampler is not None:
            inputs = self._fresh(self._prepare_inputs(inputs))
        return super().training_step(model, inputs, *args, **kwargs)

    @property
    def sides(self) -> tuple[str, ...]:
        """Sides that the objective reads; also in evaluation, since samples are drawn for what reads them alone."""
        return self.objective.reads

    @property
    def prepare(self) -> Callable[..., PreparedPairs]:
        """Single completions; pairs are taken apart."""
        return prepare_unpaired

    @property
    def columns(self) -> frozenset[str]:
        """Columns of prepared single completions."""
        return frozenset(UNPAIRED_FEATURES)

    columns_of_its_own = frozenset({SAMPLES})

    def usable_rows(self, rows: datasets.Dataset, name: str, tokenizer: PreTrainedTokenizerBase) -> datasets.Dataset:
        """Return the negatives."""
        found = negatives_of(rows, name)
        say(f"{name}: {len(found):,} negatives; {len(rows) - len(found):,} desirable completions are not read")
        return found

    def collator(self, tokenizer: PreTrainedTokenizerBase) -> NegativeCollator:
        """Samples, then negatives."""
        return NegativeCollator(int(str(tokenizer.pad_token_id)), self.length_limit, self.packing)

    @property
    def packing(self) -> Packing | None:
        """How samples and negatives are laid out: together, and apart where their references are two."""
        found = super().packing
        apart = [(side,) for side in self.objective.reads] if self._has_two_references else []
        return found and replace(found, sides=tuple(dict.fromkeys((tuple(self.objective.reads), *apart))))

    def keeps_rows_apart(self) -> str:
        """Return why, where a forward of a subclass reads the batch's rows."""
        return own_forward(self, D2OTrainer)

    def reference_logps(self, model: nn.Module, batch: Mapping[str, Tensor]) -> PairTokenLogps | None:
        """Return what samples, as means, and negatives are compared with: kept, or computed."""
        if KEPT not in batch:
            return self.under_reference(model, lambda other: self.forward_logps(other, batch))  # type: ignore[no-any-return]
        negatives, mask = len(batch["weight"]), batch["completion_mask"]
        rejected = kept_tokens(batch[KEPT], mask[-negatives:])
        if f"{SAMPLES}_{KEPT}" not in batch:
            return PairTokenLogps(chosen=not_computed(rejected, negatives), rejected=rejected)
        found = kept_tokens(batch[f"{SAMPLES}_{KEPT}"], mask[:-negatives])
        chosen = MeanTokenLogps(logp=found.logp, mask=found.mask, count=len(found.logp) // negatives)
        return PairTokenLogps(chosen=chosen, rejected=rejected)

    def compared(self) -> list[tuple[Reference, Callable[[datasets.Dataset], Iterator[PromptAndCompletion]]]]:
        """Return the references of negatives and of samples, where these have another one."""
        own = self.samples_reference
        return [*super().compared(), *([] if own is None else [(own, self._samples_of)])]

    def read_kept(self, keepers: Sequence[Keeper]) -> None:
        """Have batches read both stores."""
        super().read_kept(keepers)
        if self.samples_reference is not None:
            self._collator.kept_of_samples = keepers[1].store
            self.samples_reference = KeptReference(self.samples_reference, cache_root())

    def sequences_of(self, rows: datasets.Dataset) -> Iterator[PromptAndCompletion]:
        """Yield negatives, and the samples that have the same reference."""
        yield from sequences_of(rows, "prompt_ids", ("completion_ids",))
        if self.samples_reference is None:
            yield from self._samples_of(rows)

    def _samples_of(self, rows: datasets.Dataset) -> Iterator[PromptAndCompletion]:
        if SAMPLES not in rows.column_names:
            return
        for batch in rows.select_columns(["prompt_ids", SAMPLES]).iter(batch_size=1000):
            for prompt, samples in zip(batch["prompt_ids"], batch[SAMPLES], strict=True):
                yield from ((prompt, self._collator.cut(prompt, ids)) for ids in samples)

    def keeps_no_reference(self) -> str:
        """Return why not, where samples or what they are compared with change while it trains."""
        if self.d2o.online is not None or self.d2o.samples_reference_sync is not None:
            return "samples, or their reference, change while the policy trains"
        return own_forward(self, D2OTrainer) or PreferenceTrainer.keeps_no_reference(self)

    @property
    def _collator(self) -> NegativeCollator:
        assert isinstance(self.data_collator, NegativeCollator)
        return self.data_collator

    @property
    def _has_two_references(self) -> bool:
        settings = self.d2o
        moves = settings.samples_reference_sync is not None
        return self._given is not None or moves or settings.samples_reference != "same"

    def check_objective(self, objective: Objective) -> None:
        """Refuse an objective that reads more than the log-probabilities of sequences.

        Raises:
            ValueError: naming what it reads.
        """
        super().check_objective(objective)
        refuse_to_hold_against_samples(objective)

    def summarise(self, rows: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Return means over the held-out negatives; accuracy only where samples are read."""
        if set(self.sides) == set(SIDES):
            return super().summarise(rows)
        loss = float(np.average(rows["loss"], weights=rows["weight"]))
        return {"loss": loss, **{name: float(rows[name].mean()) for name in rows if name not in ("loss", "weight")}}

    # ---- samples -----------------------------------------------------------------------------------------------

    def _prepare_samples(self) -> None:
        """Make the reference of samples and the sampler, and draw samples from the model as it is."""
        self._sampler: FrozenReference | None = None
        self._moving: dict[str, FrozenReference] = {}
        if "chosen" not in self.objective.reads:
            plain = D2oSettings()
            unread = [name for name in OF_SAMPLING if getattr(self.d2o, name) != getattr(plain, name)]
            if unread:
                say(f"d2o: the objective draws no sample; not used: {', '.join(unread)}")
            return
        policy, settings = self.accelerator.unwrap_model(self.model), self.d2o
        refuse_copies(settings, quantised=is_quantised(policy))
        if self.objective.needs_reference:
            self._refer(policy)
        tokenizer: Any = self.processing_class
        for rows in self.row_sets().values():  # before any is sampled
            check_room(policy.config, tokenizer, max(rows["prompt_ids"][:], key=len, default=[]), settings)
        for name in ("train_dataset", "eval_dataset"):
            rows = getattr(self, name)
            if isinstance(rows, dict):
                setattr(self, name, {key: self._sampled(part, f"{name}[{key!r}]") for key, part in rows.items()})
            elif rows is not None:
                setattr(self, name, self._sampled(rows, name))
        if settings.online is not None:
            self._sampler = moving_copy(policy)
            self._sampler.place(self.accelerator)
            renewed = ReferenceSyncSettings(alpha=1.0, every=settings.online.every)
            self._follow(SAMPLER_FILE, self._sampler, renewed, first=settings.online.warmup)

    def came_later(self, rows: datasets.Dataset, name: str) -> datasets.Dataset:
        """Draw samples from the policy as it is when rows first come, where the objective reads them."""
        return self._sampled(rows, name) if "chosen" in self.objective.reads else rows

    def _refer(self, policy: Any) -> None:
        sync, asked = self.d2o.samples_reference_sync, self.d2o.samples_reference
        if self._given is not None:
            self.samples_reference = FrozenReference(
                self._given, equals_policy_at_start=False, description="a model of its own"
            )
        elif sync is not None:
            self.samples_reference = moved = moving_copy(policy)
            self._follow(SAMPLES_REFERENCE_FILE, moved, sync)
        elif asked != "same":
            loaded = None if asked == "base" else load_model(Source(path=asked))
            self.samples_reference = resolve_reference(asked, policy, needed=True, loaded=loaded)
        if self.samples_reference is not None:
            self.speed.prepare(self.samples_reference)
            self.samples_reference.place(self.accelerator)

    def _follow(
        self, file: str, copy: FrozenReference, settings: ReferenceSyncSettings, first: int | None = None
    ) -> None:
        self._moving[file] = copy
        self.add_callback(MovingReference(copy, self.accelerator.unwrap_model(self.model), settings, first))

    def _sampled(self, rows: datasets.Dataset, name: str) -> datasets.Dataset:
        if SAMPLES in rows.column_names:
            check_samples(rows, self.d2o, name)
            say(f"{name}: rows bring samples of their own; not used: {', '.join(OF_SAMPLING[1:])} of d2o")
        else:
            share = self.args.process_index, self.args.world_size
            model: Any = self.accelerator.unwrap_model(self.model).to(self.args.device)
            prompts = rows["prompt_ids"][:]
            tokenizer: Any = self.processing_class
            told: Any = {"label": name, "bar": not self.args.disable_tqdm, "max_length": self.length_limit}
            with self.accelerator.autocast():  # what is sampled is what is trained, number types and all
                rows = with_samples(rows, self_samples(model, tokenizer, prompts, self.d2o, share=share, **told))
        return one_a_sample(rows) if self.d2o.level == "instance" else rows

    def _fresh(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Return a batch with samples of the copy of the policy that is sampled from."""
        assert self._sampler is not None
        rows, count = negatives_in(inputs), self.d2o.samples
        tokenizer: Any = self.processing_class
        step = self.state.global_step
        self._drawn = (step, self._drawn[1] + 1 if self._drawn[0] == step else 0)  # batches of a step, counted
        number = (step * 1009 + self._drawn[1]) * 101 + self.args.process_index
        prompts = [row["prompt_ids"] for row in rows]
        asked = with_instructions(tokenizer, prompts, self.d2o, first=number * len(rows))
        most, label = len(asked) * self.d2o.max_new_tokens, None if self.args.disable_tqdm else "online samples"
        with self.accelerator.autocast(), Progress(most, label, delay=1.0) as progress:
            batches = sample(self._sampler.module, tokenizer, asked, decoding_of(self.d2o, number), progress=progress)
            answers = [completion.ids for batch in batches for completion in batch]
        rate = progress.tokens_per_second * self.args.world_size  # of all processes, in the mean over them
        self.meter.note({"d2o/sampled_tokens_per_second": torch.tensor([rate], device=self.accelerator.device)})
        for place, row in enumerate(rows):
            row[SAMPLES] = answers[place * count : (place + 1) * count]
        fresh = {name: tensor.to(inputs[name].device) for name, tensor in self.data_collator(rows).items()}
        return {**inputs, **fresh, **{name: inputs[name] for name in ("weight", "real")}}

    @contextmanager
    def _of(self, side: str) -> Iterator[None]:
        self._only = (side,)
        try:
            yield
        finally:
            self._only = None

    # ---- checkpoints -------------------------------------------------------------------------------------------

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        # First: a checkpoint counts as whole once transformers has written its state, which it does last.
        if self.is_world_process_zero():
            for file, copy in self._moving.items():
                save_reference(copy, Path(self._get_output_dir(trial=None)), self.state.global_step, file)
        super()._save_checkpoint(*args, **kwargs)

    def restore(self, checkpoint: Path) -> None:
        """Take from a checkpoint the copies of the policy that follow it."""
        super().restore(checkpoint)
        for file, copy in self._moving.items():
            load_reference(copy, checkpoint, file)
