"""Files as their projects document them, and what Tune they mean."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from crossfold_cli.errors import UsageError
from crossfold_cli.importers.convert import FORMATS, convert
from crossfold_cli.importers.tune import Options
from crossfold_cli.main import app
from crossfold_cli.yamljson import load_all
from crossfold_operator import problems
from crossfold_operator.api.tune import TuneSpec
from crossfold_operator.cluster.admission import admit
from crossfold_trainer.contract.metrics import KNOWN_OBJECTIVES

FILES = Path(__file__).parent / "imports"

ENCODERS = {"name": "model_encoder", "type": "Categorical", "values": ["resnet18", "resnet34"]}
LEARNING_RATE = {"name": "learning_rate", "type": "Float", "min": 1e-5, "max": 1e-2, "scale": "Log"}
DARTS = [
    {"name": "model_encoder", "type": "Categorical", "values": ["resnet18", "resnet34", "dpn107"]},
    {"name": "augment", "type": "Categorical", "values": [[], ["HorizontalFlip", "VerticalFlip"]]},
    LEARNING_RATE,
    {"name": "gamma", "type": "Float", "min": 0.9, "max": 0.999, "scale": "ReverseLog"},
    {"name": "focal_loss_alpha", "type": "Float", "min": 0.1, "max": 0.9},
    {"name": "focal_loss_gamma", "type": "Float", "min": 0, "max": 5},
    {"name": "batch_size", "type": "Int", "min": 4, "max": 16},
]
DARTS_FIXED = [{"name": "model_arch", "value": "Unet"}, {"name": "bands", "value": ["red", "green", "nir"]}]


def imported(
    tmp_path: Path, text: str, source: str | None, file_name: str = "a.yaml", **options: Any
) -> tuple[Any, list[str]]:
    file = tmp_path / file_name
    file.write_text(text)
    printed, notes = convert(str(file), source, Options(**options))
    return accepted(printed), notes


def accepted(printed: str) -> Any:
    """The printed Tune, which admission and the operator take as it is."""
    (tune,) = load_all(printed)
    admitted, found = admit(tune)
    assert found == []
    assert problems.of_spec(TuneSpec.model_validate(admitted["spec"])) == []
    return tune


def refused(tmp_path: Path, text: str, source: str | None, file_name: str = "a.yaml", **options: Any) -> str:
    with pytest.raises(UsageError) as caught:
        imported(tmp_path, text, source, file_name, **options)
    return str(caught.value)


def by_name(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(items, key=lambda item: item["name"])


# Whole files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["darts.yaml", "darts.toml"])
def test_darts(file: str) -> None:
    printed, notes = convert(str(FILES / file), None, Options(data="s3://b/d", artifacts="s3://b/a"))
    tune = accepted(printed)
    assert by_name(tune["spec"].pop("parameters")) == by_name(DARTS)
    assert by_name(tune["spec"].pop("fixed")) == by_name(DARTS_FIXED)
    assert tune == {
        "apiVersion": "crossfold.dev/v1alpha1",
        "kind": "Tune",
        "metadata": {"name": "darts"},
        "spec": {
            "objective": {"metrics": [{"name": "val/JaccardIndex"}]},
            "algorithm": {"name": "TPE"},
            "maxTrials": 20,
            "parallelism": 1,
            "crossValidation": {"folds": 5, "seeds": [42]},
            "data": {"uri": "s3://b/d"},
            "artifacts": {"uri": "s3://b/a"},
        },
    }
    assert notes == [
        "spec.objective: PLACEHOLDER: --metric NAME",
        "spec.maxTrials: PLACEHOLDER: the source has no limit; --max-trials N",
    ]


def test_wandb() -> None:
    printed, notes = convert(str(FILES / "wandb.yaml"), None, Options(drop=frozenset({"epochs"})))
    tune = accepted(printed)
    assert tune["metadata"] == {"name": "forest-sweep"}
    assert tune["spec"]["parameters"] == [
        ENCODERS,
        {"name": "augment", "type": "Categorical", "values": [[], ["D4"]]},
        LEARNING_RATE,
        {"name": "x-weight-decay", "type": "Float", "min": 1e-6, "max": 1e-3, "scale": "Log"},
        {"name": "focal_loss_gamma", "type": "Float", "min": 0, "max": 5},
        {"name": "focal_loss_alpha", "type": "Float", "min": 0.25, "max": 0.75, "step": 0.25},
        {"name": "batch_size", "type": "Int", "min": 4, "max": 16},
    ]
    assert tune["spec"]["fixed"] == [{"name": "model_arch", "value": "Unet"}]
    assert tune["spec"]["algorithm"] == {"name": "TPE"}
    assert tune["spec"]["objective"] == {"metrics": [{"name": "val/JaccardIndex"}]}
    assert tune["spec"]["maxTrials"] == 60
    for left, line in (("program", 1), ("project", 3), ("early_terminate", 9), ("epochs", 39)):
        assert any(note.startswith(f"line {line}: '{left}' is not carried over") for note in notes), left
    assert any("'probabilities' of 'model_encoder' is not carried over" in note for note in notes)
    assert "spec.data: PLACEHOLDER: --data URI" in notes


def test_katib() -> None:
    rename = {"lr": "learning_rate", "num-layers": "x-num-layers"}
    printed, notes = convert(str(FILES / "katib.yaml"), None, Options(rename=rename))
    tune = accepted(printed)
    assert tune["metadata"] == {"name": "random"}
    assert tune["spec"]["parameters"] == [
        LEARNING_RATE,
        {"name": "focal_loss_gamma", "type": "Float", "min": 0.5, "max": 0.9, "step": 0.1},
        {"name": "x-num-layers", "type": "Int", "min": 2, "max": 5},
        {"name": "batch_size", "type": "Categorical", "values": [4, 8, 16]},
        {"name": "gamma", "type": "Categorical", "values": [0.9, 0.95, 1]},
        ENCODERS,
    ]
    assert "fixed" not in tune["spec"]
    assert tune["spec"]["algorithm"] == {"name": "TPE", "seed": 10, "settings": {"startupTrials": 20}}
    assert tune["spec"]["objective"] == {"metrics": [{"name": "val/Accuracy"}]}
    assert (tune["spec"]["maxTrials"], tune["spec"]["maxFailedTrials"], tune["spec"]["parallelism"]) == (12, 3, 3)
    assert tune["spec"]["target"] == 0.99
    told = "\n".join(notes)
    for left in (
        "metadata.namespace",
        "objective.additionalMetricNames",
        "'prior_weight'",
        "'resumePolicy'",
        "'earlyStopping'",
        "'trialTemplate'",
    ):
        assert f"{left} is not carried over" in told
    assert "metric 'Validation-accuracy' is read as val/Accuracy" in told


def test_optimization_job() -> None:
    printed, notes = convert(str(FILES / "optimizationjob.yaml"), None, Options())
    tune = accepted(printed)
    assert tune["metadata"] == {"name": "random-tuning"}
    assert tune["spec"]["parameters"] == [
        {"name": "learning_rate", "type": "Float", "min": 1e-4, "max": 0.1, "scale": "Log"},
        {"name": "focal_loss_gamma", "type": "Float", "min": 1, "max": 5},
        {"name": "x-depth", "type": "Int", "min": 1, "max": 5},
        {"name": "batch_size", "type": "Categorical", "values": [16, 32, 64]},
    ]
    assert tune["spec"]["algorithm"] == {"name": "Random", "seed": 7}
    assert tune["spec"]["objective"] == {"metrics": [{"name": "val/loss"}]}
    assert (tune["spec"]["maxTrials"], tune["spec"]["parallelism"]) == (20, 4)
    assert any("'trainJobTemplate' is not carried over" in note for note in notes)


# Traps ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("says", "parameter"),
    [
        # An explicit distribution wins over the shorthand, whatever low and high look like.
        ("{distribution: loguniform, low: 1.0e-5, high: 1.0e-2}", {"min": 1e-5, "max": 1e-2, "scale": "Log"}),
        ("{distribution: loguniform, low: 1, high: 100}", {"min": 1, "max": 100, "scale": "Log"}),
        ("{distribution: uniform, low: 1, high: 2}", {"min": 1, "max": 2}),
        # 1e-5 is a number, and a decimal one.
        ("{low: 1e-5, high: 1e-2}", {"min": 1e-5, "max": 1e-2}),
        ("{low: 1.0, high: 2.0}", {"min": 1, "max": 2}),
        (
            "{distribution: reversed_loguniform, low: 0.9, high: 0.999}",
            {"min": 0.9, "max": 0.999, "scale": "ReverseLog"},
        ),
        (
            "{distribution: reversed-loguniform, low: 0.5, high: 0.99, n: 1}",
            {"min": 0.5, "max": 0.99, "scale": "ReverseLog"},
        ),
        ("{low: 1, high: 3}", {"type": "Int", "min": 1, "max": 3}),
        ("{distribution: intuniform, low: 1, high: 3}", {"type": "Int", "min": 1, "max": 3}),
        ("[1, 2]", {"type": "Categorical", "values": [1, 2]}),
        ("[[a, b], []]", {"type": "Categorical", "values": [["a", "b"], []]}),
        ("{distribution: choice, choices: [null, 1e-3]}", {"type": "Categorical", "values": [None, 0.001]}),
        # A text that looks like a number stays a text.
        ("['1e-5', 'yes', '', 'a b']", {"type": "Categorical", "values": ["1e-5", "yes", "", "a b"]}),
    ],
)
def test_darts_ranges(tmp_path: Path, says: str, parameter: dict[str, Any]) -> None:
    tune, _ = imported(tmp_path, f"hyperparameters: {{x-a: {says}}}", "darts")
    assert tune["spec"]["parameters"] == [{"name": "x-a", "type": "Float"} | parameter]


@pytest.mark.parametrize("says", ["3", "{distribution: value, value: 3}", "{distribution: constant, value: 3}"])
def test_darts_constants(tmp_path: Path, says: str) -> None:
    tune, _ = imported(tmp_path, f"hyperparameters: {{gamma: [0.9, 1], batch-size: {says}}}", "darts")
    assert tune["spec"]["fixed"] == [{"name": "batch_size", "value": 3}]


@pytest.mark.parametrize(
    ("says", "message"),
    [
        ("{low: 1, high: 2.0}", "line 2: 'gamma' mixes a whole and a decimal bound (1, 2.0)"),
        ("{low: 0.5}", "line 2: 'gamma' needs 'high'"),
        ("{low: 0.5, high: 0.9, step: 0.1}", "line 2: 'gamma' has 'step', which is not understood here"),
        ("{low: 0.9, high: 0.5}", "line 2: the lower bound 0.9 must be below the upper one, 0.5"),
        ("{low: a, high: b}", "line 2: low of 'gamma' must be a number, not 'a'"),
        ("{low: .nan, high: 1.0}", "line 2: '.nan' cannot be read"),
        (
            "{distribution: normal, low: 0, high: 1}",
            "line 2: 'gamma' has the unknown distribution 'normal': use uniform",
        ),
        (
            "{distribution: loguniform, low: 0, high: 1}",
            "line 2: a logarithmic range needs a lower bound above 0, not 0",
        ),
        (
            "{distribution: intuniform, low: 0.5, high: 3}",
            "line 2: an integer range needs whole numbers, not 0.5 and 3",
        ),
        ("{distribution: choice, values: [1]}", "line 2: 'gamma' with distribution choice has 'values'"),
        ("{distribution: reversed_loguniform, low: 0.5, high: 1.0}", "needs high below 1, not 1.0"),
        ("{distribution: reversed_loguniform, low: 1, high: 9, n: 10}", "only n = 1 has a counterpart"),
        ("{}", "line 2: 'gamma' is empty"),
        ("[]", "line 2: 'gamma' is empty: list at least one"),
        (
            "[0.5, 2]",
            "line 2: 'gamma': values[1]: hyperparameter 'gamma' must be a number in (0, 1]",
        ),
        ("0.5", "there is nothing to search"),
    ],
)
def test_what_darts_cannot_mean(tmp_path: Path, says: str, message: str) -> None:
    assert message in refused(tmp_path, f"hyperparameters:\n  gamma: {says}\n", "darts")


def test_a_list_of_augmentations_is_a_choice_between_them(tmp_path: Path) -> None:
    said = refused(tmp_path, "hyperparameters:\n  augment: [D4, Blur]\n", "darts")
    assert "line 2: 'augment': values[0]: hyperparameter 'augment' must be a list" in said


SWEEP = "method: {method}\nparameters:\n  x-a: {says}\n"


@pytest.mark.parametrize(
    ("says", "parameter"),
    [
        ("{min: 1, max: 4}", {"type": "Int", "min": 1, "max": 4}),
        ("{min: 0, max: 1.0}", {"min": 0, "max": 1}),
        ("{min: 1.0, max: 4.0}", {"min": 1, "max": 4}),
        ("{distribution: uniform, min: 0, max: 1}", {"min": 0, "max": 1}),
        ("{distribution: int_uniform, min: 1, max: 4}", {"type": "Int", "min": 1, "max": 4}),
        ("{values: [a, 1, [b]]}", {"type": "Categorical", "values": ["a", 1, ["b"]]}),
        ("{distribution: categorical, values: [1]}", {"type": "Categorical", "values": [1]}),
        # Uniform on the scale of log(1/x) is uniform on that of log(x).
        ("{distribution: log_uniform_values, min: 1e-5, max: 1}", {"min": 1e-5, "max": 1, "scale": "Log"}),
        ("{distribution: inv_log_uniform_values, min: 1e-5, max: 1}", {"min": 1e-5, "max": 1, "scale": "Log"}),
        # Multiples of q, not steps from min; q is 1 where it is not said; an integer q makes integers.
        ("{distribution: q_uniform, min: 0, max: 1, q: 0.1}", {"min": 0, "max": 1, "step": 0.1}),
        ("{distribution: q_uniform, min: 0.15, max: 1, q: 0.1}", {"min": 0.2, "max": 1, "step": 0.1}),
        ("{distribution: q_uniform, min: 3, max: 20, q: 4}", {"type": "Int", "min": 4, "max": 20, "step": 4}),
        ("{distribution: q_uniform, min: 0.5, max: 9}", {"type": "Int", "min": 1, "max": 9, "step": 1}),
    ],
)
def test_wandb_parameters(tmp_path: Path, says: str, parameter: dict[str, Any]) -> None:
    tune, _ = imported(tmp_path, SWEEP.format(method="bayes", says=says), None)
    assert tune["spec"]["parameters"] == [{"name": "x-a", "type": "Float"} | parameter]


@pytest.mark.parametrize(
    ("says", "message"),
    [
        (
            "{distribution: normal, mu: 0, sigma: 1}",
            "line 3: 'x-a' has the distribution 'normal', which has no counterpart",
        ),
        ("{mu: 0, sigma: 1}", "the distribution 'normal', which has no counterpart"),
        ("{distribution: log_uniform, min: -10, max: 0}", "use log_uniform_values with min: 4.53999e-05 and max: 1"),
        ("{distribution: inv_log_uniform, min: 0, max: 10}", "use log_uniform_values with min: 4.53999e-05 and max: 1"),
        ("{distribution: q_log_uniform_values, min: 1, max: 9}", "'q_log_uniform_values', which has no counterpart"),
        ("{parameters: {lr: {value: 1}}}", "line 3: 'x-a' nests parameters"),
        ("{min: 1}", "line 3: 'x-a' needs value, values, or min and max"),
        ("3", "line 3: 'x-a' must be a mapping, not 3"),
        ("{values: 3}", "line 3: values of 'x-a' must be a list, not 3"),
        ("{distribution: q_uniform, min: 0, max: 1, q: 2}", "fewer than two multiples of q = 2"),
        ("{distribution: q_uniform, min: 0, max: 1, q: 0}", "q of 'x-a' must be above 0"),
        ("{distribution: int_uniform, min: 1.5, max: 4}", "needs whole numbers, not 1.5 and 4"),
        ("{min: 1, max: 1}", "the lower bound 1 must be below the upper one, 1"),
    ],
)
def test_what_wandb_cannot_mean(tmp_path: Path, says: str, message: str) -> None:
    assert message in refused(tmp_path, SWEEP.format(method="random", says=says), None)


@pytest.mark.parametrize(("method", "algorithm"), [("bayes", "TPE"), ("random", "Random")])
def test_wandb_methods(tmp_path: Path, method: str, algorithm: str) -> None:
    tune, notes = imported(tmp_path, SWEEP.format(method=method, says="{min: 1, max: 4}"), None)
    assert tune["spec"]["algorithm"] == {"name": algorithm}
    assert "spec.maxTrials: PLACEHOLDER: the source has no limit; --max-trials N" in notes


def test_a_grid_takes_every_integer_and_ends_after_the_last_cell(tmp_path: Path) -> None:
    text = SWEEP.format(method="grid", says="{min: 1, max: 4}") + "  x-b: {values: [a, b, c]}\n"
    tune, _ = imported(tmp_path, text, None)
    assert tune["spec"]["parameters"][0] == {"name": "x-a", "type": "Int", "min": 1, "max": 4, "step": 1}
    assert tune["spec"]["maxTrials"] == 12
    assert "line 3: 'x-a': Grid needs a step" in refused(
        tmp_path, SWEEP.format(method="grid", says="{min: 0.5, max: 1.5}"), None
    )


@pytest.mark.parametrize(
    ("metric", "said", "note"),
    [
        ("{name: val/JaccardIndex, goal: maximize}", {"name": "val/JaccardIndex"}, ""),
        ("{name: val_loss, goal: minimize}", {"name": "val/loss"}, "metric 'val_loss' is read as val/loss"),
        ("{name: validation_f1_score, goal: maximize}", {"name": "val/F1Score"}, "is read as val/F1Score"),
        # W&B minimises what has no goal.
        ("{name: val_loss}", {"name": "val/loss"}, "metric has no goal, which W&B reads as minimize"),
        (
            "{name: val/Recall}",
            {"name": "val/Recall", "direction": "Minimize"},
            "of which more is better: is that meant?",
        ),
    ],
)
def test_metrics(tmp_path: Path, metric: str, said: dict[str, Any], note: str) -> None:
    text = f"metric: {metric}\n{SWEEP.format(method='bayes', says='{min: 1, max: 4}')}"
    tune, notes = imported(tmp_path, text, None)
    assert tune["spec"]["objective"]["metrics"] == [said]
    assert note in "\n".join(notes)


def test_a_target_is_one_of_its_metric(tmp_path: Path) -> None:
    text = f"metric: {{name: val_loss, target: 0.1}}\n{SWEEP.format(method='bayes', says='{min: 1, max: 4}')}"
    tune, _ = imported(tmp_path, text, None)
    assert tune["spec"]["target"] == 0.1
    tune, notes = imported(tmp_path, text, None, metric="val/Recall")
    assert "target" not in tune["spec"]
    assert "line 1: the target 0.1 is not carried over: it is one of 'val_loss'" in notes
    beyond = text.replace("0.1", "-1")
    assert "spec.target: a score is at least 0" in refused(tmp_path, beyond, None)


def test_a_target_is_one_of_its_direction(tmp_path: Path) -> None:
    """The source minimises val/Recall; `--metric val/Recall` optimises it in its own direction, upwards."""
    text = (
        f"metric: {{name: val_Recall, goal: minimize, target: 0.1}}\n"
        f"{SWEEP.format(method='bayes', says='{min: 1, max: 4}')}"
    )
    tune, _ = imported(tmp_path, text, None)
    assert (tune["spec"]["target"], tune["spec"]["objective"]["metrics"][0]["direction"]) == (0.1, "Minimize")
    tune, notes = imported(tmp_path, text, None, metric="val/Recall")
    assert "target" not in tune["spec"], "it would end the search with the first trial"
    assert "line 1: the target 0.1 is not carried over: the source wants to minimize 'val_Recall'" in notes


def test_a_metric_of_another_name(tmp_path: Path) -> None:
    text = f"metric: {{name: accurracy}}\n{SWEEP.format(method='bayes', says='{min: 1, max: 4}')}"
    assert "line 1: Crossfold's trainer knows no metric 'accurracy': choose by --metric one of val/" in refused(
        tmp_path, text, None
    )
    tune, notes = imported(tmp_path, text, None, metric="val/Recall")
    assert tune["spec"]["objective"]["metrics"] == [{"name": "val/Recall"}]
    assert "line 1: val/Recall stands for metric 'accurracy', in val/Recall's own direction, Maximize" in notes
    tune, _ = imported(tmp_path, text, None, metric="val/Mine")
    assert tune["spec"]["objective"]["metrics"] == [{"name": "val/Mine", "direction": "Minimize"}]


EXPERIMENT = """apiVersion: kubeflow.org/v1beta1
kind: Experiment
spec:
  objective: {{type: minimize, objectiveMetricName: loss}}
  algorithm: {{algorithmName: {algorithm}}}
  parameters:
  - {{name: x-a, parameterType: {kind}, feasibleSpace: {space}}}
"""


@pytest.mark.parametrize(
    ("kind", "space", "parameter"),
    [
        ("double", '{min: "0.01", max: "0.05"}', {"type": "Float", "min": 0.01, "max": 0.05}),
        ("double", '{min: "1", max: "2", step: "0.25"}', {"type": "Float", "min": 1, "max": 2, "step": 0.25}),
        ("double", "{min: '1e-5', max: '1', distribution: logUniform}", {"min": 1e-5, "max": 1, "scale": "Log"}),
        ("double", "{min: '0', max: '1', distribution: uniform}", {"min": 0, "max": 1}),
        ("int", '{min: "1", max: "9", step: "2"}', {"type": "Int", "min": 1, "max": 9, "step": 2}),
        ("int", "{min: '1', max: '9', distribution: logUniform}", {"type": "Int", "min": 1, "max": 9, "scale": "Log"}),
        # Discrete values are numbers, categorical ones texts.
        ("discrete", '{list: ["1", "2.5"]}', {"type": "Categorical", "values": [1, 2.5]}),
        ("categorical", '{list: ["1", "2.5"]}', {"type": "Categorical", "values": ["1", "2.5"]}),
    ],
)
def test_katib_parameters(tmp_path: Path, kind: str, space: str, parameter: dict[str, Any]) -> None:
    tune, _ = imported(tmp_path, EXPERIMENT.format(algorithm="random", kind=kind, space=space), None)
    assert tune["spec"]["parameters"] == [{"name": "x-a", "type": "Float"} | parameter]
    assert tune["spec"]["parallelism"] == 3  # Katib's default


@pytest.mark.parametrize(
    ("name", "algorithm"),
    [
        ("random", "Random"),
        ("tpe", "TPE"),
        ("multivariate-tpe", "TPE"),
        ("grid", "Grid"),
        ("cmaes", "CMAES"),
        ("sobol", "Sobol"),
    ],
)
def test_katib_algorithms(tmp_path: Path, name: str, algorithm: str) -> None:
    text = EXPERIMENT.format(algorithm=name, kind="double", space='{min: "1", max: "2", step: "0.25"}')
    tune, _ = imported(tmp_path, text, None)
    assert tune["spec"]["algorithm"] == {"name": algorithm}


@pytest.mark.parametrize(
    ("kind", "space", "message"),
    [
        ("double", "{min: a, max: '1'}", "line 7: min must be a number, not 'a'"),
        ("double", "{min: '0', max: '1', distribution: normal}", "line 7: 'x-a' has the distribution 'normal'"),
        ("double", "{min: '1', max: '2', step: '1', distribution: logUniform}", "a step on a logarithmic scale"),
        ("int", "{min: '1', max: '9', step: '0.5'}", "the step must be a whole number above 0, not 0.5"),
        ("int", "{list: ['1']}", "'x-a' of type int has 'list', which is not understood here"),
        ("discrete", "{list: [a]}", "a discrete value of 'x-a' must be a number, not 'a'"),
        ("unknown", "{list: [a]}", "line 7: 'x-a' has the parameterType 'unknown': use double"),
    ],
)
def test_what_katib_cannot_mean(tmp_path: Path, kind: str, space: str, message: str) -> None:
    assert message in refused(tmp_path, EXPERIMENT.format(algorithm="random", kind=kind, space=space), None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("v1beta1", "v1alpha3"), "line 1: apiVersion must be kubeflow.org/v1beta1, not 'kubeflow.org/v1alpha3'"),
        (("algorithmName: random", "algorithmName: hyperband"), "line 5: algorithm 'hyperband' has no counterpart"),
        (("type: minimize", "type: best"), "line 4: objective.type must be minimize or maximize, not 'best'"),
        (("spec:", "spec:\n  nasConfig: {}"), "line 4: nasConfig searches for an architecture"),
        (("spec:", "spec:\n  maxTrialCount: many"), "line 4: maxTrialCount must be a whole number of at least 1"),
    ],
)
def test_experiments_that_are_none_of_ours(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    text = EXPERIMENT.format(algorithm="random", kind="int", space="{min: '1', max: '9'}")
    assert change[0] in text
    assert message in refused(tmp_path, text.replace(*change), None)


JOB = """apiVersion: trainer.kubeflow.org/v1alpha1
kind: OptimizationJob
spec:
  objectives: [{{}}]
  parameters:
  - name: x-a
    searchSpace: {space}
"""


@pytest.mark.parametrize(
    ("space", "parameter"),
    [
        # Without a type it is a decimal number, also between whole bounds.
        ("{uniform: {min: '1', max: '5'}}", {"min": 1, "max": 5}),
        ("{uniform: {min: '1', max: '5', type: Int}}", {"type": "Int", "min": 1, "max": 5}),
        ("{logUniform: {min: '1e-5', max: '1'}}", {"min": 1e-5, "max": 1, "scale": "Log"}),
        ("{logUniform: {min: '1', max: '64', type: Int}}", {"type": "Int", "min": 1, "max": 64, "scale": "Log"}),
        ("{categorical: {choices: ['1', b]}}", {"type": "Categorical", "values": ["1", "b"]}),
    ],
)
def test_optimization_job_parameters(tmp_path: Path, space: str, parameter: dict[str, Any]) -> None:
    tune, _ = imported(tmp_path, JOB.format(space=space), None)
    assert tune["spec"]["parameters"] == [{"name": "x-a", "type": "Float"} | parameter]
    # What it does not say: the metric is a loss to be minimised, the algorithm is random.
    assert tune["spec"]["objective"]["metrics"] == [{"name": "val/loss"}]
    assert tune["spec"]["algorithm"] == {"name": "Random"}


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (
            "{normal: {mean: '0', stdDev: '1'}}",
            "line 7: searchSpace of 'x-a' has 'normal', which is not understood here",
        ),
        ("{uniform: {min: '1', max: '2'}, categorical: {choices: [a]}}", "has uniform and categorical: keep one"),
        ("{uniform: {min: '1', max: '2', type: Double}}", "type of 'x-a' must be Float or Int, not 'Double'"),
        ("{logUniform: {min: '0', max: '2'}}", "needs a lower bound above 0"),
        ("{}", "line 7: searchSpace of 'x-a' is empty: it takes uniform, logUniform, categorical"),
    ],
)
def test_what_an_optimization_job_cannot_mean(tmp_path: Path, space: str, message: str) -> None:
    assert message in refused(tmp_path, JOB.format(space=space), None)


@pytest.mark.parametrize("source", ["katib", "optimizationjob"])
def test_bayesian_optimisation_is_a_gaussian_process(tmp_path: Path, source: str) -> None:
    if source == "katib":
        text = EXPERIMENT.format(algorithm="bayesianoptimization", kind="int", space="{min: '1', max: '9'}")
        settings = "[{name: base_estimator, value: GP}, {name: n_initial_points, value: '5'}, {name: acq_func, value: LCB}, {name: random_state, value: '3'}]"
        text = text.replace("bayesianoptimization}", f"bayesianoptimization, algorithmSettings: {settings}}}")
        line, more = 5, {"settings": {"startupTrials": 5}}
    else:
        text = JOB.format(space="{uniform: {min: '1', max: '9'}}").replace(
            "  parameters", "  searchAlgorithm: {bayesianOptimization: {seed: 3}}\n  parameters"
        )
        line, more = 5, {}
    tune, notes = imported(tmp_path, text, None)
    assert tune["spec"]["algorithm"] == {"name": "GP", "seed": 3} | more
    assert any(note.startswith(f"line {line}: ") and "is GP here" in note for note in notes)
    if source == "katib":
        assert any("'acq_func' is not carried over" in note for note in notes)
        forest = text.replace("value: GP", "value: RF")
        assert "line 5: base_estimator 'RF' has no counterpart" in refused(tmp_path, forest, None)


def test_an_optimization_job_without_a_number_has_one_trial(tmp_path: Path) -> None:
    text = JOB.format(space="{categorical: {choices: [a]}}")
    tune, notes = imported(tmp_path, text, None)
    assert tune["spec"]["maxTrials"] == 1
    assert "line 1: there is no numTrials, which means 1 trial: --max-trials N asks for more" in notes
    tune, notes = imported(tmp_path, text, None, max_trials=9)
    assert tune["spec"]["maxTrials"] == 9
    assert "numTrials" not in "\n".join(notes)


def test_several_objectives(tmp_path: Path) -> None:
    text = JOB.format(space="{categorical: {choices: [a]}}").replace("[{}]", "[{metric: loss}, {metric: accuracy}]")
    assert "line 4: several objectives" in refused(tmp_path, text, None)


# Names ------------------------------------------------------------------------------------------------------------


def test_unknown_names_are_all_told_with_what_to_do(tmp_path: Path) -> None:
    text = "hyperparameters:\n  lr: [1]\n  epochs: 3\n  momentum: [0.9]\n"
    said = refused(tmp_path, text, None)
    assert "line 2: Crossfold's trainer knows no hyperparameter 'lr': --rename lr=learning_rate, or --drop lr" in said
    assert (
        "line 3: Crossfold's trainer knows no hyperparameter 'epochs': --drop epochs and set spec.trainer.maxEpochs"
        in said
    )
    assert "line 4: Crossfold's trainer knows no hyperparameter 'momentum' (it knows model_arch," in said
    assert "--rename momentum=x-momentum for a trainer of your own" in said
    rename = {"lr": "learning-rate", "momentum": "x-momentum"}
    tune, notes = imported(tmp_path, text, None, rename=rename, drop=frozenset({"epochs"}))
    assert [parameter["name"] for parameter in tune["spec"]["parameters"]] == ["learning_rate", "x-momentum"]
    assert "line 3: 'epochs' is not carried over: dropped, as asked for" in notes


def test_names_that_are_one(tmp_path: Path) -> None:
    text = "hyperparameters:\n  batch_size: 3\n  batch-size: [1, 2]\n"
    assert "line 3: 'batch_size' is there twice (line 2; '-' equals '_')" in refused(tmp_path, text, None)
    text = "hyperparameters:\n  gamma: [1]\n"
    assert "--rename or --drop names 'beta', which the source does not have: it has gamma" in refused(
        tmp_path, text, None, drop=frozenset({"beta"})
    )


@pytest.mark.parametrize(
    ("name", "file", "expected"),
    [
        ("mine", "A.yaml", "mine"),
        ("", "My Search_2.yaml", "my-search-2"),
        ("", "___.yaml", "imported"),
        ("", f"{'a' * 39}-b.yaml", "a" * 39),
    ],
)
def test_the_name_of_the_tune(tmp_path: Path, name: str, file: str, expected: str) -> None:
    tune, _ = imported(tmp_path, "hyperparameters: {gamma: [1, 0.9]}", None, file, name=name)
    assert tune["metadata"] == {"name": expected}


def test_what_admission_says_of_an_option(tmp_path: Path) -> None:
    text = "hyperparameters: {gamma: [1, 0.9]}"
    assert "metadata.name takes lower-case letters" in refused(tmp_path, text, None, name="No")
    assert "spec.maxTrials: must be at most 10000" in refused(tmp_path, text, None, max_trials=10_001)


# What is dropped and replaced, and all errors at once --------------------------------------------------------------

DROP_SWEEP = """method: random
metric: {name: score, goal: maximum}
run_cap: many
parameters:
  learning_rate: {min: 0.0001, max: 0.01}
  optimizer: {parameters: {name: {values: [adam, sgd]}}}
  dropout: {distribution: normal, mu: 0.3, sigma: 0.1}
"""
DROP_EXPERIMENT = """apiVersion: kubeflow.org/v1beta1
kind: Experiment
metadata: {name: drop}
spec:
  objective: {type: minimize, objectiveMetricName: loss}
  algorithm: {algorithmName: random, algorithmSettings: [{name: random_state, value: "99999999999"}]}
  maxTrialCount: 10
  maxFailedTrialCount: 3
  parameters:
  - {name: learning_rate, parameterType: double, feasibleSpace: {min: "0.0001", max: "0.01"}}
  - {name: batch_size, parameterType: int, feasibleSpace: {min: "4", max: "16"}}
  - {name: momentum, parameterType: double, feasibleSpace: {min: "0.5", max: "0.9", distribution: normal}}
  - {name: epochs, parameterType: int, feasibleSpace: {min: "1", max: "1"}}
"""


def test_what_is_dropped_or_replaced_is_not_judged(tmp_path: Path) -> None:
    tune, notes = imported(
        tmp_path,
        DROP_SWEEP,
        None,
        drop=frozenset({"optimizer", "dropout"}),
        metric="val/JaccardIndex",
        max_trials=5,
    )
    assert tune["spec"]["parameters"] == [{"name": "learning_rate", "type": "Float", "min": 0.0001, "max": 0.01}]
    assert tune["spec"]["objective"] == {"metrics": [{"name": "val/JaccardIndex"}]}
    assert tune["spec"]["maxTrials"] == 5
    assert [note for note in notes if "dropped, as asked for" in note] == [
        "line 6: 'optimizer' is not carried over: dropped, as asked for",
        "line 7: 'dropout' is not carried over: dropped, as asked for",
    ]
    said = refused(
        tmp_path, DROP_SWEEP, None, drop=frozenset({"optimizer", "dropout"}), metric="val/Mine", max_trials=5
    )
    assert said.splitlines()[1:] == [f"  --metric val/Mine is not known: use one of {', '.join(KNOWN_OBJECTIVES)}"]
    tune, notes = imported(
        tmp_path, DROP_EXPERIMENT, None, drop=frozenset({"momentum", "epochs"}), seed=7, max_trials=2
    )
    assert [parameter["name"] for parameter in tune["spec"]["parameters"]] == ["learning_rate", "batch_size"]
    assert tune["spec"]["algorithm"] == {"name": "Random", "seed": 7}
    assert (tune["spec"]["maxTrials"], tune["spec"]["maxFailedTrials"]) == (2, 2)
    assert "maxFailedTrials is 2, not 3: more are not asked" in notes


def test_the_direction_that_a_source_does_not_say_is_told_where_it_counts(tmp_path: Path) -> None:
    text = f"metric: {{name: score}}\n{SWEEP.format(method='bayes', says='{min: 1, max: 4}')}"
    _, notes = imported(tmp_path, text, None, metric="val/Recall")
    assert "W&B reads as minimize" not in "\n".join(notes)
    _, notes = imported(tmp_path, text, None, metric="val/Mine")
    assert "line 1: metric has no goal, which W&B reads as minimize, and so it is here" in notes


@pytest.mark.parametrize(
    ("text", "options", "lines"),
    [
        (
            DROP_SWEEP,
            {},
            [
                "line 2: metric.goal must be",
                "line 2: Crossfold's trainer knows no metric 'score'",
                "line 3: run_cap must be",
                "line 6: 'optimizer' nests",
                "line 6: Crossfold's trainer knows no hyperparameter 'optimizer'",
                "line 7: 'dropout' has the distribution 'normal'",
                "line 7: Crossfold's trainer knows no hyperparameter 'dropout'",
            ],
        ),
        (
            DROP_EXPERIMENT.replace("0.0001", "-1").replace('"4", max: "16"', '"0", max: "16"'),
            {"data": "ftp://d"},
            [
                "line 10: 'learning_rate': min: hyperparameter 'learning_rate' must be a number above 0, not -1",
                "line 11: 'batch_size': min: hyperparameter 'batch_size'",
                "line 12: 'momentum' has the distribution 'normal'",
                "line 12: Crossfold's trainer knows no hyperparameter 'momentum'",
                "line 13: the lower bound 1 must be below",
                "line 13: Crossfold's trainer knows no hyperparameter 'epochs'",
                "spec.algorithm.seed: must be at most 2147483647, not 99999999999: give another one by --seed N",
                "spec.data: uri has a scheme that nothing reads",
            ],
        ),
        (
            (
                "method: grid\nmetric: {name: score}\nparameters:\n  learning_rate: {min: -1.0, max: 1.0}\n"
                "  gamma: {values: [2]}\n  x-a: {min: 0, max: 1, q: 1e-305}\n"
            ),
            {"name": "No"},
            [
                "line 2: Crossfold's trainer knows no metric 'score'",
                "line 4: 'learning_rate': Grid needs a step",
                "line 4: 'learning_rate': min: hyperparameter 'learning_rate' must be a number above 0, not -1",
                "line 5: 'gamma': values[0]: hyperparameter 'gamma' must be a number in (0, 1], not 2",
                "line 6: 'x-a': step: 1e-305 is too fine",
                "metadata.name takes lower-case letters",
            ],
        ),
        # The schema, the rules and the operator each say something, of fields of the same place.
        (
            (
                "hyperparameters:\n  x-a: {low: 0, high: 99999999999999999999}\n  gamma: [2]\n"
                "  x-b: {low: 0.0, high: 1e308}\n  x-c: 1\n  batch_size: 0\n"
            ),
            {"max_trials": 10_001, "seed": 2**31},
            [
                "line 2: 'x-a': Int takes min and max from",
                "line 3: 'gamma': values[0]",
                "line 4: 'x-b': Float takes min and max from",
                "line 6: 'batch_size': hyperparameter 'batch_size' must be an integer of at least 1, not 0",
                "spec.algorithm.seed: must be at most 2147483647",
                "spec.maxTrials: must be at most 10000, not 10001: give another one by --max-trials N",
            ],
        ),
    ],
)
def test_all_errors_are_told_at_once_and_each_once(
    tmp_path: Path, text: str, options: dict[str, Any], lines: list[str]
) -> None:
    said = refused(tmp_path, text, None, **options).splitlines()[1:]
    assert [line.strip()[: len(start)] for line, start in zip(said, lines, strict=True)] == lines


def test_the_text_none_is_null_where_there_is_one(tmp_path: Path) -> None:
    text = (
        "method: grid\nmetric: {name: val_loss, goal: minimize}\nparameters:\n  batch_size: {values: [4, 8]}\n"
        "  model_encoder_weights: {values: [None, imagenet]}\n  focal_loss_alpha: {values: ['null', 0.5]}\n"
        "  bands: {value: ''}\n  x-a: {values: [None, b]}\n"
    )
    tune, notes = imported(tmp_path, text, None)
    assert [parameter["values"] for parameter in tune["spec"]["parameters"][1:]] == [
        [None, "imagenet"],
        [None, 0.5],
        ["None", "b"],
    ]
    assert tune["spec"]["fixed"] == [{"name": "bands", "value": None}]
    assert [note for note in notes if note.endswith("is read as null")] == [
        "line 5: 'model_encoder_weights': the text 'None' is read as null",
        "line 6: 'focal_loss_alpha': the text 'null' is read as null",
        "line 7: 'bands': the text '' is read as null",
    ]
    experiment = EXPERIMENT.format(algorithm="random", kind="categorical", space='{list: ["None", "imagenet"]}')
    tune, _ = imported(tmp_path, experiment.replace("x-a", "model_encoder_weights"), None)
    assert tune["spec"]["parameters"][0]["values"] == [None, "imagenet"]


def test_a_relative_path_is_for_this_machine(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("hyperparameters: {gamma: [1, 0.9]}")
    printed, _ = convert(str(file), None, Options(data="maps/slumps", artifacts="/runs"))
    assert "data: {uri: maps/slumps}" in printed
    assert "a relative path: crossfold run takes it, a cluster does not" in printed


# Files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name", "source", "message"),
    [
        ("a: 1", "a.yaml", None, "looks like none of the known formats: say which it is by --from, one of darts"),
        ("a: 1", "a.yaml", "katib", "line 1: an Experiment needs 'apiVersion'"),
        ("a: 1", "a.yaml", "darts", "line 1: the file needs 'hyperparameters'"),
        ("a: 1", "a.yaml", "wandb", "line 1: a sweep needs 'method'"),
        ("a: 1", "a.yaml", "ray", "--from ray is not known: use darts, wandb, katib, optimizationjob"),
        ("", "a.yaml", None, "looks like none"),
        ("- 1", "a.yaml", "darts", "line 1: the file must be a mapping, not a list"),
        ("a: [", "a.yaml", None, "a.yaml is no YAML"),
        ("a: 1\na: 2", "a.yaml", None, "line 2: 'a' is there twice"),
        ("a: &x [*x]", "a.yaml", None, "an alias refers to itself"),
        ("a = [\nb", "a.toml", None, "a.toml is no TOML:\n  Invalid value (at line 2"),
        ("a = 2026-01-01", "a.toml", None, "line 1: 2026-01-01 is of a type that JSON lacks"),
        (
            "hyperparameters: {gamma: [1]}\n---\nhyperparameters: {gamma: [2]}",
            "a.yaml",
            None,
            "holds several searches (line 1: darts hpconfig, line 3: darts hpconfig): split it",
        ),
    ],
)
def test_files_that_hold_no_search(tmp_path: Path, text: str, name: str, source: str | None, message: str) -> None:
    assert message in refused(tmp_path, text, source, name)


def test_other_documents_are_passed_over(tmp_path: Path) -> None:
    tune, _ = imported(tmp_path, "kind: Secret\n---\nhyperparameters: {gamma: [1, 0.9]}\n", None)
    assert tune["spec"]["parameters"] == [{"name": "gamma", "type": "Categorical", "values": [1, 0.9]}]


def test_toml_errors_name_the_line(tmp_path: Path) -> None:
    text = '[other]\nx = 1\n\n["hyperparameters"]\ngamma = [\n  0.9,\n]\n# gamma = 2\n\n[hyperparameters.batch-size]\nlow = 1\nhigh = 2.0\n'
    said = refused(tmp_path, text, None, "a.toml")
    assert "line 10: 'batch-size' mixes a whole and a decimal bound (1, 2.0)" in said
    fixed = text.replace("2.0", "2")
    _, notes = imported(tmp_path, fixed, None, "a.toml")
    assert "line 1: 'other' is not carried over: an hpconfig is its table 'hyperparameters'" in notes


# The command ------------------------------------------------------------------------------------------------------


def test_the_manifest_goes_to_stdout_and_remarks_to_stderr() -> None:
    result = CliRunner().invoke(app, ["import", str(FILES / "wandb.yaml"), "--drop", "epochs"])
    assert result.exit_code == 0
    tune = accepted(result.stdout)
    assert tune["kind"] == "Tune"
    assert result.stdout.startswith("# From wandb.yaml, a W&B sweep, by crossfold import.\n")
    assert "note: line 9: 'early_terminate' is not carried over" in result.stderr
    assert [line for line in result.stdout.splitlines() if "PLACEHOLDER" in line and "s3://BUCKET/DATA" in line]


def test_the_manifest_goes_to_a_file(tmp_path: Path) -> None:
    arguments = ["import", "-", "--from", "darts", "-o", str(tmp_path / "t.yaml"), "--rename", "lr=learning_rate"]
    result = CliRunner().invoke(app, arguments, input="hyperparameters: {lr: [1e-3, 1e-2]}")
    assert result.exit_code == 0
    assert result.stdout == ""
    tune = accepted((tmp_path / "t.yaml").read_text())
    assert tune["spec"]["parameters"] == [{"name": "learning_rate", "type": "Categorical", "values": [1e-3, 1e-2]}]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.yaml"], "none.yaml cannot be read: No such file"),
        ([str(FILES / "darts.yaml"), "--rename", "lr"], "--rename lr is no pair"),
        ([str(FILES / "darts.yaml"), "-o", "/no/such/folder/t.yaml"], "cannot be written: No such file"),
    ],
)
def test_errors_go_to_stderr(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["import", *arguments])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert message in result.stderr


def test_every_format_is_told_apart() -> None:
    files = sorted(FILES.iterdir())
    assert {file.stem for file in files} == set(FORMATS)
    for file in files:
        options = Options(rename={"lr": "x-lr", "num-layers": "x-n"} if file.stem == "katib" else {})
        printed, _ = convert(str(file), None, Options(drop=frozenset({"epochs"})) if file.stem == "wandb" else options)
        assert FORMATS[file.stem].title in printed
