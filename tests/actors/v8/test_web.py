"""The Web APIs, each by what its standard says of it."""

from __future__ import annotations

import hashlib
import uuid
from typing import Any

import pytest

from runvisor.actors.jail.probe import probe_jail
from runvisor.policies import errors
from tests.actors.v8.conftest import Run

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not probe_jail("test").available, reason=probe_jail("test").detail),
]

VALUES = [
    ("new URL('../c?q=1#h', 'https://user:pw@EXAMPLE.com:443/a/b').href", "https://user:pw@example.com/c?q=1#h"),
    ("[URL.canParse('nope'), new URL('http://münchen.de/ä').href]", [False, "http://xn--mnchen-3ya.de/%C3%A4"]),
    ("const p = new URLSearchParams('a=1&b=2&a=3'); [p.getAll('a'), p.has('b'), p.size]", [["1", "3"], True, 3]),
    ("new TextEncoder().encode('é日😀')", "é日😀".encode()),
    ("new TextDecoder().decode(new Uint8Array([0xEF, 0xBB, 0xBF, 0xE6, 0x97, 0xA5, 0xFF]))", "日\ufffd"),
    ("const d = new TextDecoder(); d.decode(new Uint8Array([0xF0, 0x9F]), {stream: true}) +"
     " d.decode(new Uint8Array([0x98, 0x80]))", "😀"),
    ("try { new TextDecoder('utf8', {fatal: true}).decode(new Uint8Array([0x80])) } catch (e) { e.name }",
     "TypeError"),
    ("new TextDecoder('utf-16le').decode(new Uint8Array([0x41, 0, 0x3D, 0xD8, 0, 0xDE]))", "A😀"),
    ("[btoa('hi\\xff'), atob(' aGk= ')]", ["aGn/", "hi"]),
    ("try { btoa('日') } catch (e) { [e.name, e.code, e instanceof DOMException, e instanceof Error] }",
     ["InvalidCharacterError", 5, True, True]),
    ("const o = {d: new Date(0), m: new Map([[1, {x: [1n]}]]), s: new Set(['a']), r: /x/gi, e: new RangeError('r')};"
     " o.o = o; const c = structuredClone(o);"
     "[c !== o, c.o === c, c.d.getTime(), String(c.m.get(1).x[0]), c.s.has('a'), String(c.r), c.e.name, c.e.message]",
     [True, True, 0, "1", True, "/x/gi", "RangeError", "r"]),
    ("try { structuredClone({f() {}}) } catch (e) { e.name }", "DataCloneError"),
    ("const b = new ArrayBuffer(4), c = structuredClone(b, {transfer: [b]}); [b.byteLength, c.byteLength]", [0, 4]),
    ("const c = new AbortController(); const seen = []; c.signal.onabort = (e) => seen.push(e.type);"
     "c.abort(); c.abort(); [seen, c.signal.aborted, c.signal.reason.name]", [["abort"], True, "AbortError"]),
    ("AbortSignal.any([new AbortController().signal, AbortSignal.abort('why')]).reason", "why"),
    ("new Promise((done) => { AbortSignal.timeout(5).onabort = (e) => done(e.target.reason.name) })", "TimeoutError"),
    ("const t = new EventTarget(); const seen = []; t.addEventListener('x', {handleEvent(e) { seen.push(e.detail) }},"
     " {once: true}); t.dispatchEvent(new CustomEvent('x', {detail: 1})); t.dispatchEvent(new Event('x')); seen", [1]),
    ("const e = new Event('x', {cancelable: true}); const t = new EventTarget();"
     "t.addEventListener('x', (e) => e.preventDefault()); [t.dispatchEvent(e), e.defaultPrevented]", [False, True]),
    ("(async () => { const out = []; const up = new TransformStream({transform(x, c) { c.enqueue(x + x) }});"
     "for await (const x of ReadableStream.from(['a', 'b']).pipeThrough(up)) out.push(x); return out })()",
     ["aa", "bb"]),
    ("(async () => { const seen = []; const w = new WritableStream({write(x) { seen.push(x) }}).getWriter();"
     "await w.write(1); await w.close(); return seen })()", [1]),
    ("new Response(JSON.stringify({a: 1}), {status: 201}).json()", {"a": 1}),
    ("const r = Response.json([1]); [r.status, r.ok, r.headers.get('Content-Type')]", [200, True, "application/json"]),
    ("const h = new Headers({A: '1'}); h.append('a', '2'); [...h]", [["a", "1, 2"]]),
    ("const r = new Request('http://h/x', {method: 'post', body: 'b'}); [r.method, r.headers.get('content-type')]",
     ["POST", "text/plain;charset=UTF-8"]),
    ("new Blob(['a', new Uint8Array([98])], {type: 'text/plain'}).slice(1).text()", "b"),
    ("const f = new FormData(); f.append('a', '1'); f.append('f', new Blob(['x']), 'n.txt'); "
     "new Request('http://h/', {method: 'POST', body: f}).text().then((t) =>"
     " [t.includes('filename=\"n.txt\"'), t.includes('\\r\\n\\r\\nx\\r\\n')])",
     [True, True]),
    ("const t = performance.now(); [t > 0, performance.timeOrigin > 1.6e12, performance.now() >= t]", [True] * 3),
    ("new Promise((done) => queueMicrotask(() => done('later')))", "later"),
    ("performance.mark('a'); const m = performance.measure('b', 'a'); [m.entryType, m.duration >= 0]",
     ["measure", True]),
    ("performance.now() < 5000", True),
    ("typeof crypto.getRandomValues(new Uint32Array(4))[0]", "number"),
    ("crypto.getRandomValues(new Uint8Array(60000)).some((x) => x > 0)", True),
]  # fmt: skip


@pytest.mark.parametrize(("code", "value"), VALUES)
def test_the_web_apis(run: Run, code: str, value: Any) -> None:
    assert run(code).unwrap() == value


def test_a_timer_of_no_delay_comes_after_microtasks_and_in_order(run: Run) -> None:
    code = (
        "new Promise((done) => { const seen = []; setTimeout(() => seen.push(2)); setTimeout(() => done(seen), 5);"
        "setTimeout((x) => seen.push(x), 0, 3); Promise.resolve().then(() => seen.push(1)) })"
    )
    assert run(code).unwrap() == [1, 2, 3]


def test_a_cleared_timer_does_not_come(run: Run) -> None:
    code = "const t = setTimeout(() => console.log('no'), 1); clearTimeout(t); setTimeout(() => console.log('yes'), 3)"
    assert run(code).stdout == "yes\n"


@pytest.mark.parametrize("algorithm", ["SHA-1", "SHA-256", "SHA-384", "SHA-512"])
def test_digests(run: Run, algorithm: str) -> None:
    data = bytes(range(256)) * 3000
    value = run(f"crypto.subtle.digest('{algorithm}', inputs)", data).unwrap()
    assert value == hashlib.new(algorithm.replace("-", "").lower(), data).digest()


def test_uuids_are_random_and_of_version_4(run: Run) -> None:
    first, second = run("[crypto.randomUUID(), crypto.randomUUID()]").unwrap()
    assert first != second
    assert uuid.UUID(first).version == 4


def test_fetch_without_a_grant_names_the_permission(run: Run) -> None:
    name, message = run("fetch('http://127.0.0.1:9/').catch((e) => [e.name, e.message])").unwrap()
    assert name == "TypeError"
    assert "network.allowed_hosts" in message


def test_replaced_built_ins_break_no_web_api_that_is_loaded_later(run: Run) -> None:
    code = (
        "JSON.stringify = () => 'forged'; Promise.prototype.then = () => 0; Uint8Array.prototype.set = () => 0;"
        "String.fromCharCode = () => 'forged'; [typeof URL, typeof fetch, crypto.randomUUID().length]"
    )
    result = run(code)
    assert result.value == ["function", "function", 36] or isinstance(result.error, errors.GuestException)
