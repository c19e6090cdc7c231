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


@pytest.mark.parametrize("page", sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*/*.md")]))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_readme_names_targets_that_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    texts = (ROOT / "README.md").read_text() + (ROOT / "CONTRIBUTING.md").read_text()
    for target in set(re.findall(r"`make ([a-z-]+)`", texts)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
