"""A story in words: plain lines, the same on a terminal and in a file. Pure."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from crossfold_cli.explain.asking import Asking
from crossfold_cli.explain.looks import Look
from crossfold_cli.explain.story import Comparison, RunLine, TrialStory, TuneStory
from crossfold_cli.view import score_text, value_text
from crossfold_trainer.contract.metrics import Direction

_LISTED = 12
"""Rows of trials that a line lists."""


def of_trial(story: TrialStory) -> list[str]:
    """A trial's story."""
    score = "" if story.score is None else f", score {score_text(story.score, story.std)}"
    lines = [f"Trial {story.trial} of Tune {story.tune} ({story.name}): {story.phase}{score}"]
    lines += ["", "Why these parameters"]
    lines += [f"  {name} = {value_text(value)}" for name, value in story.parameters.items()]
    lines += _indent(_asking(story.asking, story.asked))
    lines += ["", "Its runs"]
    lines += _indent(_runs(story.runs))
    if not story.pruning:
        lines += ["", "What pruning saw inside its first run"]
        lines += _indent(_inside(story))
    lines += ["", "What racing saw"]
    lines += _indent(_looks(story))
    lines += ["", "What became of it"]
    lines += _indent(_end(story))
    return lines


def of_tune(story: TuneStory) -> list[str]:
    """A Tune's story."""
    why = f": {story.why}" if story.why else ""
    lines = [f"Tune {story.tune} is {story.phase}{why}"]
    lines += [f"  objective  {story.objective}"]
    if story.sampler:
        lines += [f"  sampler    {story.sampler}"]
    if story.history_digest and not story.history_reproduced:
        lines += [
            "             it was told other things than the objects say now: trials were deleted or changed since"
        ]
    counted = ", ".join(f"{count} {name}" for name, count in story.trials.items() if count)
    lines += [f"  trials     {counted or 'none yet'}"]
    counted = ", ".join(f"{count} {name}" for name, count in story.runs.items() if count)
    lines += [f"  runs       {counted or 'none yet'}"]
    lines += [f"  {name:<10} {story.summary[name]}" for name in ("gpu", "saved", "eta") if name in story.summary]
    lines += ["", "Who leads, and why"]
    if story.leader is None:
        lines += ["  no trial is complete yet"]
    else:
        lines += [f"  trial {story.leader.trial} with {_number(story.leader.score)}"]
        lines += [f"    {', '.join(f'{name}={value_text(value)}' for name, value in story.parameters.items())}"]
        lines += _indent(_indent(_lead(story.comparison)))
    if story.records:
        steps = " -> ".join(f"{_number(told.score)} (trial {told.trial})" for told in story.records)
        moved = "rose" if story.direction is Direction.MAXIMIZE else "fell"
        lines += ["", f"How the best score {moved}", f"  {steps}"]
    for phase, trials in story.others.items():
        lines += ["", f"{phase}: {len(trials)}"]
        lines += [f"  trial {told.trial}{f': {told.why}' if told.why else ''}" for told in trials]
    return lines


def _asking(asking: Asking, asked: datetime) -> list[str]:
    lines = [f"chosen by {asking.sampler} {_when(asked)}, {asking.how}"]
    if asking.informed_by:
        lines.append(f"learned from trials {numbers_text(asking.informed_by)}")
    if asking.started_from:
        tunes = sorted({text.rpartition("/")[0] for text in asking.started_from})
        lines.append(f"started from {len(asking.started_from)} trials of {', '.join(tunes)}")
    if asking.informed_by and asking.running:
        lines.append(f"kept away from trials {numbers_text(asking.running)}, which were under way")
    if asking.good:
        lines.append(f"looked near trials {numbers_text(asking.good)}, the best of them")
    if asking.best is not None:
        lines.append(f"the best then: trial {asking.best[0]} with {_number(asking.best[1])}")
    if asking.reproduced is False:
        lines.append(
            "asked once more with what the objects say was known then, the sampler chooses otherwise: trials were"
            " deleted, or the Tune was edited, since"
        )
    return lines


def _runs(runs: Sequence[RunLine]) -> list[str]:
    if not runs:
        return ["none was started"]
    lines = []
    for run in runs:
        parts = [f"fold {run.fold} seed {run.seed}", run.phase]
        if run.score is not None:
            parts.append(_number(run.score))
        if run.preemptions:
            parts.append(f"preempted {run.preemptions} times")
        if run.message:
            parts.append(run.message)
        lines.append("  ".join(parts))
    return lines


def _looks(story: TrialStory) -> list[str]:
    if story.racing:
        return [story.racing]
    lines = []
    for look in story.looks:
        refs = f", noise from {look.references} trials" if look.references else ""
        bar = f", against trial {look.incumbent}{refs}" if look.incumbent is not None else ""
        lines.append(f"{look.at:%H:%M:%S}  {look.text}{bar}")
        if look.recorded:
            lines.append(f"          (written down by the operator; {_once_more(look)})")
        elif look.prune:
            lines.append("          (it went on all the same: alpha, or what was known in that second, was otherwise)")
    if story.untold:
        lines.append(
            "what was not written down cannot be told: TrainRuns are gone, and with them when"
            f" {story.untold} of its runs ended"
        )
    return lines or ["no look was taken: no run had ended while another trial was complete"]


def _once_more(look: Look) -> str:
    if look.reproduced is None:
        return "cannot be looked at once more: TrainRuns are gone, and with them which runs had ended"
    if look.reproduced:
        return "looked at once more: the same numbers"
    if look.deleted:
        return f"looked at once more: other numbers, without trials {numbers_text(look.deleted)}, which were deleted"
    return "looked at once more: other numbers, though no trial is gone: scores, or what was written, were changed"


_OTHERWISE = "other numbers: objects were deleted, the Tune was edited, or runs ended in that same second"


def _inside(story: TrialStory) -> list[str]:
    lines = []
    for look in story.inside:
        lines.append(f"{look.at:%H:%M:%S}  {look.text}")
        if look.recorded:
            told = "the same numbers" if look.reproduced else _OTHERWISE
            lines.append(f"          (written down by the operator; looked at once more: {told})")
    return lines or ["no look was taken: racing waited for its first trials, or the run was not heard of"]


def _end(story: TrialStory) -> list[str]:
    lines = [f"{story.phase}{f' {_when(story.ended)}' if story.ended else ''}"]
    if story.outcome:
        lines[0] += f": {story.outcome}"
    compared = story.comparison
    if compared is None:
        return lines
    if compared.against is None:
        lines.append("it was the first to be complete")
    elif compared.better_by is not None:
        lines.append(
            f"{_number(story.score)} against {_number(compared.its_score)} of trial {compared.against}, the best then:"
            f" {_better_by(compared.better_by)}, and better in {compared.units_better} of {compared.units} runs"
        )
    lines.append(f"now number {compared.rank} of {compared.ranked} complete trials")
    return lines


def _lead(compared: Comparison | None) -> list[str]:
    if compared is None or compared.against is None or compared.better_by is None:
        return ["no other trial is complete"]
    text = (
        f"ahead of trial {compared.against} ({_number(compared.its_score)}) by {_number(compared.better_by)}, better in"
        f" {compared.units_better} of {compared.units} runs"
    )
    return [text]


def _better_by(difference: float) -> str:
    if difference == 0:
        return "as good"
    return f"{'better' if difference > 0 else 'worse'} by {_number(abs(difference))}"


def _indent(lines: Iterable[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def _when(at: datetime) -> str:
    return f"at {at:%Y-%m-%d %H:%M:%S} UTC"


def _number(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.4g}"


def numbers_text(numbers: Sequence[int]) -> str:
    """Numbers in their order, those in a row as one: ``0-3, 5``."""
    rows: list[list[int]] = []
    for number in numbers:
        if rows and number == rows[-1][-1] + 1:
            rows[-1].append(number)
        else:
            rows.append([number])
    texts = [str(row[0]) if len(row) == 1 else f"{row[0]}-{row[-1]}" for row in rows]
    rest = sum(map(len, rows[_LISTED:]))
    return ", ".join(texts[:_LISTED]) + (f" and {rest} more" if rest else "")
