"""What a task shows beside its value, looked at from outside the jail."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Final

import pytest

from runvisor.actors.jail.probe import probe_jail
from runvisor.actors.python.screen import MAX_ARTIFACTS, MAX_BYTES, Screen
from tests.actors.python.driving import Answer

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not probe_jail("test").available, reason=probe_jail("test").detail),
]
Task = Callable[..., Answer]
PNG: Final = b"\x89PNG\r\n\x1a\n"


def thing(**methods: str) -> str:
    """Source of a class whose methods return what is given as source."""
    body = "".join(f"    def {name}(self, **options): return {value}\n" for name, value in methods.items())
    return f"class Thing:\n{body or '    pass'}\n"


def test_a_table_is_shown_as_html_and_json_and_its_value_stays_usable(task: Task) -> None:
    answer = task("import pandas as pd\npd.DataFrame({'a': [1, 2]}, index=['x', 'y'])")
    assert answer.value == {"index": ["x", "y"], "a": [1, 2]}
    assert b"<table" in answer.artifacts["result.html"][1]
    assert json.loads(answer.artifacts["result.json"][1]) == {
        "columns": ["a"],
        "index": ["x", "y"],
        "data": [[1], [2]],
        "rows": 2,
    }


def test_of_a_long_table_a_thousand_rows_are_shown_and_how_many_there_were(task: Task) -> None:
    answer = task("import pandas as pd\npd.DataFrame({'a': range(2500)})")
    shown = json.loads(answer.artifacts["result.json"][1])
    assert (len(shown["data"]), shown["rows"], len(answer.value["a"])) == (1000, 2500, 2500)
    assert b"2500 rows" in answer.artifacts["result.html"][1]


def test_what_main_returns_is_not_shown(task: Task) -> None:
    answer = task("import pandas as pd\ndef main(inputs):\n    return pd.DataFrame({'a': [1]})")
    assert (answer.value, answer.artifacts) == ({"a": [1]}, {})


def test_plain_values_show_nothing(task: Task) -> None:
    assert task("[1, 'two', {'three': 3}]").artifacts == {}


@pytest.mark.parametrize(
    ("method", "returned", "mime", "data"),
    [
        ("_repr_html_", "'<b>hi</b>'", "text/html", b"<b>hi</b>"),
        ("_repr_markdown_", "'# hi'", "text/markdown", b"# hi"),
        ("_repr_svg_", "'<svg/>'", "image/svg+xml", b"<svg/>"),
        ("_repr_latex_", "'$x$'", "text/latex", b"$x$"),
        ("_repr_png_", "b'png'", "image/png", b"png"),
        ("_repr_json_", "{'a': 1}", "application/json", b'{"a": 1}'),
        ("_repr_html_", "('<b>', {'isolated': True})", "text/html", b"<b>"),
        ("_repr_mimebundle_", "{'application/vnd.custom+json': [1]}", "application/vnd.custom+json", b"[1]"),
        ("_repr_mimebundle_", "{'image/png': 'cG5n'}", "image/png", b"png"),
        ("_repr_mimebundle_", "({'text/html': 'a'}, {})", "text/html", b"a"),
    ],
)
def test_each_rich_form_of_an_object_is_an_artifact(
    task: Task, method: str, returned: str, mime: str, data: bytes
) -> None:
    answer = task(thing(**{method: returned}, __repr__="'a thing'") + "Thing()")
    assert answer.value is None
    assert (mime, data) in answer.artifacts.values()
    assert answer.artifacts["result.txt"] == ("text/plain", b"a thing")


def test_a_bundle_comes_before_the_single_methods(task: Task) -> None:
    both = thing(_repr_mimebundle_="{'text/html': 'bundle'}", _repr_html_="'single'", _repr_svg_="'<svg/>'")
    answer = task(both + "Thing()")
    assert sorted(answer.mimes) == ["image/svg+xml", "text/html", "text/plain"]
    assert answer.artifacts["result.html"][1] == b"bundle"


@pytest.mark.parametrize(
    "returned",
    [
        "1 / 0",
        "[][0]",
        "exit()",
        "42",
        "object()",
        "{'bad mime': 'x'}",
        "{1: 'x'}",
        "[1]",
        "{'image/png': '!'}",
    ],
)
def test_a_hostile_form_is_dropped_with_a_note_and_the_rest_is_kept(task: Task, returned: str) -> None:
    answer = task(thing(_repr_mimebundle_=returned, _repr_svg_="'<svg/>'", __repr__="'a thing'") + "Thing()")
    assert sorted(answer.mimes) == ["image/svg+xml", "text/plain"]
    assert "[not shown]" in answer.stderr


def test_a_hostile_repr_becomes_a_note(task: Task) -> None:
    answer = task(thing(__repr__="1 / 0") + "display(Thing())\n1")
    assert answer.value == 1
    assert answer.artifacts["display-1.txt"][1] == b"<Thing: its repr raised ZeroDivisionError>"


def test_an_endless_text_is_cut(task: Task) -> None:
    answer = task(thing(__repr__="'x' * 10**6") + "display(Thing())")
    assert len(answer.artifacts["display-1.txt"][1]) < 11_000
    assert b"990000 more characters" in answer.artifacts["display-1.txt"][1]


def test_an_object_that_answers_to_every_name_has_no_rich_form(task: Task) -> None:
    answer = task("from unittest.mock import MagicMock\ndisplay(MagicMock())")
    assert answer.mimes == ["text/plain"]


def test_display_shows_several_things_in_order(task: Task) -> None:
    answer = task("display('text', 42)\ndisplay({'a': 1})\n'value'")
    assert answer.value == "value"
    assert [data for _, data in answer.artifacts.values()] == [b"text", b"42", b"{'a': 1}"]
    assert list(answer.artifacts) == ["display-1.txt", "display-2.txt", "display-3.txt"]


@pytest.mark.parametrize(
    "last",
    ["plt.show()", "pass", "plt.gcf()", "plt.gca()", "figure.show()", "display(figure)", "figure", "plt.plot([2])"],
)
def test_a_figure_is_shown_once_however_the_task_ends(task: Task, last: str) -> None:
    answer = task(f"import matplotlib.pyplot as plt\nfigure = plt.figure()\nplt.plot([1, 2])\n{last}")
    pictures = [data for mime, data in answer.artifacts.values() if mime == "image/png"]
    assert len(pictures) == 1
    assert pictures[0].startswith(PNG)
    width, height = struct.unpack(">II", pictures[0][16:24])
    assert 300 < width < 1000
    assert 300 < height < 1000
    assert answer.stderr == ""


def test_each_open_figure_is_a_picture_and_the_value_stays(task: Task) -> None:
    answer = task("import matplotlib.pyplot as plt\nfor n in range(3):\n    plt.figure(); plt.plot([n])\n'done'")
    assert answer.value == "done"
    assert list(answer.artifacts) == ["figure-1.png", "figure-2.png", "figure-3.png"]


def test_figures_drawn_before_an_error_are_kept(task: Task) -> None:
    answer = task("import matplotlib.pyplot as plt\nplt.plot([1])\n1 / 0")
    assert answer.error == "GuestException"
    assert list(answer.artifacts) == ["figure-1.png"]


def test_a_figure_that_cannot_be_drawn_is_noted(task: Task) -> None:
    answer = task("import matplotlib.pyplot as plt\nplt.title('$\\\\nonsense{$')\n1")
    assert answer.value == 1
    assert answer.artifacts == {}
    assert "could not be drawn" in answer.stderr


def test_a_backend_that_the_task_chose_shows_its_open_figures_too(task: Task) -> None:
    answer = task("import matplotlib\nmatplotlib.use('Agg')\nimport matplotlib.pyplot as plt\nplt.plot([1])")
    assert "image/png" in answer.mimes


def test_an_image_is_shown_as_png(task: Task) -> None:
    answer = task("from PIL import Image\nImage.new('RGBA', (2, 3))")
    assert answer.artifacts["result.png"][1].startswith(PNG)


def test_a_plotly_figure_is_its_own_json_and_a_page(task: Task) -> None:
    figure = thing(
        to_plotly_json="{}", to_json="'{\"data\": []}'", to_html="'<div>'", _repr_html_="'not asked'"
    )  # as plotly.basedatatypes.BaseFigure has them
    answer = task(figure + "Thing()")
    assert answer.artifacts["result.plotly.json"] == ("application/vnd.plotly.v1+json", b'{"data": []}')
    assert answer.artifacts["result.html"] == ("text/html", b"<div>")


def test_a_plotly_figure_that_is_told_to_show_itself_is_an_artifact_too(task: Task) -> None:
    show = "import plotly.io as pio\npio.show(Thing(), renderer='browser')"
    stand_in = (
        "import os, sys\nos.makedirs('/tmp/plotly/io')\nopen('/tmp/plotly/__init__.py', 'w').close()\n"
        "open('/tmp/plotly/io/__init__.py', 'w').write('def show(*args): 1 / 0')\nsys.path.insert(0, '/tmp')\n"
    )
    answer = task(stand_in + thing(to_plotly_json="{}", to_json="'{}'") + show)
    assert list(answer.artifacts) == ["figure-1.plotly.json"]


def test_an_estimator_is_shown_as_sklearn_shows_it(task: Task) -> None:
    answer = task("from sklearn.linear_model import LinearRegression\nLinearRegression().fit([[1], [2]], [1, 2])")
    assert answer.value is None
    assert answer.artifacts["result.txt"][1] == b"LinearRegression()"
    assert b"LinearRegression" in answer.artifacts["result.html"][1]


def test_an_object_that_shows_nothing_is_an_error_in_a_task(task: Task) -> None:
    answer = task("object()")
    assert answer.error == "UnserializableValue"
    assert "type object" in answer.what


def test_at_most_so_many_artifacts_are_kept(task: Task) -> None:
    answer = task("for n in range(100): display(n)")
    assert len(answer.artifacts) == MAX_ARTIFACTS
    assert "the rest is not kept" in answer.stderr
    assert answer.stderr.count("[not shown]") == 1


def test_artifacts_hold_at_most_so_many_bytes(task: Task) -> None:
    code = thing(_repr_html_="'x' * (7 << 20)") + "display(Thing(), Thing(), Thing(), 'small')"
    answer = task(code)
    assert sum(len(data) for _, data in answer.artifacts.values()) < MAX_BYTES
    assert answer.mimes == ["text/html", "text/html", "text/plain", "text/plain"]
    assert "16 MiB" in answer.stderr


def test_an_object_without_rich_forms_takes_no_name() -> None:
    screen = Screen()
    assert not screen.show_rich(object(), "display")
    screen.show("text", "display")
    assert screen.take()[0][0] == "display-1.txt"
