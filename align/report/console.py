"""What a run says on the terminal: lines and stages, from the main process only, never in a bar's way."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm


def is_main() -> bool:
    """Whether this is the only process, or the first of several, as launchers number them."""
    return int(os.environ.get("RANK", "0")) == 0


def say(text: str) -> None:
    """Print a line above any progress bar."""
    if is_main():
        tqdm.write(text)


@contextmanager
def stage(text: str) -> Iterator[None]:
    """Show that something without countable steps is going on, with a running clock; then say how long it took."""
    if not is_main():
        yield
        return
    start, over = time.perf_counter(), threading.Event()
    with tqdm(desc=text, bar_format="{desc} ... {elapsed}", leave=False) as bar:
        clock = threading.Thread(target=_tick, args=(bar, over), daemon=True)
        clock.start()
        try:
            yield
        finally:
            over.set()
            clock.join()
    say(f"{text}: {time.perf_counter() - start:.1f} s")


def _tick(bar: "tqdm[None]", over: threading.Event) -> None:
    while not over.wait(0.5):
        bar.refresh()
