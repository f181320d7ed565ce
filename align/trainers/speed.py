"""What a trainer does of the section ``speed``: decided for the model, checked and measured on the first batch."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from align.data.packing import Packing
from align.models.adapters import has_adapter
from align.models.layout import Layout
from align.models.logprobs import TiledHead
from align.models.reference import FrozenReference, Reference
from align.models.tiled_head import Tiles, can_be_tiled, rule_of
from align.models.tree_attention import NAME
from align.models.windows import hidden_window
from align.objectives.logps import SequenceLogps
from align.recipe.speed import SpeedSettings
from align.report.console import say

KINDS = frozenset({"full_attention", "sliding_attention"})
"""Kinds of layers that attend over trees."""
LAID_TO = 128
"""Packed sequences are padded to a multiple of this many tokens on GPUs, whose attention works by such blocks."""
WORTH = 1.02
"""Rows are packed from this many times the positions, or the speed, of padded ones."""
DECISIVE = 1.25
"""On GPUs, padded positions over packed ones from which packing is not timed: kernels are not equally fast there."""
EXACT, LOW = 1e-5, 2e-2
"""Largest relative difference of log-probabilities that passes for rounding: of float32, and of what is coarser."""
REPETITIONS = 2
"""Forwards of each kind that are timed on the first batch otherwise."""
FILE = "speed.json"


class Speed:
    """How a trainer's forwards are computed.

    Args:
        settings: what was asked for; None for what works and pays.
        reason: why the trainer computes every row as it is; empty where it need not.
        policy: the model, before it is copied.

    Attributes:
        packs: whether batches are laid out, so that rows share tokens or padding is left out.
        tiles: whether heads compute by tiles.
        notes: what was decided and why, for people.
    """

    def __init__(self, settings: SpeedSettings | None = None, reason: str = "", policy: Any = None) -> None:
        self.settings = settings = SpeedSettings() if settings is None else settings
        self.packs = settings.sharing is not False or settings.packing is not False
        self.tiles = settings.tiling is not False
        self.notes: list[str] = []
        self._plain = 0
        self._decided = False
        if reason:
            self._without_packing(reason)
            self._without_tiles(reason)
        if policy is not None:
            self._prepare(policy)
        self.settled = not (self.packs or self.tiles)

    @property
    def active(self) -> bool:
        """Whether the forward at hand may compute other tensors than those of rows by themselves."""
        return not self._plain and (self.packs or self.tiles)

    # ---- before the first batch --------------------------------------------------------------------------------

    def prepare(self, reference: Reference) -> None:
        """Let a reference with weights of its own attend over trees and be tiled, where it can.

        Raises:
            ValueError: if it cannot, and the recipe says that it must.
        """
        if isinstance(reference, FrozenReference):
            self._prepare(reference.module)

    def _prepare(self, policy: Any) -> None:
        if self.packs and (reason := _refusal(policy)):
            self._without_packing(reason)
        if self.packs:
            _inner(policy).set_attn_implementation(NAME)
            if _inner(policy).config._attn_implementation != NAME:
                self._without_packing(f"{type(_inner(policy)).__name__} has an attention of its own")
        head = policy.get_output_embeddings() if self.tiles else None
        if head is not None and not can_be_tiled(head):
            self._without_tiles(f"the head is no plain linear layer but a {type(head).__name__}")

    def packing(self, device: torch.device, **options: Any) -> Packing | None:
        """Return what collators lay out for a device; ``options`` are those of :class:`~align.data.packing.Packing`."""
        if not self.packs:
            return None
        return Packing(
            sharing=self.settings.sharing is not False,
            packing=self.settings.packing is not False,
            budget=self.settings.token_budget,
            multiple=LAID_TO if device.type == "cuda" else 1,
            **options,
        )

    # ---- in a forward ------------------------------------------------------------------------------------------

    def layout(self, batch: Mapping[str, Tensor], prefix: str) -> Layout | None:
        """Return a layout of a batch; None where its rows are to be computed as they are."""
        return None if self._plain or not self.packs else Layout.of(batch, prefix)

    def head(self, model: Any, head: nn.Module) -> TiledHead | None:
        """Return how a head computes by tiles; None where it computes all logits."""
        if self._plain or not self.tiles or not can_be_tiled(head):
            return None
        return TiledHead(Tiles.on(next(head.parameters()).device), rule_of(model.config))

    @contextmanager
    def plain(self, when: bool = True) -> Iterator[None]:
        """Compute everything inside as it is without this section."""
        self._plain += when
        try:
            yield
        finally:
            self._plain -= when

    # ---- the first batch ---------------------------------------------------------------------------------------

    @torch.no_grad()
    def settle(
        self,
        few: Callable[[], Sequence[SequenceLogps]],
        whole: Callable[[], Any],
        *,
        positions: tuple[int, int],
        gather: Callable[[Tensor], Tensor],
        exact: bool,
        device: torch.device,
    ) -> None:
        """Check on a batch that results stay what they are, and keep what pays; the first call alone does anything.

        Args:
            few: returns log-probabilities of a few sequences of the batch, of policy and reference.
            whole: computes all of it, for its time.
            positions: that a model computes of the batch, padded and packed.
            gather: from a vector of this process to those of all, which decide together.
            exact: whether numbers are float32 or finer.
            device: of the model.

        Raises:
            ValueError: if results are not what they are without, and the recipe says that it must be done so.
        """
        if self.settled or self._plain:
            return
        self.settled = True
        if self.packs or self.tiles:
            with self.plain():
                plain = few()
        for name in ("tiles", "packs"):
            if getattr(self, name):
                self._check(name, few, plain, gather, exact, device)
        if self.packs:
            self._weigh(whole, positions, gather, device)
        for note in self.notes:
            say(f"speed: {note}")

    def _check(
        self,
        name: str,
        few: Callable[[], Sequence[SequenceLogps]],
        plain: Sequence[SequenceLogps],
        gather: Callable[[Tensor], Tensor],
        exact: bool,
        device: torch.device,
    ) -> None:
        """Compute so and compare: tiles alone, and then packs with what became of tiles."""
        packs, self.packs = self.packs, name == "packs"
        problem, gap = "", 0.0
        try:
            gap = max((_gap(one, other) for one, other in zip(few(), plain, strict=True)), default=0.0)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            problem = " ".join([f"{type(error).__name__}:", *str(error).splitlines()[:1]])
        self.packs = packs
        tolerance = EXACT if exact else LOW
        gap = float(gather(torch.tensor([torch.inf if problem else gap], device=device)).max())
        if gap <= tolerance:
            what = {"packs": "rows laid out as trees", "tiles": "log-probabilities by tiles"}[name]
            self.notes.append(f"{what}: differ by {gap:.1e} from a row each, relatively, on the first batch")
            return
        reason = problem or f"log-probabilities would differ by {gap:.1e}, relatively"
        if name == "packs":
            self._without_packing(reason)
        else:
            self._without_tiles(reason)

    def _weigh(
        self,
        whole: Callable[[], Any],
        positions: tuple[int, int],
        gather: Callable[[Tensor], Tensor],
        device: torch.device,
    ) -> None:
        """Keep packing where it saves positions, and between two kinds of kernels where timed forwards say so.

        On a CPU positions alone decide, so that a run that is repeated is the very same.
        """
        everyones = gather(torch.tensor(positions, device=device)).view(-1, 2).sum(0).tolist()
        self.notes.append(f"the first batch is {everyones[1]:,} positions instead of {everyones[0]:,} of padded rows")
        asked = True in (self.settings.sharing, self.settings.packing)
        saving = everyones[0] / everyones[1]
        if asked or self._decided or saving >= (DECISIVE if device.type == "cuda" else WORTH):
            return
        if device.type != "cuda":
            self._without_packing("it does not pay here")
        else:
            self._time(whole, gather, device)

    def _time(self, whole: Callable[[], Any], gather: Callable[[Tensor], Tensor], device: torch.device) -> None:
        """Time forwards padded and packed, heads alike, in turns, and keep what is faster."""
        seconds = torch.zeros(2, dtype=torch.float64, device=device)
        for _ in range(REPETITIONS):
            for number, self.packs in enumerate((False, True)):
                start = _now(device)
                whole()
                seconds[number] += _now(device) - start
        padded, packed = gather(seconds).view(-1, 2).sum(0).tolist()
        ratio = padded / max(packed, 1e-9)
        self.notes.append(f"forwards of the first batch are {ratio:.2f} times as fast as of padded rows")
        if ratio < WORTH:
            self._without_packing("it does not pay here")

    # ---- checkpoints -------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Keep what the first batch decided: a run that is continued goes on in the same way."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE).write_text(json.dumps({"packs": self.packs, "tiles": self.tiles}), encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Take from a checkpoint what a first batch decided, where settings and model leave it open."""
        if not (folder / FILE).is_file():
            return
        self._decided = True
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
        self.packs = self.packs and (found["packs"] or True in (self.settings.sharing, self.settings.packing))
        self.tiles = self.tiles and (found["tiles"] or self.settings.tiling is True)

    # ------------------------------------------------------------------------------------------------------------

    def _without_packing(self, reason: str) -> None:
        asked = [name for name in ("sharing", "packing") if getattr(self.settings, name) is True]
        if asked and self.packs:
            raise ValueError(f"speed.{asked[0]}: true cannot be had: {reason}; leave it out")
        if self.packs:
            self.notes.append(f"rows are padded, a row each: {reason}")
        self.packs = False

    def _without_tiles(self, reason: str) -> None:
        if self.settings.tiling is True and self.tiles:
            raise ValueError(f"speed.tiling: true cannot be had: {reason}; leave it out")
        if self.tiles:
            self.notes.append(f"logits of completion tokens are computed at once: {reason}")
        self.tiles = False


def _refusal(policy: Any) -> str:
    """Return why a model cannot attend over trees; empty where nothing is known against it."""
    model = _inner(policy)
    config = model.config.get_text_config()
    if getattr(model, "_is_stateful", False):
        return f"{type(model).__name__} carries a state from token to token"
    kinds = set(getattr(config, "layer_types", None) or ())
    if kinds - KINDS:
        return f"{type(model).__name__} has layers of the kind {', '.join(sorted(kinds - KINDS))}"
    if model.config._attn_implementation not in ("sdpa", NAME):
        return f"the model's attn_implementation is {model.config._attn_implementation!r}, and trees need 'sdpa'"
    return hidden_window(model)


def _inner(policy: Any) -> Any:
    return policy.get_base_model() if has_adapter(policy) else policy


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error says nothing about what was computed, but that there was no memory for it."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


def _gap(one: SequenceLogps, other: SequenceLogps) -> float:
    """Return the largest difference, relative to log-probabilities and a nat a token; of what is on both sides."""
    if bool((one.logps.isnan() != other.logps.isnan()).any()):
        return float("inf")
    gaps = (one.logps - other.logps).abs() / (other.logps.abs() + other.lengths)
    return float(gaps.nan_to_num().max()) if gaps.numel() else 0.0


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
