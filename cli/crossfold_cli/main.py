"""The `crossfold` command."""

import os
import shlex
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="crossfold",
    help="Tune and cross-validate segmentation models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_INVALID = 2
_INTERRUPTED = 130
_BROKEN_PIPE = 141
_TRAINER_VARIABLE = "CROSSFOLD_TRAINER_COMMAND"


data_app = typer.Typer(
    name="data", help="Look at data sets.", no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None
)
app.add_typer(data_app)


@app.callback()
def _root() -> None:
    """Tune and cross-validate segmentation models."""


@app.command()
def version() -> None:
    """Print the version."""
    print(f"crossfold {metadata.version('crossfold')}")


@app.command()
def run(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="Manifest of a Tune, CrossValidation or TrainRun; - is stdin.")
    ],
    *,
    overlay: Annotated[
        list[str] | None, typer.Option("--file", "-f", metavar="OVERLAY", help="Merge this file over it; repeatable.")
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Set one field, such as spec.maxTrials=4; repeatable."),
    ] = None,
    slots: Annotated[
        int | None,
        typer.Option(min=1, max=1024, help="Trainings at the same time; default: one per GPU, or one."),
    ] = None,
    state: Annotated[
        Path, typer.Option(metavar="DIR", help="Where objects and logs are kept, a folder for each object.")
    ] = Path("runs/state"),
    dev: Annotated[
        bool, typer.Option("--dev", help="A tiny run under a name of its own: few batches, epochs, folds and trials.")
    ] = False,
    watch: Annotated[bool, typer.Option(help="Show what happens while it happens.")] = True,
) -> None:
    """Run a manifest on this machine, without a cluster.

    Objects live in a folder, trainings are processes. Overlays and settings merge left to right: objects recursively,
    everything else replaces. ctrl-C stops cleanly; the same command goes on.

    Exit codes: 0 complete, 1 failed, 2 not accepted, 130 stopped by ctrl-C.
    """
    from crossfold_cli.errors import UsageError  # noqa: PLC0415 -- help and version need none of this

    try:
        code = _run(file, overlay or [], setting or [], slots=slots, base=state, dev=dev, watch=watch)
    except UsageError as error:
        print(error, file=sys.stderr)
        code = _INVALID
    except BrokenPipeError:
        # Whoever read our output has gone; Python would complain about it once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = _BROKEN_PIPE
    raise typer.Exit(code)


@app.command()
def watch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of a Tune on the cluster.")],
    *,
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", help="Its namespace; default: kubectl's current one.")
    ] = None,
) -> None:
    """Follow a Tune on the cluster that kubectl talks to, until it is over.

    Exit codes: 0 complete, 1 failed, 2 there is no such Tune, 130 stopped by ctrl-C (the Tune goes on).
    """
    from crossfold_cli.display import display_for  # noqa: PLC0415 -- as above
    from crossfold_cli.errors import UsageError  # noqa: PLC0415
    from crossfold_cli.watch import Watch, kubectl_in  # noqa: PLC0415

    try:
        good = Watch(name, kubectl_in(namespace)).follow(display_for(sys.stdout, watch=True))
    except UsageError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(_INVALID) from None
    except KeyboardInterrupt:
        print("the Tune goes on; the same command follows it again", file=sys.stderr)
        raise typer.Exit(_INTERRUPTED) from None
    raise typer.Exit(0 if good else 1)


@app.command("import")
def import_(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The other tool's file; - is stdin.")],
    *,
    source: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="FORMAT", help="darts, wandb, katib or optimizationjob; default: what it looks like."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the Tune there; default: stdout.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the Tune; default: the source's.")] = "",
    data: Annotated[str, typer.Option(metavar="URI", help="spec.data.uri: where the data set is.")] = "",
    artifacts: Annotated[str, typer.Option(metavar="URI", help="spec.artifacts.uri: where runs write.")] = "",
    metric: Annotated[str, typer.Option(help="The metric to optimise, such as val/JaccardIndex.")] = "",
    max_trials: Annotated[int | None, typer.Option(min=1, help="spec.maxTrials; default: the source's.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="spec.algorithm.seed; default: the source's.")] = None,
    rename: Annotated[
        list[str] | None,
        typer.Option(metavar="OLD=NEW", help="The source's hyperparameter OLD is NEW here; repeatable."),
    ] = None,
    drop: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Leave the source's hyperparameter out; repeatable.")
    ] = None,
) -> None:
    """Turn another tool's search into a Tune: darts, W&B, Katib, Kubeflow's OptimizationJob.

    The manifest goes to stdout, remarks on how the source was read go to stderr.

    Exit codes: 0 done, 2 not accepted.
    """
    from crossfold_cli.errors import UsageError  # noqa: PLC0415 -- as above
    from crossfold_cli.importers.convert import convert  # noqa: PLC0415
    from crossfold_cli.importers.tune import Options  # noqa: PLC0415

    try:
        pairs = dict(_pair(text) for text in rename or ())
        options = Options(name, data, artifacts, metric, max_trials, pairs, frozenset(drop or ()), seed)
        text, notes = convert(file, source, options)
        if output is not None:
            try:
                output.write_text(text, encoding="utf-8")
            except OSError as error:
                raise UsageError(f"{output} cannot be written: {error.strerror}") from error
    except UsageError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(_INVALID) from None
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    if output is None:
        print(text, end="")


@app.command()
def explain(
    target: Annotated[str, typer.Argument(metavar="tune/NAME", help="The Tune.")],
    *,
    trial: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="The story of this trial; default: of the whole Tune.")
    ] = None,
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", help="Its namespace; default: kubectl's current one.")
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of a local run; default: runs/state if the Tune is there."),
    ] = None,
    output: Annotated[str, typer.Option("--output", "-o", metavar="FORMAT", help="text or json.")] = "text",
) -> None:
    """Tell why: who leads, what was pruned, how a trial got its parameters and what was decided about it.

    Everything is worked out from the objects, by the functions that decided.

    Exit codes: 0 told, 2 there is no such Tune or trial.
    """
    from crossfold_cli.errors import UsageError  # noqa: PLC0415 -- as above
    from crossfold_cli.explain import command  # noqa: PLC0415

    try:
        text, where = command.explain(target, trial=trial, namespace=namespace, state=state, output=output)
    except UsageError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(_INVALID) from None
    print(f"from {where}", file=sys.stderr)
    print(text)


@data_app.command("check")
def data_check(
    uri: Annotated[str, typer.Argument(metavar="URI", help="s3://bucket/prefix, gs://, az://, file:// or a folder.")],
    *,
    endpoint: Annotated[str, typer.Option(metavar="URL", help="URL of the S3 server; default: the provider's.")] = "",
    region: Annotated[str, typer.Option(help="Region that requests are signed for.")] = "",
    anonymous: Annotated[bool, typer.Option("--anonymous", help="Read without credentials.")] = False,
    bands: Annotated[str, typer.Option(metavar="NAME,...", help="Only these bands; default: all.")] = "",
    folds: Annotated[int, typer.Option(min=2, max=100, help="Cut the patches into so many folds.")] = 5,
    seed: Annotated[int, typer.Option(min=0, max=9999, help="Seed of the folds.")] = 42,
    scale: Annotated[
        tuple[float, float] | None,
        typer.Option(metavar="MIN MAX", help="data.scale: the values of x that become 0 and 1; default: 0 1."),
    ] = None,
    band_scale: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=MIN,MAX", help="data.scale.bands: the same for one band; repeatable."),
    ] = None,
    non_finite: Annotated[
        str, typer.Option(metavar="POLICY", help="data.nonFinite: Error, or Ignore where NaN is meant.")
    ] = "Error",
    pixels: Annotated[bool, typer.Option(help="Read all patches; without, documents and listing alone.")] = True,
    output: Annotated[str, typer.Option("--output", "-o", metavar="FORMAT", help="text or json.")] = "text",
) -> None:
    """Check a data set: all that is wrong with it at once, and what it holds.

    These are the checks that a run makes, of all patches. Credentials come from the environment (AWS_ACCESS_KEY_ID,
    AWS_SECRET_ACCESS_KEY).

    Exit codes: 0 right (perhaps with warnings), 1 wrong, 2 it could not be checked, 130 stopped by ctrl-C.
    """
    from crossfold_cli import data  # noqa: PLC0415 -- as above
    from crossfold_cli.errors import UsageError  # noqa: PLC0415

    try:
        spec = data.spec_of(
            uri,
            endpoint=endpoint,
            region=region,
            anonymous=anonymous,
            scale=scale,
            band_scales=band_scale or (),
            non_finite=non_finite,
        )
        chosen = tuple(name.strip() for name in bands.split(",") if name.strip()) or None
        good = data.check(spec, data.Options(chosen, folds, seed, pixels, output))
    except UsageError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(_INVALID) from None
    except KeyboardInterrupt:
        raise typer.Exit(_INTERRUPTED) from None
    raise typer.Exit(0 if good else 1)


def _pair(text: str) -> tuple[str, str]:
    from crossfold_cli.errors import UsageError  # noqa: PLC0415

    old, sign, new = text.partition("=")
    if not (old and sign and new):
        raise UsageError(f"--rename {text} is no pair: write it as OLD=NEW, such as lr=learning_rate")
    return old, new


def _run(
    file: str, overlays: list[str], settings: list[str], *, slots: int | None, base: Path, dev: bool, watch: bool
) -> int:
    import asyncio  # noqa: PLC0415

    from crossfold_cli import local, manifest  # noqa: PLC0415
    from crossfold_cli.dev import tiny  # noqa: PLC0415
    from crossfold_cli.display import display_for  # noqa: PLC0415
    from crossfold_cli.errors import UsageError  # noqa: PLC0415
    from crossfold_operator.cluster.kubelet import DEFAULT_COMMAND  # noqa: PLC0415
    from crossfold_operator.cluster.slots import slots as find_slots  # noqa: PLC0415

    obj = manifest.load(file, overlays, [] if dev else settings)
    if dev:
        obj, told = tiny(obj)
        obj = manifest.apply_settings(obj, settings)
        print(f"--dev: {' '.join(told)}")
    source = " + ".join([file, *overlays])
    obj = local.check(manifest.absolute_uris(obj, Path.cwd()), source)
    obj["metadata"].setdefault("namespace", "default")
    places = find_slots(slots)
    parallelism = obj["spec"].get("parallelism", 1)
    if len(places) > parallelism:
        print(
            f"note: {len(places)} slots, but spec.parallelism is {parallelism}:"
            f" --set spec.parallelism={len(places)} uses them all"
        )
    trainer = shlex.split(os.environ.get(_TRAINER_VARIABLE, "")) or DEFAULT_COMMAND
    command = shlex.join(["crossfold", *sys.argv[1:]])
    options = local.Options(local.state_folder(base, obj), places, command, trainer)
    try:
        local.log_to_file(options.state)
    except OSError as error:
        raise UsageError(f"--state {base} cannot be used: {error.strerror}") from error
    return asyncio.run(local.LocalRun(obj, options, display_for(sys.stdout, watch=watch)).run())


def main() -> None:
    """Run the command."""
    app()


if __name__ == "__main__":
    main()
