"""What an optimiser step sends under each engine, and how long a step takes with it."""

from dataclasses import dataclass

from align.models.gpus import Gpus
from align.models.shares import SHARDS_WEIGHTS, EngineName, Training


@dataclass(frozen=True, slots=True, kw_only=True)
class Passes:
    """How often weights are read in an optimiser step.

    Attributes:
        batches: of a step on one process.
        policy: times that a batch goes through the policy, its backward as one.
        reference: times that it goes through a second model.
        last_backward: share of the step's computing that is the last batch's backward.
    """

    batches: float
    policy: int
    reference: int
    last_backward: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What is sent in an optimiser step: bytes of whole tensors, once each for gathering and for reducing to shards.

    Attributes:
        beside: sent while something is computed.
        during: share of the step's computing that it can be sent in.
        apart: sent while nothing is computed.
    """

    beside: float
    during: float
    apart: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """Seconds of an optimiser step.

    Attributes:
        computing: all operations at the speed that is reached.
        sending: all that is sent at the speed of the links, hidden or not.
        waiting: the part of it that computing does not hide.
    """

    computing: float
    sending: float
    waiting: float

    @property
    def total(self) -> float:
        """Seconds of a step; the optimiser's update, some hundredths of one, is left out."""
        return self.computing + self.waiting


def traffic(engine: EngineName, training: Training, passes: Passes) -> Traffic:
    """Return what a step sends.

    - ``ddp`` reduces gradients to everyone (twice their bytes, in their own type) while the last backward goes on.
    - ``zero1`` and ``zero2`` do so too, ``zero2`` after every batch: buckets are reduced whole
      (``use_multi_rank_bucket_allreduce``) on the stream that computes (``overlap_comm`` is on for stage 3 alone);
      then the weights that were updated are gathered.
    - ``zero3`` and ``fsdp2`` gather weights for every pass, and reduce gradients to shards: ``zero3`` after every
      batch, ``fsdp2`` after the last where it does not after each. Both go on while other layers compute. What is not
      sharded again, such as FSDP2's tail after a forward, counts all the same.
    """
    each, trained = training.computed, training.counts.trainable
    if engine == "ddp":
        return Traffic(beside=2.0 * training.counts.trainable_bytes, during=passes.last_backward, apart=0.0)
    gradients = each * trained if engine == "fsdp2" or training.mixed else 4.0 * trained
    if engine not in SHARDS_WEIGHTS:
        reductions = passes.batches if engine == "zero2" else 1.0
        return Traffic(beside=0.0, during=0.0, apart=2 * gradients * reductions + each * trained)
    other = training.reference
    second = 0.0 if other is None else float(training.mixed or other.weight_bytes / other.parameters) * other.parameters
    gathered = passes.batches * (passes.policy * each * training.counts.parameters + passes.reference * second)
    reductions = 1.0 if engine == "fsdp2" and not training.reduces_each else passes.batches
    return Traffic(beside=gathered + reductions * gradients, during=1.0, apart=0.0)


def step_time(sent: Traffic, computing: float, gpus: Gpus) -> StepTime:
    """Return the seconds of a step that computes for so many seconds on each GPU."""
    beside, apart = gpus.gathering(sent.beside), gpus.gathering(sent.apart)
    return StepTime(
        computing=computing,
        sending=beside + apart,
        waiting=max(0.0, beside - sent.during * computing) + apart,
    )
