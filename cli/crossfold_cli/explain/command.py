"""`crossfold explain`: the objects are found, the story is told."""

import json
from pathlib import Path

from pydantic import ValidationError

from crossfold_cli.asjson import as_json
from crossfold_cli.errors import UsageError
from crossfold_cli.explain import source, story, words
from crossfold_cli.explain.past import Past, Seen, past_of
from crossfold_cli.watch import kubectl_in
from crossfold_operator import problems

STATE = Path("runs/state")
"""Where `crossfold run` keeps objects by default."""
FORMATS = ("text", "json")


def explain(
    target: str, *, trial: int | None, namespace: str | None, state: Path | None, output: str
) -> tuple[str, str]:
    """The story of a Tune, or of one of its trials.

    Args:
        target: ``tune/NAME``.
        trial: number of the trial; None: the whole Tune.
        namespace: on the cluster; None: kubectl's current one.
        state: folder of a local run; None: where `crossfold run` has it, if it is there, else the cluster.
        output: ``text`` or ``json``.

    Returns:
        The story, and where the objects were found.

    Raises:
        UsageError: there is no such Tune or trial.
    """
    if output not in FORMATS:
        raise UsageError(f"-o {output} is not known: use {' or '.join(FORMATS)}")
    name = source.name_of(target)
    if state is None and namespace is None and source.is_local(name, STATE):
        state = STATE
    if state is not None:
        found, where = source.from_folder(name, state), str(state / f"tune-{name}")
    else:
        found, where = source.from_cluster(name, kubectl_in(namespace)), "the cluster"
    try:
        past = past_of(found.tune, found.cross_validations, found.train_runs, found.sources)
    except ValidationError as error:
        raise UsageError(f"Tune {name} cannot be read: it is of another version", problems.of_error(error)) from error
    told = story.tune_story(past) if trial is None else story.trial_story(past, _trial(past, trial))
    if output == "json":
        return json.dumps(as_json(told), indent=2, ensure_ascii=False), where
    return "\n".join(words.of_tune(told) if isinstance(told, story.TuneStory) else words.of_trial(told)), where


def _trial(past: Past, number: int) -> Seen:
    seen = past.get(number)
    if seen is not None:
        return seen
    if past.asked == 0:
        raise UsageError(f"--trial {number}: Tune {past.name} has asked no trial yet")
    if 0 <= number < past.asked:
        raise UsageError(f"--trial {number}: its CrossValidation was deleted, and its story with it")
    raise UsageError(f"--trial {number} does not exist: Tune {past.name} has trials 0 to {past.asked - 1}")
