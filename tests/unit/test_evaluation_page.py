"""The page about an evaluated classifier: everything in it, nothing asked of anybody, nothing computed."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from robust_synthesis.cli.main import main
from robust_synthesis.evaluation import IMAGES, EvaluationOptions, evaluate
from robust_synthesis.evaluation.report.sections import SECTIONS
from robust_synthesis.specs import SPECS
from robust_synthesis.testing import pictures, tiny_card, tiny_classifier, tiny_model_folder
from robust_synthesis.training.datasets import ImageSet

DOMAINS = ("horse", "<zebra>")


class Page(HTMLParser):
    """What a browser would load, and the text that it would show."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.headings: list[str] = []
        self.words: list[str] = []
        self._tag = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._tag = tag
        self.sources += [value or "" for name, value in attrs if name in ("src", "srcset", "data") or tag == "link"]

    def handle_data(self, data: str) -> None:
        if self._tag == "h2" and data.strip():
            self.headings.append(data)
        self.words.append(data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    defaults = {task: {"epsilon": 1.0, "step_size": 0.5, "steps": 2} for task in SPECS}
    card = tiny_card("<tiny>", classes=DOMAINS, defaults=defaults)
    path = tmp_path_factory.mktemp("models") / "tiny"
    tiny_model_folder(path, card)
    pixels, labels = pictures(2)
    test = ImageSet((pixels * 255).round().to(torch.uint8), labels, list(DOMAINS))
    classifier, other = tiny_classifier(card=card), tiny_classifier(5, card)
    options = EvaluationOptions(images=4, l2=0.01, grid=())
    evaluate(classifier, test, judge=other, contrast=other, options=options, command="evaluate <b>").keep(path)
    return path


def test_the_page_tells_every_part_and_asks_nobody_for_anything(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "pages" / "tiny.html"
    assert main(["report", str(folder), "--out", str(out)]) == 0
    text = out.read_text(encoding="utf-8")
    page = Page(text)
    assert len(page.headings) == len(IMAGES) + 1
    assert page.headings[-1] == "How to make this again"
    assert not re.search(r"https?:|//[a-z]|url\(|@import|<script", re.sub(r"data:image/webp;base64,[\w+/=]+", "", text))
    kept = sorted(file.read_bytes() for file in folder.glob("*.webp") if file.name != "units.webp")
    assert sorted(base64.b64decode(source.removeprefix("data:image/webp;base64,")) for source in page.sources) == kept
    assert any("horse → <zebra>" in words for words in page.words)  # shown, not obeyed
    assert "<b>" not in text
    assert "prefers-color-scheme: dark" in text


def test_every_part_has_its_section() -> None:
    assert SECTIONS.keys() == IMAGES.keys()


def test_a_classifier_that_was_not_evaluated_has_no_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_model_folder(tmp_path / "tiny")
    assert main(["report", str(tmp_path / "tiny"), "-o", str(tmp_path / "page.html")]) == 2
    assert "evaluation.json cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()
