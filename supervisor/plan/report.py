"""A web page about a plan's run, in one file; it shows hostile output.

Values, stdout, artifacts, error texts and the plan's own words may all have been
written to attack whoever opens the page. Three locks, each enough against scripts:

1. Every text goes through `_text`, which escapes it; there is no other way in.
2. HTML that a step made is shown only inside ``<iframe sandbox="">`` (no scripts,
   forms, pop-ups, navigation of the page, nor the page's origin), as an escaped ``srcdoc``.
3. The page's Content-Security-Policy allows no scripts and no request to anywhere.
   Frames of ``srcdoc`` inherit it, so a picture or a link in them cannot carry data out.

Sources: https://html.spec.whatwg.org/multipage/iframe-embed-object.html#attr-iframe-sandbox
and https://www.w3.org/TR/CSP3/.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from runvisor.policies.result import Artifact, Result
from runvisor.policies.values import Value
from runvisor.supervisor.plan.model import Plan, Step
from runvisor.supervisor.plan.outcome import PlanResult, StepOutcome, SubtaskOutcome
from runvisor.supervisor.plan.preview import preview
from runvisor.supervisor.plan.timeline import draw_timeline

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'"
)
IMAGE_TYPES: Final = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp", "image/svg+xml"})
"""Shown as ``<img>``, where also SVG runs no scripts and loads nothing."""

_MAX_EMBEDDED_BYTES: Final = 8 * 1024 * 1024
_MAX_OUTPUT: Final = 8000
_MAX_RUNS: Final = 24
_UNPRINTABLE: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)

_STYLE: Final = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: .2rem; } h2 { margin-top: 2.4rem; } h3 { margin: 2rem 0 .3rem; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: .35rem .6rem; border-bottom: 1px solid var(--line); }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
pre { background: var(--soft); padding: .7rem; overflow: auto; max-height: 26rem; white-space: pre-wrap; }
iframe { width: 100%; height: 34rem; border: 1px solid var(--line); background: white; resize: vertical; }
img { max-width: 100%; background: white; }
.done { color: #23803f; } .failed { color: #c5281c; } .skipped { color: #8a6d00; } .soft { opacity: .75; }
"""


def render(result: PlanResult, plan: Plan | None = None) -> str:
    """Return the page.

    Args:
        result: What to show.
        plan: The plan, to show each step's code and needs too.

    Example:
        >>> page = render(PlanResult("<script>alert(1)</script>", ()))
        >>> "<script" in page, "&lt;script&gt;" in page
        (False, True)
    """
    title = _text(result.title)
    done = sum(step.ok for step in result.steps)
    summary = f"{done} of {len(result.steps)} steps done in {_milliseconds(result.wall_s)}"
    if result.cancelled:
        summary += ", cancelled"
    steps = {step.id: step for step in plan.steps} if plan is not None else {}
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{CONTENT_SECURITY_POLICY}">',
            '<meta name="referrer" content="no-referrer">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>",
            f'<h1>{title}</h1>\n<p class="soft">{_text(summary)}</p>',
            _table(result.steps),
            _timeline(result),
            "<h2>Steps</h2>",
            *(_section(step, steps.get(step.step)) for step in result.steps),
            "</body>\n</html>\n",
        ]
    )


def write_report(result: PlanResult, path: str | Path, plan: Plan | None = None) -> None:
    """Write the page to a file, with the folders above it.

    Raises:
        OSError: It cannot be written.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(render(result, plan), encoding="utf-8")


def _text(value: object) -> str:
    """Return text that is only text: escaped, for element content and quoted attributes alike.

    Control characters and those that turn the direction of text become visible:
    they could make the page say what it does not.
    """
    shown = _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", str(value))
    return html.escape(shown, quote=True)


def _cut(text: str) -> str:
    if len(text) <= _MAX_OUTPUT:
        return text
    return f"{text[:_MAX_OUTPUT]}\n... {len(text) - _MAX_OUTPUT} characters more"


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.2f} s"


def _table(steps: Iterable[StepOutcome]) -> str:
    heads = ("step", "state", "ran on", "why there", "latency", "isolation")
    rows = "".join(f"<tr>{_row(step)}</tr>\n" for step in steps)
    return f"<table>\n<tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr>\n{rows}</table>"


def _row(step: StepOutcome) -> str:
    results = [run.result for run in step.subtasks if run.result is not None]
    runs = f" <span class='soft'>({len(step.subtasks)} runs)</span>" if step.fans_out else ""
    reason = str(step.error) if step.error is not None else step.reason
    attempts = max((run.attempts for run in step.subtasks), default=0)
    retried = f" <span class='soft'>(attempt {attempts})</span>" if attempts > 1 else ""
    why = next((r.decision.explain() for r in results if r.decision is not None), "")
    return "".join(
        [
            f'<td><a href="#{_text(step.step)}">{_text(step.step)}</a>{runs}</td>',
            f'<td><span class="{_text(step.state)}">{_text(step.state)}</span>{retried}',
            f"<br>{_text(_short(reason))}</td>" if reason else "</td>",
            f"<td>{_each(f'{r.runtime}/{r.variant}' for r in results if r.runtime)}</td>",
            f"<td>{_text(why)}</td>",
            f'<td class="number">{_text(_milliseconds(step.latency_s))}</td>',
            f"<td>{_each(r.isolation.engine for r in results)}</td>",
        ]
    )


def _each(names: Iterable[str]) -> str:
    return "<br>".join(_text(name) for name in dict.fromkeys(names))


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 200 else line[:200] + " ..."


def _timeline(result: PlanResult) -> str:
    picture = draw_timeline(result) if result.steps else None
    if picture is None:
        return '<p class="soft">No timeline: matplotlib is not installed, or nothing ran.</p>'
    return f"<h2>Timeline</h2>\n{_image('image/png', picture, 'when each step ran')}"


def _section(outcome: StepOutcome, step: Step | None) -> str:
    name = f'<h3 id="{_text(outcome.step)}">{_text(outcome.step)}'
    parts = [name + (f' <span class="soft">{_text(outcome.title)}</span></h3>' if outcome.title else "</h3>")]
    if step is not None:
        if step.description:
            parts.append(f"<p>{_text(step.description)}</p>")
        code = step.code if isinstance(step.code, str) else f"<{len(step.code)} bytes of wasm>"
        parts.append(_folded(f"code ({step.language}, {step.trust.label})", code))
    if outcome.reason:
        parts.append(f'<p class="{_text(outcome.state)}">{_text(outcome.reason)}</p>')
    if outcome.error is not None:
        parts.append(_block("error", _error_text(outcome)))
    parts += [_run(run) for run in outcome.subtasks[:_MAX_RUNS]]
    if len(outcome.subtasks) > _MAX_RUNS:
        parts.append(f'<p class="soft">{len(outcome.subtasks) - _MAX_RUNS} runs more</p>')
    return "\n".join(parts)


def _error_text(outcome: StepOutcome) -> str:
    error = outcome.error
    assert error is not None
    return f"{type(error).__name__}: {error}\n{error.details.get('traceback', '')}".rstrip()


def _run(run: SubtaskOutcome) -> str:
    result = run.result
    if result is None:
        return ""
    parts = [] if run.index is None else [f"<h4>run {run.index}: {_text(run.state)}</h4>"]
    page = _page_of(result.value)
    if page is not None:
        parts.append(_frame(page))
        result_value = {key: item for key, item in result.value.items() if key != "html"}
        if result_value:
            parts.append(_block("value, without its page", preview(result_value)))
    elif result.ok:
        parts.append(_block("value", preview(result.value)))
    parts += _outputs(result)
    return "\n".join(parts)


def _outputs(result: Result) -> list[str]:
    parts = [_block(name, text) for name, text in (("stdout", result.stdout), ("stderr", result.stderr)) if text]
    return parts + [_artifact(artifact) for artifact in result.artifacts]


def _page_of(value: Value) -> str | None:
    """Return the page of a value that is one: ``{"html": "..."}``."""
    if isinstance(value, Mapping) and isinstance(value.get("html"), str):
        page: str = value["html"]
        return page
    return None


def _artifact(artifact: Artifact) -> str:
    kind = artifact.mime.partition(";")[0].strip().lower()
    caption = f"{artifact.name} ({artifact.mime}, {len(artifact.data)} bytes)"
    if len(artifact.data) > _MAX_EMBEDDED_BYTES:
        shown = '<p class="soft">too large to show</p>'
    elif kind in IMAGE_TYPES:
        shown = _image(kind, artifact.data, artifact.name)
    elif kind == "text/html":
        shown = _frame(artifact.data.decode(errors="replace"))
    elif kind.startswith("text/") or kind == "application/json":
        shown = f"<pre>{_text(_cut(artifact.data.decode(errors='replace')))}</pre>"
    else:
        shown = ""
    return f'<p class="soft">{_text(caption)}</p>\n{shown}'


def _image(kind: str, data: bytes, name: str) -> str:
    assert kind in IMAGE_TYPES
    return f'<img alt="{_text(name)}" src="data:{kind};base64,{base64.b64encode(data).decode()}">'


def _frame(page: str) -> str:
    """Show a page of a guest's making; the empty ``sandbox`` is what holds it."""
    if len(page) > _MAX_EMBEDDED_BYTES:
        return '<p class="soft">a page too large to show</p>'
    return f'<iframe sandbox="" referrerpolicy="no-referrer" loading="lazy" srcdoc="{_text(page)}"></iframe>'


def _block(name: str, text: str) -> str:
    return f'<p class="soft">{_text(name)}</p>\n<pre>{_text(_cut(text))}</pre>'


def _folded(name: str, text: str) -> str:
    return f"<details><summary>{_text(name)}</summary>\n<pre>{_text(_cut(text))}</pre></details>"
