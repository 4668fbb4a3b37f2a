"""The page: every tag closed, every model and class in it, text escaped."""

from html.parser import HTMLParser

import torch

from prunus.audit.audit import AuditPlan, Evidence, audit
from prunus.audit.ball import Ball
from prunus.audit.data import Labelled
from prunus.audit.page import page
from prunus.audit.pictures import data_url, is_picture, perturbation_url
from prunus.audit.report import Report
from prunus.audit.victims import of_module
from tests.audit.toy import images, trained

VOID = {"meta", "img", "path", "circle", "rect", "br"}


class Balance(HTMLParser):
    """Open tags, and all text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID, tag

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_page_is_whole() -> None:
    kept: list[tuple[Report, Evidence]] = []
    plan = AuditPlan(Ball(0.2), gate=0.9, steps=5, attacks=("pgd",), factors=(0.5, 1.0))
    victims = [of_module(trained(), (1, 8, 8), "a<b>.onnx"), of_module(trained(1), (1, 8, 8), "c.onnx")]
    names = ("left & up", "right", "down", "last")
    audit(victims, Labelled(images(80, 2), names), plan, lambda r, e: kept.append((r, e)))
    text = page(*kept[-1])
    found = Balance()
    found.feed(text)
    assert found.open == [] and "<b>" not in text
    assert found.text.count("a<b>.onnx") >= 4 and all(name in found.text for name in names)
    assert "All models are within the gate of 90%" in found.text
    assert text.count("<circle") == 4 and text.count("class=pair") >= 2


def test_pictures() -> None:
    assert is_picture((3, 8, 8)) and is_picture((1, 8, 8)) and not is_picture((64,)) and not is_picture((8, 8, 3))
    x = torch.zeros(3, 4, 4)
    x[0] = 1
    assert data_url(x, 0, 1) != data_url(x, 0, 1, bgr=True)
    assert perturbation_url(torch.zeros(1, 8, 8)).startswith("data:image/png;base64,")
