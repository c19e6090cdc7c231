"""The documentation names what the code has, and what it shows exists."""

import re
from pathlib import Path

import pytest

from crossfold_operator import names
from crossfold_trainer.contract.result import FailureClass

ROOT = Path(__file__).resolve().parents[2]
STATUS = (ROOT / "docs" / "status.md").read_text()
WORDS = [
    *names.TunePhase,
    *names.CrossValidationPhase,
    *names.TrainRunPhase,
    *names.Condition,
    *names.Reason,
    *FailureClass,
]


@pytest.mark.parametrize("word", sorted({str(word) for word in WORDS}))
def test_every_word_of_a_status_is_explained(word: str) -> None:
    assert re.search(rf"\b{word}\b", STATUS)


PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*/*.md")])
LINKS = sorted(
    {
        ((page.relative_to(ROOT) / ".." / target).as_posix(), page.name)
        for page in PAGES
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    }
)


@pytest.mark.parametrize(("target", "page"), LINKS)
def test_links_lead_somewhere(target: str, page: str) -> None:
    assert (ROOT / target).resolve().exists(), page


def test_the_readme_names_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    texts = (ROOT / "README.md").read_text() + (ROOT / "CONTRIBUTING.md").read_text()
    named = set(re.findall(r"`make ([a-z-]+)`", texts))
    assert "test" in named
    assert named <= targets
