"""Problems of a finished folder, collected by kind, so that a million of one kind are still one line."""

from collections.abc import Iterable

SHOWN = 5


class Findings:
    """Kinds of problems in the order in which they were first met, each with a count and its first examples."""

    def __init__(self) -> None:
        """Begin without problems."""
        self._kinds: dict[str, tuple[int, list[str]]] = {}

    def add(self, kind: str, examples: Iterable[object] = ()) -> None:
        """Note a problem.

        Args:
            kind: where and what, `file: what is wrong`.
            examples: the things that have it; without any the kind stands for itself.
        """
        names = [str(example) for example in examples]
        count, shown = self._kinds.get(kind, (0, []))
        self._kinds[kind] = (count + len(names), (shown + names)[:SHOWN])

    def add_if(self, kind: str, examples: Iterable[object]) -> None:
        """Note a problem of these things, if there are any."""
        names = list(examples)
        if names:
            self.add(kind, names)

    def lines(self) -> list[str]:
        """Return one line for each kind."""
        return [_line(kind, count, shown) for kind, (count, shown) in self._kinds.items()]


def _line(kind: str, count: int, shown: list[str]) -> str:
    if not count:
        return kind
    rest = f" and {count - len(shown)} more" if count > len(shown) else ""
    return f"{kind}: {', '.join(shown)}{rest}"
