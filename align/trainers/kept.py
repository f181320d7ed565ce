"""A reference's log-probabilities on disk: which rows have none, computed once, found again by runs that come later."""

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from accelerate.utils import broadcast_object_list
from torch import nn

from align.data.cache import cache_root, key_of
from align.data.logp_store import LogpStore, PromptAndCompletion, keys_of
from align.data.packing import Packing
from align.models.identity import identity_of
from align.models.layout import Layout
from align.models.load import without_dropout
from align.models.logprobs import output_head
from align.models.reference import AdapterOffReference, KeptReference, Reference
from align.models.sequence_logps import TOKENS, Sequences, logps_of
from align.report.console import say
from align.trainers.few_rows import SCORED
from align.trainers.speed import Speed, is_out_of_memory

VERSION = 1
"""Raised when the same weights and ids would be given other numbers."""
CHECKED = 4
"""Sequences that are computed again before what was there is trusted."""
AT_ONCE = 20_000
"""Sequences that are looked up, and put in order of length, together."""
SECONDS, SEQUENCES = 15.0, 512
"""After whichever comes first, what was computed is written: a run that is killed loses no more."""
EXACT, LOW = 1e-4, 5e-2
"""Largest difference of a token's log-probability, in nats and relative to more than one, that passes for rounding: of
float32, and of what is coarser."""
WAITS = (0.0, 0.5, 2.0, 5.0)
"""Seconds after which a process looks again for what another one wrote: shared folders may show it late."""


class CannotKeepError(ValueError):
    """Log-probabilities of a reference cannot be kept; every process raises it alike."""


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
        self._checked = False
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
        """Return whether nothing would have to be computed; every process must call it.

        Raises:
            CannotKeepError: if processes do not see the same files.
        """
        return not any(self._missing(part) for part in _parts(sequences))

    def keep(self, sequences: Iterable[PromptAndCompletion], label: str) -> None:
        """Compute what is missing; every process must call it.

        Raises:
            CannotKeepError: if processes do not see what the others wrote, or something is not finite.
        """
        for part in _parts(sequences):
            missing = self._missing(part)
            if len(missing) < len(part) and not self._checked:
                self._check(part, missing)
                missing = self._missing(part)
            if missing:
                self._choose([part[i] for i in missing[:CHECKED]])
                self._compute([part[i] for i in missing], label)
                self.accelerator.wait_for_everyone()
                self.store.reload()
                self._see_all_but([], part, self.store.missing(part))
        self._checked = True

    def _missing(self, part: Sequences) -> list[int]:
        """Return what the first process lacks: it decides for all, which then see the rest."""
        mine = self.store.missing(part)
        missing: list[int] = broadcast_object_list([mine])[0]
        self._see_all_but(missing, part, mine)
        return missing

    def _see_all_but(self, missing: Sequence[int], part: Sequences, mine: Sequence[int]) -> None:
        """Wait until every process sees all that is not missing; ``mine`` is what this one lacks."""
        for seconds in WAITS:
            lacking = self._of_all(len(set(mine) - set(missing))).max()
            if not lacking:
                return
            time.sleep(seconds)
            self.store.reload()
            mine = self.store.missing(part)
        raise CannotKeepError(
            f"a process does not see {int(lacking)} sequences that another finds in {self.store.folder}: ALIGN_CACHE "
            "must be a folder that all of them share"
        )

    def _of_all(self, number: int | float) -> torch.Tensor:
        """Return a number of each process."""
        found: torch.Tensor = self.accelerator.gather(torch.tensor([number], device=self.accelerator.device))
        return found

    def _check(self, part: Sequences, missing: Sequence[int]) -> None:
        """Compute some that are there again, and forget all where they differ."""
        there = sorted(set(range(len(part))) - set(missing))
        picked = [part[there[i * (len(there) - 1) // max(1, CHECKED - 1)]] for i in range(min(CHECKED, len(there)))]
        self._choose(picked)
        gap = self._gap(self.store.get(picked), self._rows(picked, plain=not self._fast))
        if not gap <= self._tolerance:
            say(f"reference: what was kept differs by {gap:.1e} from what is computed now, and is computed again")
            if self.accelerator.is_main_process:
                self.store.drop()
            self.accelerator.wait_for_everyone()
            self.store.reload()

    def _choose(self, sequences: Sequences) -> None:
        """Find out whether sequences that share tokens, and a head by tiles, give what sequences by themselves do.

        Their last tokens are compared: logits of all of them are the table that tiles are there to avoid.
        """
        if self._fast is None:
            some = [([*prompt, *ids[:-SCORED]], ids[-SCORED:]) for prompt, ids in sequences]
            try:
                gap = self._gap(self._rows(some, plain=True), self._rows(some, plain=False))
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                gap = float("inf")
            self._fast = gap <= self._tolerance

    @property
    def _tolerance(self) -> float:
        return EXACT if self.exact else LOW

    def _rows(self, sequences: Sequences, *, plain: bool) -> list[Any]:
        found = {i: logp for batch in self._logps(sequences, "checking", plain=plain, alone=True) for i, logp in batch}
        return [found[i] for i in range(len(sequences))]

    def _gap(self, one: Sequence[Any], other: Sequence[Any]) -> float:
        """Return the largest difference in any process, relative to sizes of 1 and more; NaN where one is."""
        gaps = [float(np.abs(a - b).max() / max(1.0, np.abs(b).max())) for a, b in zip(one, other, strict=True)]
        return float(self._of_all(float(np.max(gaps))).max())

    def _compute(self, sequences: Sequences, label: str) -> None:
        waiting: list[tuple[PromptAndCompletion, Any]] = []
        since, lost = time.monotonic(), 0
        for batch in self._logps(sequences, label, plain=not self._fast):
            finite = [(sequences[i], logp) for i, logp in batch if np.isfinite(logp).all()]
            waiting += finite
            lost += len(batch) - len(finite)
            if len(waiting) >= SEQUENCES or time.monotonic() - since > SECONDS:
                self._write(waiting)
                waiting, since = [], time.monotonic()
        self._write(waiting)
        if lost := int(self._of_all(lost).sum()):
            raise CannotKeepError(f"the reference's log-probabilities of {lost:,} sequences are not finite")
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


def keep_references(trainer: Any, *, asked: bool) -> list[Keeper]:
    """Have the log-probabilities of a trainer's rows on disk, where that works and pays; return who sees to it.

    Args:
        trainer: of preferences, whose data sets are complete.
        asked: whether it is what the caller is there for, so that it must work.

    Raises:
        ValueError: if it cannot, and it must.
    """
    setting, reference = trainer.speed.settings.cache, trainer.reference
    must = asked or setting is True
    if isinstance(reference, KeptReference) or not (must or (setting == "auto" and reference is not None)):
        return []
    try:
        if reason := trainer.keeps_no_reference():
            raise CannotKeepError(reason)
        return _kept(trainer, must=must)
    except CannotKeepError as error:
        if must:
            raise ValueError(f"speed.cache: true cannot be had: {error}; leave it out") from error
        trainer.speed.notes.append(f"the reference is computed as rows come: {error}")
        return []


def _kept(trainer: Any, *, must: bool) -> list[Keeper]:
    """Compute what is missing of all references and rows."""
    compared = [
        (Keeper(reference, trainer.model, trainer.accelerator, trainer.speed), sequences_of)
        for reference, sequences_of in trainer.compared()
    ]
    sets, pays = trainer.row_sets(), must or trainer.sees_all_rows()
    if not pays and not all(keeper.has(of(rows)) for keeper, of in compared for rows in sets.values()):
        raise CannotKeepError("training does not see all of them")
    for keeper, sequences_of in compared:
        for name, rows in sets.items():
            keeper.keep(sequences_of(rows), f"reference, {name}")
    computed, rows = sum(keeper.computed for keeper, _ in compared), sum(map(len, sets.values()))
    done = f"{computed:,} sequences computed" if computed else "nothing to compute"
    say(f"reference: log-probabilities of {rows:,} rows: {done}; in {compared[0][0].store.folder}")
    return [keeper for keeper, _ in compared]


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
            yield _once(part)
            part = []
    if part:
        yield _once(part)


def _once(sequences: Sequences) -> Sequences:
    """Return each sequence once, however many rows have it."""
    return list(dict(zip(map(bytes, keys_of(sequences)), sequences, strict=True)).values())
