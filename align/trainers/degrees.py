"""What a trainer that learns preference degrees beside its objective adds to others: versions, heads, their loss."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, TrainingArguments

from align.data.degrade import brought, column_of, degraded
from align.data.degree_batches import PREFIX
from align.data.key_content import Answer
from align.models.beside import BESIDE, joined, without
from align.models.degree_head import DegreeHead, check_layer, layer_states, pooled, rank_correlation
from align.models.identity import identity_of
from align.models.layout import Layout
from align.models.load import Source, load_model
from align.models.logprobs import completion_logps, output_head, packed_logps
from align.models.sharding import is_partitioned
from align.models.surprisal import surprisals
from align.objectives.base import SIDES
from align.objectives.logps import TokenLogps
from align.recipe.paths import REFERENCES
from align.recipe.spo import SpoSettings
from align.report.console import say
from align.trainers.engine import PLAIN
from align.trainers.pair import ExtraLoss
from align.trainers.preference import PreferenceTrainer

ATTRIBUTE = "degree_head"
"""The name of the heads on the output embedding: wrapped, optimised and kept with the policy, and not exported."""
HEAD_FILE = "degree_head.safetensors"
SHARDED = "spo: the degree head cannot work under {}, which shards weights: use ddp, zero1 or zero2"


class LearnsDegrees(PreferenceTrainer):
    """Learns, beside what a trainer does, to tell how much of a completion's key content is gone.

    To be mixed into a trainer of preferences, before it. Versions are rows of their own in a second forward, whole
    completions among them, so that what an objective reads is as it is without them.

    Args:
        model: as the trainer has it, and so for all other arguments but ``spo``.
        args: transformers' training arguments.
        spo: how versions are made, what tells them apart, and what that weighs; None for the defaults.

    Raises:
        ValueError: as there; or if weights are sharded, the model has no such layer, or an extractor is not there.
    """

    completions: tuple[str, ...] = ()
    """Columns of ids that versions are made of, less ``_ids``; none for the sides that ``spo`` names."""
    columns_of_its_own = frozenset(map(column_of, (*SIDES, "completion")))

    def __init__(
        self,
        model: Any,
        args: TrainingArguments | None = None,
        *,
        spo: SpoSettings | None = None,
        **options: Any,
    ) -> None:
        self.spo = SpoSettings() if spo is None else spo
        if any(given is not None for given in options.get("optimizers") or ()):
            raise ValueError(
                f"{type(self).__name__} makes its optimiser: the degree heads are made with the trainer, and learn at "
                "a rate of their own: leave optimizers out, and choose with trainer arguments (optim, learning_rate)"
            )
        self._seed = 42 if args is None else args.seed
        reference = options.get("reference")
        asked = self.spo.versions.extractor == "surprisal"  # then it is loaded here, since it is asked first
        if asked and isinstance(reference, str) and reference not in REFERENCES:
            options["reference"] = reference = load_model(Source(path=reference))
        self._other = reference if isinstance(reference, nn.Module) else None
        super().__init__(model, args, **options)
        if self.engine.shards_weights:
            raise ValueError(SHARDED.format(self.engine))

    def degree_loss(self, model: nn.Module, batch: Mapping[str, Tensor], like: Tensor) -> ExtraLoss:
        """Return the degree loss of each row, and how well degrees were told.

        Args:
            model: the policy as it is called.
            batch: with versions beside its rows.
            like: a number of each row, shape (rows,).
        """
        hidden, logps = self._hidden(model, batch)
        degrees, of_chosen, row = (batch[f"{PREFIX}{name}"] for name in ("of", "chosen", "pair"))
        total = torch.zeros_like(like)
        metrics: dict[str, Tensor] = {}
        for side in self.spo.versions.degraded_sides:
            mine = of_chosen if side == "chosen" else ~of_chosen
            head = self._head_of(side)
            logits = head(hidden[mine].to(next(head.parameters()).dtype)).to(total.dtype)
            losses = head.losses(logits, degrees[mine])
            right = (head.predicted(logits) == degrees[mine]).to(total.dtype)
            counts = torch.zeros_like(total).index_add(0, row[mine], torch.ones_like(losses))
            loss, accuracy = (
                torch.zeros_like(total).index_add(0, row[mine], values) / counts.clamp(min=1)
                for values in (losses, right)
            )
            total = total + self.spo.gammas[side] * loss
            found = {f"spo/loss/{side}": loss, f"spo/accuracy/{side}": accuracy, f"spo/chance/{side}": 1 / counts}
            metrics |= {name: values.masked_fill(counts == 0, torch.nan) for name, values in found.items()}
        of_degrees = {} if model.training else self._of_degrees(batch, logps, len(total))
        logged = {name: value.detach() for name, value in (metrics | of_degrees).items()}
        return ExtraLoss(total, logged, frozenset(logged if self.completions else of_degrees))

    # ---- what it changes of a trainer --------------------------------------------------------------------------

    def positions_beside(self, batch: Mapping[str, Tensor]) -> int:
        """Return the positions of the versions, where the degree loss has a gradient by the policy."""
        return 0 if self.spo.head.detached else self.rows_beside(batch)[1]

    def rows_beside(self, batch: Mapping[str, Tensor]) -> tuple[int, int]:
        """Return the positions of the versions, padded and laid out."""
        layout, padded = self.speed.layout(batch, f"{PREFIX}packed_"), batch[f"{PREFIX}input_ids"].numel()
        return padded, padded if layout is None else layout.real.numel()

    def forward_beside(self, model: nn.Module, batch: Mapping[str, Tensor]) -> None:
        """Compute the versions, for their time alone."""
        self._hidden(model, batch)

    def before_wrapping(self, policy: Any) -> None:
        """Put the heads on the policy."""
        super().before_wrapping(policy)
        surprising = self.spo.versions.extractor == "surprisal"
        reference: Any = policy if self._other is None else self._other
        self._finds: Any = reference if surprising else None
        settings = self.spo.head
        check_layer(policy.config, settings.layer)
        head: Any = output_head(policy)
        if is_partitioned(head.weight):
            raise ValueError(SHARDED.format("zero3"))
        width = int(head.weight.shape[1])
        kind = torch.float64 if head.weight.dtype == torch.float64 else torch.float32
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed)  # draws of the training itself do not depend on the heads
            heads = nn.ModuleList(
                DegreeHead(width, self.spo.versions.degrees, depth=settings.depth, ordinal=self.spo.loss == "coral").to(
                    device=head.weight.device, dtype=kind
                )
                for _ in range(2 if len(self.spo.versions.degraded_sides) == 2 and not settings.shared else 1)
            )
        for module in heads.modules():
            setattr(module, BESIDE, True)
        setattr(head, ATTRIBUTE, heads)
        head.register_forward_hook(_join)

    def usable_rows(self, rows: datasets.Dataset, name: str, tokenizer: PreTrainedTokenizerBase) -> datasets.Dataset:
        """Return the pairs with versions of their responses, made once and kept."""
        rows = super().usable_rows(rows, name, tokenizer)
        made, parts = self.spo.versions, self.completions or self.spo.versions.degraded_sides
        if brought(rows, parts, made, name):
            say(f"{name}: rows bring versions of their own; extractor, shares and removal of spo.versions are not used")
            return rows
        model = "" if self._finds is None else identity_of(self._finds, adapters=None)  # as it is: rows may come later
        found = degraded(rows, tokenizer, made, parts=parts, surprisals=self._surprisals, model=model, name=name)
        if found.missing:
            share = f"{100 * found.missing:.1f} %"
            say(f"{name}: {share} of versions equal another one, for want of key content, and are left out")
        return found.dataset

    # ---- heads: made, optimised, kept --------------------------------------------------------------------------

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """Make the optimiser, the heads in a group of their own with their own learning rate, without decay."""
        first = self.optimizer is None
        optimizer: torch.optim.Optimizer = super().create_optimizer(*args, **kwargs)
        rate = self.spo.head.learning_rate
        if not first or rate is None:
            return optimizer
        own = [parameter for parameter in self._heads.parameters() if parameter.requires_grad]
        numbers = set(map(id, own))
        for group in optimizer.param_groups:
            group["params"] = [parameter for parameter in group["params"] if id(parameter) not in numbers]
        optimizer.add_param_group({"params": own, "lr": rate, "weight_decay": 0.0})
        return optimizer

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        # First: a checkpoint counts as whole once transformers has written its state, which it does last.
        if self.is_world_process_zero():
            folder = Path(self._get_output_dir(trial=None)) / f"checkpoint-{self.state.global_step}"
            folder.mkdir(parents=True, exist_ok=True)
            state = {name: value.detach().cpu().contiguous() for name, value in self._heads.state_dict().items()}
            save_file(state, folder / HEAD_FILE)
        super()._save_checkpoint(*args, **kwargs)

    def restore(self, checkpoint: Path) -> None:
        """Take the heads from a checkpoint.

        Raises:
            ValueError: if it has none.
        """
        super().restore(checkpoint)
        if not (checkpoint / HEAD_FILE).is_file():
            raise ValueError(f"{checkpoint} holds no {HEAD_FILE}: the run it is of had no degree heads")
        try:
            self._heads.load_state_dict(load_file(checkpoint / HEAD_FILE))
        except RuntimeError as error:
            raise ValueError(
                f"{checkpoint / HEAD_FILE} is of other degree heads than spo asks for (degrees, head, loss): go on "
                "with the settings of the run it is of"
            ) from error

    def _load_best_model(self) -> None:
        super()._load_best_model()
        self._heads.load_state_dict(load_file(Path(str(self.state.best_model_checkpoint)) / HEAD_FILE))

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        """Clip the policy and the heads apart, so that heads do not make the policy's steps small."""
        if self.engine.name not in PLAIN:  # DeepSpeed clips by itself, all together
            return super()._clip_grad_norm(model)  # type: ignore[no-untyped-call]
        self.accelerator.unscale_gradients()  # once: accelerate's own clipping would do it again
        heads = set(map(id, self._heads.parameters()))
        found = [parameter for parameter in model.parameters() if parameter.grad is not None]
        _, norm = (
            torch.nn.utils.clip_grad_norm_([p for p in found if (id(p) in heads) is own], self.args.max_grad_norm)
            for own in (True, False)
        )
        return norm

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        found = self.accelerator.unwrap_model(self.model).state_dict() if state_dict is None else state_dict
        super()._save(output_dir, without(found, ATTRIBUTE))

    def _head_of(self, side: str) -> DegreeHead:
        head = self._heads[-1 if side == "rejected" else 0]  # one of both sides, or of the only one, is both
        assert isinstance(head, DegreeHead)
        return head

    @property
    def _heads(self) -> nn.ModuleList:
        heads: nn.ModuleList = getattr(output_head(self.accelerator.unwrap_model(self.model)), ATTRIBUTE)
        return heads

    # ---- versions ----------------------------------------------------------------------------------------------

    def _hidden(self, model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, TokenLogps]:
        """Return a hidden state of each version, and in evaluation the log-probabilities of its tokens."""
        completion = batch[f"{PREFIX}completion_mask"]
        states: list[Tensor] = []
        settings = self.spo.head
        layout = self.speed.layout(batch, f"{PREFIX}packed_")
        if layout is not None:
            return self._packed_hidden(model, layout)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not settings.detached):
            logps = completion_logps(
                model,
                output_head(self.accelerator.unwrap_model(model)),
                input_ids=batch[f"{PREFIX}input_ids"],
                attention_mask=batch[f"{PREFIX}attention_mask"],
                completion_mask=_last(completion) if model.training else completion,
                read_states=lambda found: states.append(layer_states(found, settings.layer)),
            )
        return pooled(states[0], completion, settings.pooling), logps

    def _packed_hidden(self, model: nn.Module, layout: Layout) -> tuple[Tensor, TokenLogps]:
        """Return the same of versions that share what they begin with."""
        states: list[Tensor] = []
        settings = self.spo.head
        inner = self.accelerator.unwrap_model(model)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not settings.detached):
            logps = packed_logps(
                model,
                output_head(inner),
                layout.last() if model.training else layout,
                read_states=lambda found: states.append(layer_states(found, settings.layer)),
                tiled=self.speed.head(inner, output_head(inner)),
            )
        of_completions = states[0].flatten(0, 1)[layout.places][layout.edges]
        return pooled(of_completions, layout.scored, settings.pooling), logps

    def _of_degrees(self, batch: Mapping[str, Tensor], logps: TokenLogps, pairs: int) -> dict[str, Tensor]:
        """Return the log-probabilities of a batch's versions by degree, and their rank correlation with the degree."""
        found, summed = dict[str, Tensor](), logps.summed()
        degrees, of_chosen, pair = (batch[f"{PREFIX}{name}"] for name in ("of", "chosen", "pair"))
        for side in self.spo.versions.degraded_sides:
            rows = of_chosen if side == "chosen" else ~of_chosen
            for name, values in (("logps", summed.logps), ("mean_logps", summed.mean_logps)):
                table = values.new_full((pairs, self.spo.versions.degrees), torch.nan)
                table[pair[rows], degrees[rows]] = values[rows]
                found |= {f"spo/{name}/{side}_{degree}": column for degree, column in enumerate(table.T)}
            found[f"spo/rank_correlation/{side}"] = torch.stack([_rank_correlation(row) for row in table])
        return found

    def _surprisals(self, answers: Sequence[Answer]) -> list[list[float]]:
        assert self._finds is not None
        sequences = [(answer.prompt_ids, answer.ids) for answer in answers]
        before = next(self._finds.parameters()).device
        self._finds.to(self.start_device)
        found = surprisals(self._finds, output_head(self._finds), sequences, label="surprisal")
        self._finds.to(before)
        return found


def _join(head: nn.Module, args: Any, output: Tensor) -> Tensor:
    """Let whoever looks at a forward see that the heads are trained with it, wherever their loss is computed."""
    first = [parameter.reshape(-1)[0] for parameter in getattr(head, ATTRIBUTE).parameters()]
    return joined(output, torch.stack(first)) if torch.is_grad_enabled() else output


def _last(completion_mask: Tensor) -> Tensor:
    """Return a mask of the last completion token of each row alone."""
    place = torch.arange(completion_mask.shape[1], device=completion_mask.device)
    return place == place.where(completion_mask, -1).amax(1, keepdim=True)


def _rank_correlation(mean_logps: Tensor) -> Tensor:
    """Return Spearman's correlation of a pair's mean log-probabilities with their degree, NaN for one version."""
    there = ~mean_logps.isnan()
    degrees = torch.arange(len(mean_logps), device=mean_logps.device)
    return mean_logps.new_tensor(rank_correlation(degrees[there].float(), mean_logps[there]))
