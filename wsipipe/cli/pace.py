"""How fast tissue tiles go through the model just now, and when slides and run will be through."""

from collections import deque

RECENT = 8  # finished blocks over which the pace is taken


class Pace:
    """Counts the tiles of all slides of a run: they share the model, so a slide's pace is not its own."""

    def __init__(self) -> None:
        """Begin without slides."""
        self.begin(0)

    def begin(self, slides: int) -> None:
        """Start anew with a number of slides of which nothing is known."""
        self.slides, self._left_out, self._sum = slides, 0, 0
        self._totals: dict[str, int] = {}
        self._done: dict[str, int] = {}
        self._seen: deque[tuple[float, int]] = deque(maxlen=RECENT + 1)

    def plan(self, slide: str, total: int, done: int, now: float) -> None:
        """Take a slide into account; total: its tissue tiles, done: those of an earlier run."""
        self._totals[slide], self._done[slide] = total, done
        if not self._seen:
            self._seen.append((now, 0))

    def advance(self, slide: str, done: int, now: float) -> None:
        """Note that more tiles of a slide are done."""
        self._sum += done - self._done[slide]
        self._done[slide] = done
        self._seen.append((now, self._sum))

    def end(self, slide: str) -> None:
        """Note that nothing more will come from a slide."""
        if slide in self._totals:
            self._done[slide] = self._totals[slide]
        else:
            self._left_out += 1

    @property
    def rate(self) -> float:
        """Tiles per second over the last blocks of all slides; 0 as long as it is not known."""
        if len(self._seen) < 2:
            return 0.0
        (began, first), (ended, last) = self._seen[0], self._seen[-1]
        return (last - first) / max(1e-9, ended - began)

    def slide_left(self, slide: str) -> float | None:
        """Return the seconds until a slide is through the model: slides that were planned before it go first."""
        tiles = 0
        for name, total in self._totals.items():
            tiles += total - self._done[name]
            if name == slide:
                break
        return self._seconds(tiles)

    def run_left(self) -> float | None:
        """Return the seconds until all slides are; one that is not planned yet counts as the mean of those that are."""
        known = len(self._totals)
        planned = sum(self._totals.values())
        coming = max(0, self.slides - known - self._left_out) * (planned / known if known else 0)
        return self._seconds(planned - sum(self._done.values()) + coming)

    def _seconds(self, tiles: float) -> float | None:
        return tiles / self.rate if self.rate > 0 else None
