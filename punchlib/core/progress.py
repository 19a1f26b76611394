"""Time as this process has lived it.

A process that gets no CPU cannot do in two seconds what it can otherwise, and to give up then and
begin anew makes only more load. So what an attempt may take is counted in the process's own
progress: it looks every `STEP`, and a look that comes late counts for little more than one that
comes in time.
"""

from __future__ import annotations

#: Seconds between two looks, and the most that one counts.
STEP = 0.1
MOST = 0.15
#: Something that may take long is looked at this often at the least, in all.
LOOKS = 25
LONGEST_STEP = 1.0


class Progress:
    """Counts; it is told the time.

    Args:
        now: seconds.
        expected: how long what is timed may take: a long time needs no frequent looks.

    Attributes:
        step: seconds between two looks.
        lived: seconds of the process's own.
        stood_still: seconds beyond them.
    """

    def __init__(self, now: float, *, expected: float = 0.0) -> None:
        self.step = min(max(STEP, expected / LOOKS), LONGEST_STEP)
        self.lived = self.stood_still = 0.0
        self._last = now

    def tick(self, now: float) -> None:
        """To be called every `step`, or more often."""
        passed, self._last = max(0.0, now - self._last), now
        most = self.step * MOST / STEP
        self.lived += min(passed, most)
        self.stood_still += max(0.0, passed - most)
