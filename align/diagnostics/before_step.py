"""A moment between the backward and the optimiser's step, also under DeepSpeed, which does both in one call."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def before_step(accelerator: Any, call: Callable[[], None]) -> Iterator[None]:
    """Call after the backward that is run inside, while weights are still those of the forward; once.

    Elsewhere the block ends before the step; DeepSpeed's engine steps within the backward call that accelerate makes.

    Args:
        accelerator: accelerate's, of the trainer.
        call: what to do then.
    """
    wrapped: Any = getattr(accelerator, "deepspeed_engine_wrapped", None)
    engine = None if wrapped is None else wrapped.engine
    done = False

    def once() -> None:
        nonlocal done
        if not done:
            done = True
            call()

    if engine is None:
        yield
        once()
        return
    step = engine.step

    def measured_step(*args: Any, **kwargs: Any) -> Any:
        once()
        return step(*args, **kwargs)

    engine.step = measured_step
    try:
        yield
    finally:
        del engine.step  # back to the class's own
    once()
