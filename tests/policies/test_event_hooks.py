"""Where event programs run, as their first lines say."""

from __future__ import annotations

import re

import pytest

from runvisor.policies import event_hooks
from runvisor.policies.errors import GuestSyntaxError
from runvisor.policies.event_hooks import EventHook, read_hook


@pytest.mark.parametrize(
    ("line", "hook"),
    [
        ("raw_tracepoint: sys_enter", EventHook("raw_tracepoint", "sys_enter", name="sys_enter")),
        ("tracepoint: sched:switch", EventHook("tracepoint", "sched:switch", category="sched", name="switch")),
        ("uprobe: libc:malloc", EventHook("uprobe", "libc:malloc", file="libc", symbol="malloc")),
        (
            "uprobe: /opt/a:b/lib.so:_ZN3foo3barEv@@V_1.2+0x1c",
            EventHook(
                "uprobe",
                "/opt/a:b/lib.so:_ZN3foo3barEv@@V_1.2+0x1c",
                file="/opt/a:b/lib.so",
                symbol="_ZN3foo3barEv",
                version="V_1.2",
                offset=0x1C,
            ),
        ),
        ("uretprobe: libc:read@V", EventHook("uretprobe", "libc:read@V", file="libc", symbol="read", version="V")),
        ("uprobe: main:f+010", EventHook("uprobe", "main:f+010", file="main", symbol="f", offset=10)),
    ],
)
@pytest.mark.parametrize(("before", "behind"), [("// ", "\n"), ("/* ", " */\n")])
def test_a_line_names_a_place(line: str, hook: EventHook, before: str, behind: str) -> None:
    assert read_hook(f"{before}{line}{behind}int x;") == hook


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("kprobe: do_open", "does not say where it runs"),
        ("raw_tracepoint: sched:switch", "no name of a tracepoint"),
        ("tracepoint: sched_switch", "write category:name"),
        ("tracepoint: ../..:id", "no name of a tracepoint"),
        ("tracepoint: a:b/../../../etc", "no name of a tracepoint"),
        ("uprobe: malloc", "no place of a function"),
        ("uprobe: ./a.out:main", "no place of a function"),
        ("uprobe: lib/../x:main", "no place of a function"),
        ("uprobe: libc:ma lloc", "does not say where it runs"),
        ("uprobe: libc:malloc+-1", "no place of a function"),
        ("uretprobe: libc:malloc+4", "returns as a whole"),
    ],
)
def test_what_names_no_place_is_told(line: str, says: str) -> None:
    with pytest.raises(GuestSyntaxError, match=says):
        read_hook(f"// {line}\n")


def test_no_part_of_a_text_is_read_twice() -> None:
    pattern = vars(event_hooks)["_LINE"].pattern
    repetitions = re.findall(r"[*+?}]\+?", re.sub(r"\[.*?\]|\\.|\(\?:", "", pattern))
    assert repetitions, pattern
    assert all(len(one) == 2 for one in repetitions), "a repetition that is not possessive"
    for text in ("// uprobe: b{}x", "{}x", "//{}", "// uprobe{}x", "// uprobe:{}", "/* uprobe: b{}*/{}x"):
        with pytest.raises(GuestSyntaxError, match="does not say where it runs"):
            read_hook(text.replace("{}", " " * 100))


@pytest.mark.parametrize("end", ["", "\n", " \t\r\n", "\f\n", "\n\n", " */", "\n */ \n", "  \n  int x;"])
def test_a_line_may_end_in_blanks_and_a_comment_below_it(end: str) -> None:
    assert read_hook(f" \n/* uprobe : libc:malloc{end}").event == "libc:malloc"
