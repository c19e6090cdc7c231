from collections.abc import Sequence
from typing import Any

import pytest
from rich.console import Console

from crossfold_cli.display import Lines, LiveTree, Quiet, display_for, tree_lines, tree_table
from crossfold_cli.progress import LogFollower, Progress
from crossfold_cli.view import Node, changes, node_of, score_text
from crossfold_operator.names import Kind


def obj(
    kind: str, name: str, owner: str = "", labels: dict[str, str] | None = None, spec: Any = None, **status: Any
) -> dict[str, Any]:
    return {
        "kind": kind,
        "metadata": {"name": name, "uid": name, "labels": labels or {}, "owner": owner},
        "spec": spec or {},
        "status": status,
    }


TUNE = obj(
    "Tune",
    "t",
    spec={"parameters": [{"name": "learning-rate"}]},
    phase="Running",
    summary={"trials": "1/11", "best": "0.7±0.1"},
    best={"crossValidation": "t-cv2"},
)
OBJECTS = [
    obj(
        "CrossValidation",
        "t-cv10",
        "t",
        {"crossfold.dev/trial": "10"},
        {"hyperparameters": [{"name": "learning_rate", "value": 0.00123456}, {"name": "augment", "value": []}]},
        phase="Running",
        summary={"runs": "1/3"},
    ),
    obj(
        "CrossValidation",
        "t-cv2",
        "t",
        {"crossfold.dev/trial": "2"},
        phase="Complete",
        summary={"runs": "3/3", "score": "0.7", "std": "0.1"},
    ),
    obj("TrainRun", "t-cv10-f1s42", "t-cv10", spec={"fold": 1, "seed": 42}, phase="Running", attempt=2, summary={}),
    obj(
        "TrainRun",
        "t-cv10-f0s42",
        "t-cv10",
        spec={"fold": 0, "seed": 42},
        phase="Succeeded",
        attempt=1,
        summary={"epoch": "2/4", "score": "0.61"},
    ),
    obj(
        "TrainRun",
        "t-cv10-f2s42",
        "t-cv10",
        spec={"fold": 2, "seed": 42},
        phase="Preempted",
        attempt=1,
        summary={"reason": "why"},
    ),
]


def children(kind: Kind, uid: str) -> Sequence[dict[str, Any]]:
    return [o for o in OBJECTS if o["kind"] == kind and o["metadata"]["owner"] == uid]


def tree() -> Node:
    return node_of(
        TUNE, children, lambda run: Progress(3, 6, "0.5") if run["metadata"]["name"] == "t-cv10-f1s42" else None
    )


def test_a_tree() -> None:
    root = tree()
    assert (root.phase, root.progress, root.score) == ("Running", "1/11 trials", "0.7±0.1")
    done, active = root.children
    assert (done.name, done.best, done.over, done.score) == ("t-cv2", True, True, "0.7±0.1")
    assert (active.name, active.about, active.progress) == ("t-cv10", "learning_rate=0.001235", "1/3 runs")
    assert [(n.name, n.phase, n.about, n.progress, n.score, n.reason) for n in active.children] == [
        ("t-cv10-f0s42", "Succeeded", "fold 0 seed 42", "epoch 2/4", "0.61", ""),
        ("t-cv10-f1s42", "Running", "fold 1 seed 42 try 2", "epoch 3/6", "0.5", ""),
        ("t-cv10-f2s42", "Preempted", "fold 2 seed 42", "", "", "why"),
    ]


def test_a_root_without_status() -> None:
    for kind in ("Tune", "CrossValidation", "TrainRun"):
        bare = {"kind": kind, "metadata": {"name": "a", "uid": "a"}, "spec": {}}
        assert node_of(bare, lambda *_: [], lambda _: None).phase == "Pending"


def node(name: str, kind: Kind, phase: str, *below: Node, **fields: Any) -> Node:
    return Node(name, kind, phase, children=below, **fields)


def test_changes_go_from_what_ended_below_to_what_began_above() -> None:
    before = node(
        "t", Kind.TUNE, "Running", node("c0", Kind.CROSS_VALIDATION, "Running", node("r0", Kind.TRAIN_RUN, "Running"))
    )
    after = node(
        "t",
        Kind.TUNE,
        "Running",
        node(
            "c0",
            Kind.CROSS_VALIDATION,
            "Complete",
            node("r0", Kind.TRAIN_RUN, "Succeeded", score="0.5", progress="epoch 2/2"),
            score="0.5±0",
        ),
        node(
            "c1", Kind.CROSS_VALIDATION, "Running", node("r1", Kind.TRAIN_RUN, "Starting", reason="slow"), about="x=1"
        ),
    )
    assert [(name, news) for name, news, _ in changes(before, after)] == [
        ("r0", "Succeeded, epoch 2/2, score 0.5"),
        ("c0", "Complete, score 0.5±0"),
        ("c1", "Running: x=1"),
        ("r1", "Starting: slow"),
    ]
    assert list(changes(after, after)) == []


def test_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    lines = Lines()
    running = node(
        "t", Kind.TUNE, "Running", node("old", Kind.TRAIN_RUN, "Succeeded"), node("r", Kind.TRAIN_RUN, "Running")
    )
    lines.show(running)
    shown = [line.split("  ", 1)[1] for line in capsys.readouterr().out.splitlines()]
    assert shown == ["t  Running", "r  Running"]
    for seconds, epoch, expected in ((1, 1, ["r  epoch 1/9"]), (2, 2, []), (12, 3, ["r  epoch 3/9"]), (30, 3, [])):
        clock[0] = float(seconds)
        lines.show(
            node(
                "t",
                Kind.TUNE,
                "Running",
                node("old", Kind.TRAIN_RUN, "Succeeded"),
                node("r", Kind.TRAIN_RUN, "Running", progress=f"epoch {epoch}/9"),
            )
        )
        assert [line.split("  ", 1)[1] for line in capsys.readouterr().out.splitlines()] == expected
    lines.say("hello")
    lines.close()
    assert capsys.readouterr().out == "hello\n"


def test_a_tree_that_does_not_fit_keeps_what_is_under_way_and_the_best() -> None:
    ended = [node(f"c{i}", Kind.CROSS_VALIDATION, "Complete", best=i == 3) for i in range(50)]
    active = node(
        "c50", Kind.CROSS_VALIDATION, "Running", *(node(f"r{i}", Kind.TRAIN_RUN, "Running") for i in range(3))
    )
    lines = tree_lines(node("t", Kind.TUNE, "Running", *ended, active), 12)
    names = [line if isinstance(line, str) else line[0] + line[1].name for line in lines]
    assert names == [
        "t",
        "… 44 more that have ended",
        "├─ c3",
        *(f"├─ c{i}" for i in range(45, 50)),
        "└─ c50",
        "   ├─ r0",
        "   ├─ r1",
        "   └─ r2",
    ]
    assert len(tree_lines(node("t", Kind.TUNE, "Running", *ended, active), 4)) == 4
    assert len(tree_lines(node("t", Kind.TUNE, "Running", *ended, active), 1)) >= 1


def test_the_table_keeps_its_columns_in_a_narrow_terminal() -> None:
    console = Console(width=70, height=20, record=True, force_terminal=False)
    long = node("t-cv1", Kind.CROSS_VALIDATION, "Running", about="x" * 200, progress="1/3 runs")
    console.print(tree_table(node("t", Kind.TUNE, "Running", long), (70, 20)))
    shown = console.export_text().splitlines()
    assert shown[1].startswith("└─ t-cv1  Running  1/3 runs")
    assert max(map(len, shown)) <= 70


def test_displays(capsys: pytest.CaptureFixture[str]) -> None:
    import io

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    assert isinstance(display_for(Terminal(), watch=False), Quiet)
    assert isinstance(display_for(io.StringIO(), watch=True), Lines)
    live = display_for(Terminal(), watch=True)
    assert isinstance(live, LiveTree)
    live.show(tree())
    live.say("[said]")
    live.close()
    quiet = Quiet()
    quiet.show(tree())
    quiet.say("only this")
    quiet.close()
    out = capsys.readouterr().out
    assert "[said]" in out
    assert out.endswith("only this\n")


def test_progress_reads_what_was_added(tmp_path: Any) -> None:
    log = tmp_path / "log"
    follower = LogFollower()
    assert follower.progress(log) is None
    log.write_text("training\nepoch 1/6 loss=0.7 val/JaccardIndex=0.2 score=0.2000 best 1.2s\nepoch 2/6 lo")
    assert follower.progress(log) == Progress(1, 6, "0.2000")
    with log.open("a") as file:
        file.write("ss=0.5 1.0s\nnoise epoch 9/9\n")
    assert follower.progress(log) == Progress(2, 6, "0.2000")
    log.unlink()
    assert str(follower.progress(log)) == "epoch 2/6"


def test_a_score_near_0_keeps_its_digits() -> None:
    assert score_text(0.81243, 0.011) == "0.8124 ± 0.0110"
    assert score_text(0.000412345, 0.00003) == "0.0004123 ± 0.0000300"
    assert score_text(0.0, None) == "0.0000"
