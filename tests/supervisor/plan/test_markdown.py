"""Reading an agent's reply: what is a step, what it is called, and where an error lies."""

from __future__ import annotations

import base64
import textwrap
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runvisor.policies.errors import CapabilityDenied, InvalidPlan, RunvisorError, TrustViolation
from runvisor.policies.permissions import MiB
from runvisor.policies.trust import Trust
from runvisor.supervisor.plan.markdown import parse_plan
from runvisor.supervisor.plan.model import Plan
from runvisor.supervisor.plan.references import Reference


def plan_of(text: str) -> Plan:
    return parse_plan(textwrap.dedent(text))


def refused(text: str) -> RunvisorError:
    with pytest.raises(InvalidPlan) as caught:
        plan_of(text)
    return caught.value


def test_numbered_bulleted_and_headed_steps_are_read_alike() -> None:
    plan = plan_of(
        """\
        # My analysis

        1. **Load** the `iris` set: small and clean.

           ```python
           1
           ```

        - Clean up

          ~~~js id=clean timeout=500ms
          2
          ~~~

        ### Step 3: Draw the figure.

        Some words.

        ```py
        3
        ```
        """
    )
    assert plan.title == "My analysis"
    assert [(step.id, step.language, step.title, step.line, step.code) for step in plan.steps] == [
        ("load_the_iris_set", "python", "Load the iris set", 6, "1\n"),
        ("clean", "javascript", "Clean up", 12, "2\n"),
        ("draw_the_figure", "python", "Draw the figure.", 20, "3\n"),
    ]
    assert plan["draw_the_figure"].description == "Some words."


def test_a_fence_after_its_list_item_takes_the_items_name() -> None:
    plan = plan_of("1. Load data\n```python\n1\n```\n2. Fit\n```python\n2\n```\n")
    assert [step.id for step in plan.steps] == ["load_data", "fit"]


def test_steps_without_any_name_near_are_numbered_and_names_are_made_unique() -> None:
    plan = plan_of(
        """\
        ```py
        1
        ```
        # 數據
        ```py
        2
        ```
        # Fit
        ```py
        3
        ```
        ```py
        4
        ```
        # Item
        ```py
        5
        ```
        """
    )
    assert [step.id for step in plan.steps] == ["step_1", "step_2", "fit", "fit_2", "step_5"]


def test_a_step_that_names_itself_keeps_its_name_whatever_came_before() -> None:
    plan = plan_of("# Fit\n```py\n1\n```\n```py id=fit\n2\n```\n")
    assert [step.id for step in plan.steps] == ["fit_2", "fit"]


@pytest.mark.parametrize("word", ["", "text", "output", "json", "console", "yaml", "mermaid", "OUTPUT"])
def test_fences_to_be_read_are_not_steps(word: str) -> None:
    plan = parse_plan(f"```{word}\nnot code\n```\n```py\n1\n```\n")
    assert len(plan.steps) == 1


def test_a_fence_to_be_read_with_attributes_is_refused_because_it_was_meant_to_run() -> None:
    error = refused("```json id=config\n{}\n```\n")
    assert error.where == "1:12"
    assert "a json block is not a step" in error.what


def test_a_fence_that_starts_with_an_attribute_has_its_language_found_out() -> None:
    plan = parse_plan("```id=a\n1\n```\n```auto\n1\n```\n")
    assert [(step.id, step.language) for step in plan.steps] == [("a", "auto"), ("step_2", "auto")]


@pytest.mark.parametrize("word", ["bash", "ruby", "pyton", "sql"])
def test_a_language_that_nothing_runs_is_refused_rather_than_left_out(word: str) -> None:
    error = refused(f"text\n\n```{word}\nrm -rf /\n```\n")
    assert error.where == "line 3"
    assert "write text for what is only to be read" in error.remedy


def test_quoted_fences_indented_code_and_html_are_not_steps() -> None:
    plan = parse_plan(
        "> ```py\n> quoted\n> ```\n\n    ```py\n    indented\n    ```\n\n<!--\n```py\ncomment\n```\n-->\n\n"
        "```py id=only\n1\n```\n"
    )
    assert [step.id for step in plan.steps] == ["only"]


@pytest.mark.parametrize(
    "text",
    [
        "```py\nhalf = ",
        "```py\nhalf\n",
        "```py",
        "```py\nx\n      ```",
        "````py\nx\n```\n",
        "1. a\n   ```py\n   x\n2. b\n",
    ],
)
def test_a_reply_that_was_cut_off_inside_a_step_is_refused(text: str) -> None:
    error = refused("```js\n1\n```\n" + text)
    assert "not closed" in error.what
    assert error.where.startswith("line ")


def test_longer_fences_may_hold_shorter_ones() -> None:
    plan = parse_plan("````py\nx = '''\n```\n'''\n````\n")
    assert plan.steps[0].code == "x = '''\n```\n'''\n"


def test_columns_point_into_the_authors_line_also_inside_a_list() -> None:
    error = refused("1. Load\n\n   ```python   nedes=a\n   1\n   ```\n")
    assert error.where == "3:16"
    assert "did you mean needs?" in error.remedy


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_numbers_hold_for_every_kind_of_line_end(end: str) -> None:
    plan = parse_plan(end.join(["---", "title: T", "---", "", "# A", "```py", "1", "```", ""]))
    assert (plan.title, plan.steps[0].line) == ("T", 7)


def test_wasm_is_base64_of_a_module() -> None:
    module = b"\0asm\1\0\0\0"
    plan = parse_plan(f"```wasm\n{base64.b64encode(module).decode()}\n```\n")
    assert plan.steps[0].code == module
    assert "not base64" in refused("```wasm\n(module)\n```\n").what


def test_a_plan_without_steps_is_refused() -> None:
    assert "no steps" in refused("Just words.\n\n```text\nx\n```\n").what


def test_an_empty_step_is_refused_with_its_line() -> None:
    assert refused("# A\n```py id=x\n```\n").where == "step x, line 3"


def test_two_steps_of_one_id_are_refused_with_both_lines() -> None:
    error = refused("```py id=a\n1\n```\n```py id=a\n2\n```\n")
    assert error.where == "step a, line 5"
    assert "step a, line 2" in error.what


def test_inputs_become_static_values_or_one_steps_value() -> None:
    plan = parse_plan("""```py id=a inputs='{"n": 3}'\n1\n```\n```wat inputs=a.args\n(module)\n```\n""")
    assert plan["a"].inputs == {"n": 3}
    assert plan.steps[1].inputs_from == Reference("a", ("args",))


def test_front_matter_gives_title_and_ceilings() -> None:
    plan = plan_of(
        """\
        ---
        title: Ceilings
        trust: verified
        permissions:
          memory: {limit: 64MB}
          network: {allowedHosts: [api.example.com]}
        ---
        ```py trust=verified network=api.example.com
        1
        ```
        ```py
        2
        ```
        """
    )
    assert (plan.title, plan.trust) == ("Ceilings", Trust.VERIFIED)
    assert plan.permissions is not None
    assert plan.permissions.memory_bytes == 64 * MiB
    assert [step.permissions.memory_bytes for step in plan.steps] == [64 * MiB, 64 * MiB]
    assert [step.trust for step in plan.steps] == [Trust.VERIFIED, Trust.UNTRUSTED]
    assert plan.steps[1].permissions.network.allowed_hosts == ()


def test_a_step_beyond_the_front_matter_is_denied_when_the_plan_is_read() -> None:
    front = "---\ntrust: untrusted\npermissions: {execution: {timeout: 1000}}\n---\n"
    with pytest.raises(TrustViolation) as trust:
        parse_plan(front + "```py trust=trusted\n1\n```\n")
    assert trust.value.where == "step step_1, line 6"
    with pytest.raises(CapabilityDenied) as denied:
        parse_plan(front + "```py id=a timeout=2s\n1\n```\n")
    assert denied.value.where == "step a, line 6"
    assert "timeout_s" in denied.value.what
    with pytest.raises(CapabilityDenied):
        parse_plan(front + "```py id=a network=example.com\n1\n```\n")


@pytest.mark.parametrize(
    ("front", "where"),
    [
        ("title: [", "2:9"),
        ("author: me", "line 1"),
        ("- a list", "line 2"),
        ("title: T\ntrust: total", "line 3"),
        ("permissions:\n  memory: {limit: lots}", "line 3"),
        ("permissions:\n  netwrk: {}", "line 3"),
        ("permissions: 3", "line 2"),
        ("title: &a [x]\npermissions: *a", "3:14"),
        ("title: !!python/object/apply:os.getcwd []", "2:8"),
    ],
)
def test_wrong_front_matter_is_refused_with_its_line(front: str, where: str) -> None:
    error = refused(f"---\n{front}\n---\n```py\n1\n```\n")
    assert error.where == where, str(error)


def test_a_rule_at_the_top_is_not_front_matter() -> None:
    assert parse_plan("---\n\n# Title\n\n```py\n1\n```\n").title == "Title"


@given(
    st.lists(st.sampled_from(["```py\n", "```\n", "~~~", "1. a\n", "  ", "> ", "# h\n", "x\n", "---\n", "\0", "\t"]))
)
def test_wild_markdown_gives_a_plan_or_one_of_our_errors(parts: list[str]) -> None:
    text = "".join(parts)
    try:
        plan = parse_plan(text)
    except RunvisorError:
        return
    lines = text.split("\n")
    for step in plan.steps:
        assert isinstance(step.code, str)
        assert step.code.split("\n")[0].strip() in lines[step.line - 1].replace("\0", "\ufffd")


def test_hostile_text_is_read_in_linear_time() -> None:
    started = time.process_time()
    for hostile in (
        "[" * 200_000,
        "*a_" * 60_000,
        "`" * 100_000,
        "[a]: b\n" * 20_000,
        "- " * 5_000,
        "# " + "<" * 500_000,
        "# " + "(#" * 200_000,
    ):
        parse_plan(f"{hostile}\n\n```py\n1\n```\n" if not hostile.startswith("`") else f"x{hostile}\n\n```py\n1\n```\n")
    assert time.process_time() - started < 10
