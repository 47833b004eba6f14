"""The report shows hostile output; nothing in it may act. Each lock is tested on its own."""

from __future__ import annotations

import base64
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runvisor.policies.errors import GuestException
from runvisor.policies.result import Artifact, Isolation, Result
from runvisor.policies.scheduling.decision import Candidate, Decision
from runvisor.supervisor.plan.model import Plan, Step
from runvisor.supervisor.plan.outcome import PlanResult, StepOutcome, SubtaskOutcome
from runvisor.supervisor.plan.preview import preview
from runvisor.supervisor.plan.report import CONTENT_SECURITY_POLICY, render, write_report
from runvisor.supervisor.plan.signals import State

ATTACK = """</pre></style></title>--></iframe>"'><script>alert(1)</script><img src=x onerror=alert(1)>"""
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
TAGS = frozenset(
    "html head meta title style body h1 h2 h3 h4 p table tr th td a br span pre details summary img iframe".split()
)
ATTRIBUTES = frozenset(
    "lang charset http-equiv content name class href id alt src sandbox referrerpolicy loading srcdoc".split()
)


class Page(HTMLParser):
    """What a browser would make of the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def result_with(value: Any = None, **changes: Any) -> PlanResult:
    result = Result(Isolation("wasmtime"), value, runtime="wasm", variant="module", **changes)
    run = SubtaskOutcome(None, State.DONE, 1, result, None, 0.0, 0.01)
    return PlanResult("T", (StepOutcome("a", State.DONE, subtasks=(run,)),), 0.02)


def everything(text: str) -> tuple[PlanResult, Plan]:
    """Return a result and plan with the text in every place that others can write to."""
    error = GuestException(text, text, text, {"traceback": text})
    result = Result(
        Isolation(text, note=text),
        {text: [text, {text: text}]},
        text,
        text,
        (
            Artifact(text, "text/plain", text.encode(errors="replace")),
            Artifact(text, text, b"x"),
            Artifact(text, f"image/png{text}", b"x"),
            Artifact(text, "image/png", PNG),
            Artifact(text, "text/html", text.encode(errors="replace")),
        ),
        error,
        runtime=text,
        variant=text,
        language=text,
        decision=Decision(text, (Candidate(text, excluded_because=text),), language_reason=text),
    )
    page = Result(Isolation(text), {"html": text, text: text}, runtime=text)
    outcomes = (
        StepOutcome(
            "a",
            State.FAILED,
            text,
            False,
            text,
            error,
            (SubtaskOutcome(None, State.FAILED, 2, result, error, 0.0, 0.1),),
        ),
        StepOutcome("b", State.DONE, text, True, "", None, (SubtaskOutcome(0, State.DONE, 1, page, None, 0.0, 0.1),)),
        StepOutcome("c", State.SKIPPED, text, reason=text),
    )
    plan = Plan(text, tuple(Step(name, text, "python", title=text, description=text) for name in "abc"))
    return PlanResult(text, outcomes, 0.2, True), plan


def assert_harmless(text: str) -> Page:
    page = Page(text)
    for tag, attributes in page.elements:
        assert tag in TAGS, tag
        assert attributes.keys() <= ATTRIBUTES, attributes
    for frame in page.all("iframe"):
        assert frame["sandbox"] == ""
        assert "src" not in frame
    for image in page.all("img"):
        assert re.fullmatch(r"data:image/(png|jpeg|gif|webp|svg\+xml);base64,[A-Za-z0-9+/=]*", image["src"] or "")
    for link in page.all("a"):
        assert re.fullmatch(r"#[a-z]", link["href"] or "")
    return page


def test_no_script_of_a_guest_lands_unescaped_anywhere() -> None:
    text = render(*everything(ATTACK))
    assert "<script" not in text.lower()
    assert "onerror=alert(1)>" not in text
    page = assert_harmless(text)
    assert ATTACK in page.text, "it is shown, as text"


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                "<",
                ">",
                '"',
                "'",
                "&",
                "&lt;",
                "`",
                "=",
                "/",
                "\\",
                "\0",
                "script",
                "iframe",
                " on=x",
                "\u202e",
                "-->",
                "]]>",
                "\ud800",
                "é",
            ]
        ),
        min_size=1,
        max_size=12,
    )
)
def test_no_text_makes_an_element_or_attribute(parts: list[str]) -> None:
    text = "x" + "".join(parts)
    with patch("runvisor.supervisor.plan.report.draw_timeline", return_value=None):  # slow, and not of text
        rendered = render(*everything(text))
        plain = render(*everything("x"))
    rendered.encode()
    assert_harmless(rendered)
    assert len(Page(rendered).elements) == len(Page(plain).elements)


def test_text_with_lone_surrogates_and_direction_marks_is_shown_visibly(tmp_path: Path) -> None:
    result = result_with(stdout="a\ud800b\u202ec\x1b[31m")
    write_report(result, tmp_path / "deep" / "report.html")
    assert "a\\ud800b\\u202ec\\u001b[31m" in (tmp_path / "deep" / "report.html").read_text()


def test_the_policy_of_the_page_allows_no_script_and_no_request() -> None:
    page = Page(render(*everything(ATTACK)))
    policies = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policies == [CONTENT_SECURITY_POLICY]
    parts = [part.strip().partition(" ") for part in CONTENT_SECURITY_POLICY.split(";")]
    directives = {name: value for name, _, value in parts}
    assert directives["default-src"] == "'none'"
    assert not directives.keys() & {"script-src", "connect-src", "frame-src", "child-src", "object-src", "font-src"}
    assert directives["img-src"] == "data:"
    assert (directives["form-action"], directives["base-uri"]) == ("'none'", "'none'")
    first = [tag for tag, _ in page.elements].index("meta")
    assert all(tag in ("html", "head", "meta") for tag, _ in page.elements[: first + 2]), "before anything it must bind"


@pytest.mark.parametrize("value", [{"html": "<h1>hi</h1><script>alert(1)</script>"}, {"html": ATTACK, "n": 3}])
def test_a_steps_page_is_shown_only_inside_a_sandboxed_frame(value: dict[str, Any]) -> None:
    page = assert_harmless(render(result_with(value)))
    (frame,) = page.all("iframe")
    assert frame["srcdoc"] == value["html"]
    assert ("'n': 3" in page.text) == ("n" in value)


def test_html_artifacts_are_framed_and_images_embedded() -> None:
    artifacts = (
        Artifact("page", "text/html; charset=utf-8", b"<b>x</b>"),
        Artifact("plot", "image/png", PNG),
        Artifact("drawing", "IMAGE/SVG+XML", b"<svg onload='alert(1)'/>"),
        Artifact("table", "text/csv", b"a,b\n1,<2"),
        Artifact("blob", "application/octet-stream", b"\0" * 10),
        Artifact("trick", "image/png;base64,x' onerror='alert(1)", b"x"),
    )
    page = assert_harmless(render(result_with(1, artifacts=artifacts)))
    assert [frame["srcdoc"] for frame in page.all("iframe")] == ["<b>x</b>"]
    kinds = [(image["src"] or "").partition(";")[0] for image in page.all("img")]
    assert kinds.count("data:image/svg+xml") == 1
    assert "1,<2" in page.text
    assert "blob (application/octet-stream, 10 bytes)" in page.text


def test_large_outputs_are_cut() -> None:
    text = render(
        result_with(
            ["x" * 10_000] * 1000,
            stdout="y" * 1_000_000,
            artifacts=(Artifact("big", "image/png", bytes(9 * 1024 * 1024)),),
        )
    )
    assert len(text) < 200_000
    assert "too large to show" in text


def test_the_table_says_where_why_and_how_fast_each_step_ran() -> None:
    decision = Decision("wasm/module", (Candidate("wasm/module"),))
    text = Page(render(result_with(7, decision=decision))).text
    for part in ("wasm/module", "Chose wasm/module, the only arm", "10 ms", "wasmtime", "1 of 1 steps done"):
        assert part in text


def test_the_timeline_is_a_picture_or_a_clear_note(monkeypatch: pytest.MonkeyPatch) -> None:
    with_picture = Page(render(result_with(1)))
    (image,) = with_picture.all("img")
    assert image["alt"] == "when each step ran"
    assert base64.b64decode((image["src"] or "").partition(",")[2]).startswith(b"\x89PNG")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    without = Page(render(result_with(1)))
    assert without.all("img") == []
    assert "matplotlib is not installed" in without.text


def test_a_preview_of_anything_is_short_and_quick() -> None:
    nested: Any = 1
    for _ in range(150):
        nested = [nested, {"k": nested}] if _ < 12 else [nested]
    for value in (
        nested,
        {f"k{n}": list(range(1000)) for n in range(1000)},
        np.zeros((1000, 1000)),
        np.zeros(3, [("a", "<u4"), ("b", "<f8")]),
        np.array(["x" * 1000] * 3),
        b"x" * 10_000_000,
        "x" * 10_000_000,
        10**100_000,
        float("nan"),
        {1: (None, True)},
    ):
        assert len(preview(value)) < 4200
    assert preview(np.arange(3)) == "<array 3, int64: 0, 1, 2>"
