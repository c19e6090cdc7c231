"""What the person at the terminal sees: one line per step, with the seconds that it took."""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator


class DevclusterError(Exception):
    """Something that the person has to know or do; shown as one line, without a traceback."""


def say(line: str) -> None:
    """Prints one line for people; standard output is left to what programs read."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


class Step:
    """A step under way: `detail` is what it does now, shown with the elapsed seconds."""

    # A log (no terminal) gets a line now and then, a terminal one line that keeps changing.
    _LOG_EVERY_S = 15.0
    _REDRAW_EVERY_S = 0.5

    def __init__(self, title: str) -> None:
        """Starts the clock and the ticker.

        Args:
            title: What the step does, in a few words.
        """
        self.title = title
        self.detail = ""
        self._start = time.monotonic()
        self._live = sys.stderr.isatty()
        self._over = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)
        self._ticker.start()

    @property
    def seconds(self) -> float:
        """How long the step has taken so far."""
        return time.monotonic() - self._start

    def _tick(self) -> None:
        while not self._over.wait(self._REDRAW_EVERY_S if self._live else self._LOG_EVERY_S):
            line = f"  … {self.title} ({self.seconds:.0f} s) {self.detail}"
            if self._live:
                sys.stderr.write(f"\r\x1b[K{line[:118]}")
                sys.stderr.flush()
            else:
                say(line)

    def finish(self, mark: str) -> None:
        """Stops the ticker and prints the step's last line."""
        self._over.set()
        self._ticker.join()
        if self._live:
            sys.stderr.write("\r\x1b[K")
        say(f"  {mark} {self.title} ({self.seconds:.1f} s)")


@contextlib.contextmanager
def step(title: str) -> Iterator[Step]:
    """Shows a step while its block runs, and how it ended."""
    shown = Step(title)
    try:
        yield shown
    except BaseException:
        shown.finish("✗")
        raise
    shown.finish("✓")
