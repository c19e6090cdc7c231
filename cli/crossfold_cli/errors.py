"""What went wrong, in words for the person at the terminal."""

from collections.abc import Sequence


class UsageError(Exception):
    """The input is not right. Shown as a list; the command ends with exit code 2.

    Attributes:
        title: what was tried.
        problems: what is wrong, one line each.
        hint: what to do, when the problems do not say it.
    """

    def __init__(self, title: str, problems: Sequence[str] = (), hint: str = "") -> None:
        super().__init__(title)
        self.title = title
        self.problems = tuple(problems)
        self.hint = hint

    def __str__(self) -> str:
        lines = [f"error: {self.title}{':' if self.problems else ''}"]
        lines += [f"  {line}" for problem in self.problems for line in problem.splitlines()]
        if self.hint:
            lines.append(self.hint)
        return "\n".join(lines)
