"""A reference's log-probabilities on disk: which rows have none, computed once, found again by runs that come later."""

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from align.data.cache import cache_root, key_of
from align.data.logp_store import LogpStore, PromptAndCompletion
from align.data.packing import Packing
from align.models.identity import identity_of
from align.models.layout import Layout
from align.models.load import without_dropout
from align.models.logprobs import output_head
from align.models.reference import AdapterOffReference, KeptReference, Reference
from align.models.sequence_logps import TOKENS, Sequences, logps_of
from align.report.console import say
from align.trainers.speed import Speed

VERSION = 1
"""Raised when the same weights and ids would be given other numbers."""
CHECKED = 4
"""Sequences that are computed again before what was there is trusted."""
AT_ONCE = 20_000
"""Sequences that are looked up, and put in order of length, together."""
SECONDS, SEQUENCES = 15.0, 512
"""After whichever comes first, what was computed is written: a run that is killed loses no more."""


class Keeper:
    """Computes what is missing, and gives the store.

    Args:
        reference: whose weights do not change.
        policy: as it is called, with its adapters, where the reference is what is beneath them.
        accelerator: of the trainer.
        speed: of the trainer.
    """

    def __init__(self, reference: Reference, policy: nn.Module, accelerator: Any, speed: Speed) -> None:
        self.reference, self.policy, self.accelerator, self.speed = reference, policy, accelerator, speed
        self.computed = 0
        self._fast: bool | None = None  # until both ways were compared
        beneath = isinstance(reference, AdapterOffReference)
        model: Any = policy.to(accelerator.device) if beneath else reference.module  # type: ignore[attr-defined]
        kinds = sorted({str(parameter.dtype) for parameter in model.parameters()})
        what = {
            "kept": VERSION,
            "model": identity_of(model, adapters=not beneath),
            "weights": kinds,
            "arithmetic": accelerator.mixed_precision,
        }
        self.store = LogpStore(cache_root() / "reference" / key_of(what)[:24])
        self.exact = accelerator.mixed_precision == "no" and not {"torch.bfloat16", "torch.float16"} & set(kinds)
        if accelerator.is_main_process and not (self.store.folder / "about.json").is_file():
            self.store.folder.mkdir(parents=True, exist_ok=True)
            about = {**what, "reference": reference.description}
            (self.store.folder / "about.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")

    def has(self, sequences: Iterable[PromptAndCompletion]) -> bool:
        """Return whether nothing would have to be computed."""
        return not any(self.store.missing(part) for part in _parts(sequences))

    def keep(self, sequences: Iterable[PromptAndCompletion], label: str) -> None:
        """Compute what is missing; every process must call it."""
        checked = False
        for part in _parts(sequences):
            missing = self.store.missing(part)
            if len(missing) < len(part) and not checked:
                checked = self._check(part, missing)
                missing = self.store.missing(part)
            if missing:
                self._choose([part[i] for i in missing[:CHECKED]])
                self._compute([part[i] for i in missing], label)
                self.accelerator.wait_for_everyone()
                self.store.reload()

    def _check(self, part: Sequences, missing: Sequence[int]) -> bool:
        """Compute some that are there again, and forget all where they differ."""
        there = sorted(set(range(len(part))) - set(missing))
        picked = [part[there[i * (len(there) - 1) // max(1, CHECKED - 1)]] for i in range(min(CHECKED, len(there)))]
        gap = self._gap(self.store.get(picked), self._rows(picked, plain=True))
        if gap > self._tolerance:
            say(f"reference: what was kept differs by {gap:.1e} from what is computed now, and is computed again")
            if self.accelerator.is_main_process:
                self.store.drop()
            self.accelerator.wait_for_everyone()
            self.store.reload()
        return True

    def _choose(self, sequences: Sequences) -> None:
        """Find out whether sequences that share tokens, and a head by tiles, give what sequences by themselves do."""
        if self._fast is None:
            try:
                gap = self._gap(self._rows(sequences, plain=True), self._rows(sequences, plain=False))
            except (ValueError, RuntimeError, TypeError, AttributeError, NotImplementedError):
                gap = float("inf")
            self._fast = gap <= self._tolerance

    @property
    def _tolerance(self) -> float:
        return 1e-4 if self.exact else 5e-2

    def _rows(self, sequences: Sequences, *, plain: bool) -> list[Any]:
        found = {i: logp for batch in self._logps(sequences, "checking", plain=plain, alone=True) for i, logp in batch}
        return [found[i] for i in range(len(sequences))]

    def _gap(self, one: Sequence[Any], other: Sequence[Any]) -> float:
        """Return the largest difference in any process, relative to sizes of 1 and more."""
        gaps = [float(np.abs(a - b).max() / max(1.0, np.abs(b).max())) for a, b in zip(one, other, strict=True)]
        mine = torch.tensor([max(gaps)], device=self.accelerator.device)
        return float(self.accelerator.gather(mine).max())

    def _compute(self, sequences: Sequences, label: str) -> None:
        waiting: list[tuple[PromptAndCompletion, Any]] = []
        since = time.monotonic()
        for batch in self._logps(sequences, label, plain=not self._fast):
            waiting += [(sequences[i], logp) for i, logp in batch]
            if len(waiting) >= SEQUENCES or time.monotonic() - since > SECONDS:
                self._write(waiting)
                waiting, since = [], time.monotonic()
        self._write(waiting)
        self.computed += len(sequences)

    def _write(self, found: Sequence[tuple[PromptAndCompletion, Any]]) -> None:
        if found:
            self.store.add([sequence for sequence, _ in found], [logp for _, logp in found])

    def _logps(
        self, sequences: Sequences, label: str, *, plain: bool, alone: bool = False
    ) -> Iterator[list[tuple[int, Any]]]:
        """Yield log-probabilities under the reference: this process's share, or all of them in every process."""
        accelerator = self.accelerator
        packing = None if plain else self.speed.packing(accelerator.device)
        with accelerator.autocast(), _as_in_training(self.policy), self.reference.model(self.policy) as model:
            inner = accelerator.unwrap_model(model)
            head = output_head(inner)
            batches = logps_of(
                model,
                head,
                sequences,
                label=label,
                device=accelerator.device,
                lay_out=None if packing is None else lambda some: _laid(packing, some),
                tiled=None if plain else self.speed.head(inner, head),
                tokens=TOKENS * (8 if accelerator.device.type == "cuda" else 1),
                share=(0, 1) if alone else (accelerator.process_index, accelerator.num_processes),
            )
            for batch in batches:
                yield [(i, logp.float().numpy()) for i, logp in batch]


def keep_reference(trainer: Any, *, asked: bool) -> Keeper | None:
    """Have the log-probabilities of a trainer's rows on disk, where that works and pays.

    Args:
        trainer: of preferences, whose data sets are complete.
        asked: whether it is what the caller is there for, so that it must work.

    Raises:
        ValueError: if it cannot, and it must.
    """
    setting, reference = trainer.speed.settings.cache, trainer.reference
    if reference is None or isinstance(reference, KeptReference) or (setting is False and not asked):
        return None
    if reason := trainer.keeps_no_reference():
        if asked or setting is True:
            raise ValueError(f"speed.cache: true cannot be had: {reason}; leave it out")
        trainer.speed.notes.append(f"the reference is computed as rows come: {reason}")
        return None
    keeper = Keeper(reference, trainer.model, trainer.accelerator, trainer.speed)
    sets = trainer.row_sets()
    pays = setting is True or asked or trainer.sees_all_rows()
    if not pays and not all(keeper.has(trainer.sequences_of(rows)) for rows in sets.values()):
        trainer.speed.notes.append("the reference is computed as rows come: training does not see all of them")
        return None
    for name, rows in sets.items():
        keeper.keep(trainer.sequences_of(rows), f"reference, {name}")
    rows = sum(map(len, sets.values()))
    done = f"{keeper.computed:,} sequences computed" if keeper.computed else "nothing to compute"
    say(f"reference: log-probabilities of {rows:,} rows: {done}; in {keeper.store.folder}")
    return keeper


@contextmanager
def _as_in_training(policy: nn.Module) -> Iterator[None]:
    """Compute as training will, adapters dropping nothing: quantised layers have another arithmetic in evaluation."""
    training = policy.training
    policy.train()
    try:
        with without_dropout(policy):
            yield
    finally:
        policy.train(training)


def _laid(packing: Packing, some: Sequences) -> Layout:
    layout = Layout.of(packing.keys("", some, [tuple(prompt) for prompt, _ in some]), "")
    assert layout is not None
    return layout


def _parts(sequences: Iterable[PromptAndCompletion]) -> Iterator[Sequences]:
    part: list[PromptAndCompletion] = []
    for sequence in sequences:
        part.append(sequence)
        if len(part) == AT_ONCE:
            yield part
            part = []
    if part:
        yield part
