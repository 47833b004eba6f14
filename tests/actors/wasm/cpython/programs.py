"""Programs that every Python arm must answer alike, as agents write them: code and inputs, by name."""

# ruff: noqa: E501

from __future__ import annotations

from typing import Any, Final

PROGRAMS: Final[dict[str, tuple[str, Any]]] = {
    "arithmetic": ("[7 // 2, -7 // 2, -7 % 3, 7.5 // 2, -7.5 % 2, 1 / 3, 10**20 // 7, divmod(-9, 4)]", None),
    "integers": (
        """\
n = 2**100
[n, n >> 3, n & 0xFFFF, n.bit_length(), -n // 3, int('ff', 16), bin(10), hex(255)]
""",
        None,
    ),
    "floats": ("[0.1 + 0.2, 1e308 * 10, round(2.675, 2), round(2.5), 1e-320, float('nan') != float('nan')]", None),
    "formats": (
        """\
x = 1234.5678
f'{x:10.2f}|{x:<12,}|{x:e}|{255:#x}|{-5:+d}|{0.5:%}|{"a":>4}|{3.0}|{1e16}|{1e22}'
""",
        None,
    ),
    "rounding": ("[round(i / 8, 2) for i in range(-20, 20)]", None),
    "text": (
        """\
s = 'Hello, Wörld'
[s.upper(), s.split(', '), s[::-1], s.find('W'), s.encode().hex(), s.center(20, '*')]
""",
        None,
    ),
    "text methods": (
        "['a-b'.partition('-'), ' x '.strip(), 'aXbX'.replace('X', '', 1), 'abc'.zfill(5), 'x'.join('abc')]",
        None,
    ),
    "casefold": ("['Straße'.casefold(), 'İ'.lower(), 'ab1'.isalnum(), 'title case'.title(), 'é'.isalpha()]", None),
    "percent": ("'%5.1f|%-5s|%05d|%x|%r' % (3.14159, 'ab', 42, 255, 'q')", None),
    "bytes": (
        """\
b = bytes(range(10))
[b[2:5], b.hex(' '), bytearray(b)[::-1].hex(), b'a,b'.split(b',')]
""",
        None,
    ),
    "slices": (
        """\
x = list(range(10))
x[2:8:2] = [0, 0, 0]
del x[-2:]
[x, x[::-1], x[5:1:-1]]
""",
        None,
    ),
    "sorting": ("sorted([('b', 2), ('a', 2), ('c', 1)], key=lambda p: (-p[1], p[0]))", None),
    "stable sort": ("sorted(['bb', 'a', 'cc', 'd'], key=len, reverse=True)", None),
    "dicts": (
        """\
d = {'a': 1, 'b': 2}
d |= {'c': 3}
d.pop('a')
[d, list(d.items()), d.get('x', 0), {v: k for k, v in d.items()}]
""",
        None,
    ),
    "comprehensions": ("[(i, j) for i in range(4) for j in range(i) if (i + j) % 2]", None),
    "generators": (
        """\
def g(n):
    x = yield n
    while x:
        x = yield x * 2
it = g(1)
[next(it), it.send(3), it.send(4)]
""",
        None,
    ),
    "yield from": (
        """\
def a():
    r = yield from b()
    yield r
def b():
    yield 1
    return 2
list(a())
""",
        None,
    ),
    "closures": (
        """\
def counter():
    n = 0
    def inc():
        nonlocal n
        n += 1
        return n
    return inc
c = counter()
[c(), c(), c()]
""",
        None,
    ),
    "decorators": (
        """\
import functools
def twice(f):
    @functools.wraps(f)
    def g(*a, **k):
        return f(f(*a, **k))
    return g
@twice
def inc(x):
    return x + 1
[inc(1), inc.__name__]
""",
        None,
    ),
    "classes": (
        """\
class A:
    def __init__(self, x):
        self.x = x
    def __add__(self, o):
        return A(self.x + o.x)
    def __repr__(self):
        return f'A({self.x})'
repr(A(1) + A(2))
""",
        None,
    ),
    "inheritance": (
        """\
class A:
    def f(self):
        return ['A']
class B(A):
    def f(self):
        return ['B', *super().f()]
class C(A):
    def f(self):
        return ['C', *super().f()]
class D(B, C):
    pass
D().f()
""",
        None,
    ),
    "properties": (
        """\
class T:
    def __init__(self):
        self._c = 0.0
    @property
    def f(self):
        return self._c * 9 / 5 + 32
    @f.setter
    def f(self, v):
        self._c = (v - 32) * 5 / 9
t = T()
t.f = 212
[t._c, t.f]
""",
        None,
    ),
    "dataclasses": (
        """\
from dataclasses import dataclass, asdict, field
@dataclass(order=True)
class P:
    x: int
    tags: list = field(default_factory=list)
[asdict(P(1)), repr(P(2, ['a'])), P(1) < P(2)]
""",
        None,
    ),
    "enums": (
        """\
from enum import Enum
class Color(Enum):
    RED = 1
    BLUE = 2
[Color.RED, Color['BLUE'].value, [c.name for c in Color], repr(Color.RED)]
""",
        None,
    ),
    "match": (
        """\
def f(x):
    match x:
        case {'kind': 'a', 'n': int(n)} if n > 1:
            return n
        case [first, *rest]:
            return [first, len(rest)]
        case str():
            return 'text'
        case _:
            return None
[f({'kind': 'a', 'n': 2}), f([1, 2, 3]), f('x'), f(1.5)]
""",
        None,
    ),
    "exceptions": (
        """\
log = []
try:
    try:
        [][1]
    except IndexError:
        log.append('index')
        raise KeyError('k') from None
    finally:
        log.append('finally')
except KeyError:
    log.append('key')
else:
    log.append('else')
log
""",
        None,
    ),
    "custom exceptions": (
        """\
class Bad(ValueError):
    pass
def f(x):
    if x < 0:
        raise Bad(x)
    return x
out = []
for x in [1, -1]:
    try:
        out.append(f(x))
    except Bad as e:
        out.append(type(e).__name__)
out
""",
        None,
    ),
    "context managers": (
        """\
from contextlib import contextmanager
log = []
@contextmanager
def c(n):
    log.append(f'in {n}')
    try:
        yield n * 2
    finally:
        log.append(f'out {n}')
with c(1) as a, c(2) as b:
    log.append(a + b)
log
""",
        None,
    ),
    "unpacking": (
        """\
a, *b, (c, d) = 1, 2, 3, (4, 5)
def f(x, /, y, *args, z=0, **kw):
    return [x, y, args, z, kw]
[a, b, c, d, f(1, 2, 3, z=4, w=5)]
""",
        None,
    ),
    "walrus": ("[y for x in range(6) if (y := x * x) % 2]", None),
    "itertools": (
        """\
import itertools as it
[list(it.accumulate([1, 2, 3])), list(it.combinations('abc', 2)), list(it.product([0, 1], repeat=2)), [[k, list(g)] for k, g in it.groupby('aabbb')], list(it.islice(it.count(5, 2), 3)), list(it.pairwise('abcd')), list(it.zip_longest('ab', 'c'))]
""",
        None,
    ),
    "functools": (
        """\
import functools
@functools.lru_cache(maxsize=None)
def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)
[fib(80), functools.reduce(lambda a, b: a * b, [1, 2, 3, 4]), functools.partial(int, base=2)('101')]
""",
        None,
    ),
    "collections": (
        """\
from collections import Counter, defaultdict, deque, namedtuple
d = defaultdict(list)
for w in 'the cat the dog'.split():
    d[len(w)].append(w)
P = namedtuple('P', 'x y')
q = deque([1, 2, 3], maxlen=2)
[Counter('hello').most_common(2), d, q, P(1, 2), repr(P(1, 2))]
""",
        None,
    ),
    "heapq": (
        """\
import heapq
h = [5, 1, 4]
heapq.heapify(h)
heapq.heappush(h, 2)
[heapq.heappop(h), h, heapq.nlargest(2, h)]
""",
        None,
    ),
    "bisect": (
        """\
import bisect
x = [1, 3, 5]
bisect.insort(x, 4)
[x, bisect.bisect_left(x, 3), bisect.bisect(x, 3)]
""",
        None,
    ),
    "math": (
        """\
import math
[math.sqrt(2), math.gcd(12, 18), math.factorial(20), math.comb(40, 20), math.isqrt(10**30), math.fsum([0.1] * 10), math.floor(-1.5), math.pi, math.fmod(-7, 3), math.prod([1.1, 2.2, 3.3]), math.frexp(10.5), math.degrees(1.0)]
""",
        None,
    ),
    "fractions": (
        """\
from fractions import Fraction as F
[F(1, 3) + F(1, 6), str(F('0.125')), F(0.5).limit_denominator(), F(7, 3) // 1, round(F(7, 3), 2)]
""",
        None,
    ),
    "decimals": (
        """\
from decimal import Decimal as D, getcontext, ROUND_HALF_UP
getcontext().prec = 30
[D(1) / D(7), D('2.675').quantize(D('0.01'), ROUND_HALF_UP), D(2).sqrt(), D('1e3') + 1, str(D('NaN')), D(10).ln()]
""",
        None,
    ),
    "statistics": (
        """\
import statistics as s
x = [1.5, 2.5, 2.5, 4.0, 10.25]
[s.mean(x), s.median(x), s.mode(x), s.stdev(x), s.pvariance(x), s.fmean(x), s.quantiles(x, n=4)]
""",
        None,
    ),
    "random, seeded": (
        """\
import random
random.seed(42)
x = list(range(10))
random.shuffle(x)
[random.random(), random.randint(1, 6), random.choice('abc'), random.sample(range(100), 5), x, random.choices('ab', weights=[1, 3], k=5), random.getrandbits(70), random.uniform(1, 2)]
""",
        None,
    ),
    "a generator of its own": (
        """\
import random
r = random.Random('seed')
[r.random(), r.randrange(10**12), r.randbytes(4).hex()]
""",
        None,
    ),
    "json": (
        """\
import json
[json.loads('{"a": [1, 2.5, null, true, "\\\\u00e9"]}'), json.dumps({'b': [1, None], 'a': {'x': 1.5}}, sort_keys=True, indent=1), json.dumps('é', ensure_ascii=False)]
""",
        None,
    ),
    "regular expressions": (
        """\
import re
s = 'tel: 555-1234, fax 555-9876'
[re.findall(r'(\\d{3})-(\\d{4})', s), re.sub(r'\\d', '#', s), re.split(r'[,:]\\s*', s), re.match(r'(?P<k>\\w+)', s).groupdict(), bool(re.fullmatch('a+?b', 'aab')), re.compile('x', re.I).pattern]
""",
        None,
    ),
    "dates": (
        """\
from datetime import datetime, timedelta, date, timezone
d = datetime(2024, 2, 29, 12, 30, tzinfo=timezone.utc)
[d, d + timedelta(days=365), d.isoformat(), d.strftime('%Y-%m-%d %H:%M %a %j'), (date(2024, 3, 1) - date(2023, 3, 1)).days, datetime.strptime('2024-01-02', '%Y-%m-%d'), d.timestamp(), date(2024, 12, 30).isocalendar()[1], timedelta(hours=-1)]
""",
        None,
    ),
    "csv": (
        """\
import csv, io
out = io.StringIO()
w = csv.writer(out)
w.writerow(['a', 'b,c', 'd"e'])
[list(csv.DictReader(io.StringIO('x,y\\n1,2\\n3,4'))), out.getvalue()]
""",
        None,
    ),
    "base64": (
        """\
import base64
[base64.b64encode(b'hello'), base64.b32decode('NBSWY3DP'), base64.urlsafe_b64encode(b'\\xff\\xfe').decode(), base64.b85encode(b'abc')]
""",
        None,
    ),
    "hashes": (
        """\
import hashlib, hmac, zlib
[hashlib.md5(b'a').hexdigest(), hashlib.sha256(b'a').hexdigest(), hashlib.sha3_256(b'a').hexdigest(), hashlib.blake2b(b'a', digest_size=8).hexdigest(), hmac.new(b'k', b'm', 'sha256').hexdigest(), zlib.crc32(b'a')]
""",
        None,
    ),
    "struct": (
        """\
import struct
[struct.pack('<IhQd', 1, -2, 3, 0.5), struct.unpack('>H', b'\\x01\\x02'), struct.calcsize('<IqB')]
""",
        None,
    ),
    "textwrap": (
        """\
import textwrap
[textwrap.wrap('the quick brown fox jumps', 10), textwrap.shorten('hello big world', 10), textwrap.indent('a\\nb', '> ')]
""",
        None,
    ),
    "difflib": (
        """\
import difflib
[difflib.get_close_matches('appel', ['ape', 'apple', 'peach']), difflib.SequenceMatcher(None, 'abcd', 'bcde').ratio(), list(difflib.unified_diff(['a\\n'], ['b\\n']))]
""",
        None,
    ),
    "templates": (
        """\
import string
[string.Template('$a and ${b}').substitute(a=1, b=2), string.ascii_lowercase, string.capwords('a b')]
""",
        None,
    ),
    "html and urls": (
        """\
import html
from urllib.parse import quote, unquote, urlencode
[html.escape('<a href="x">'), html.unescape('&lt;&eacute;&#39;'), quote('a b/c?'), unquote('a%20b'), urlencode({'q': 'a b', 'n': 1})]
""",
        None,
    ),
    "uuids": (
        """\
import uuid
[uuid.uuid5(uuid.NAMESPACE_DNS, 'python.org'), str(uuid.UUID(int=5))]
""",
        None,
    ),
    "operator": (
        """\
import operator as op
[list(map(op.itemgetter(1), [(1, 2), (3, 4)])), op.attrgetter('real')(5), op.methodcaller('upper')('a')]
""",
        None,
    ),
    "copy": (
        """\
import copy
a = {'x': [1, 2]}
b, c = copy.copy(a), copy.deepcopy(a)
a['x'].append(3)
[b, c]
""",
        None,
    ),
    "typing": (
        """\
from typing import NamedTuple, Optional
class P(NamedTuple):
    x: int
    y: Optional[int] = None
def f(a: list[int], b: int | None = None) -> dict[str, int]:
    return {'n': len(a)}
[P(1), f([1, 2]), P(1)._asdict()]
""",
        None,
    ),
    "abstract classes": (
        """\
from abc import ABC, abstractmethod
class Shape(ABC):
    @abstractmethod
    def area(self):
        ...
class Sq(Shape):
    def __init__(self, s):
        self.s = s
    def area(self):
        return self.s * self.s
x = [Sq(2).area()]
try:
    Shape()
except TypeError:
    x.append('abstract')
x
""",
        None,
    ),
    "sets": (
        """\
a = {3, 1, 2}
b = set([2, 3, 4])
a.add(9)
[sorted(a & b), sorted(a | b), sorted(a - b), 2 in a, len(a ^ b), a <= b, sorted({x % 3 for x in range(10)})]
""",
        None,
    ),
    "string builder": (
        """\
import io
out = io.StringIO()
for i in range(3):
    print(i, i * i, sep=':', end=';', file=out)
out.getvalue()
""",
        None,
    ),
    "printing": (
        """\
for i in range(5):
    print(i, f'{i / 3:.3f}', [i] * 2, {'k': i})
print('end', end='')
""",
        None,
    ),
    "much printing": (
        """\
for i in range(2000):
    print('line', i)
""",
        None,
    ),
    "main": (
        """\
def main(inputs):
    return {k: v * 2 for k, v in inputs.items()}
""",
        {"a": 1, "b": "x", "c": [1]},
    ),
    "inputs": ("[x['name'] for x in inputs if x['age'] > 30]", [{"name": "a", "age": 31}, {"name": "b", "age": 5}]),
    "bytes as inputs": (
        "[len(inputs['data']), inputs['data'][:2], inputs['n']]",
        {"data": b"\x00\xff\x01", "n": 1180591620717411303424},
    ),
    "primes": (
        """\
def primes(n):
    sieve = [True] * (n + 1)
    out = []
    for i in range(2, n + 1):
        if sieve[i]:
            out.append(i)
            for j in range(i * i, n + 1, i):
                sieve[j] = False
    return out
primes(200)
""",
        None,
    ),
    "levenshtein": (
        """\
def d(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        prev, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            prev, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, prev + (x != y))
    return row[-1]
d('kitten', 'sitting')
""",
        None,
    ),
    "mandelbrot": (
        """\
def it(cr, ci):
    zr = zi = 0.0
    for n in range(60):
        zr, zi = zr * zr - zi * zi + cr, 2 * zr * zi + ci
        if zr * zr + zi * zi > 4:
            return n
    return 60
[[it(x / 10 - 2, y / 5 - 1) for x in range(30)] for y in range(10)]
""",
        None,
    ),
    "n bodies": (
        """\
import math
p = [[0.0, 0.0, 1.0, 0.5], [1.0, 2.0, -0.5, 0.25]]
for _ in range(100):
    dx, dy = p[1][0] - p[0][0], p[1][1] - p[0][1]
    r = math.sqrt(dx * dx + dy * dy) + 0.01
    f = 0.01 / (r * r * r)
    p[0][2] += dx * f
    p[0][3] += dy * f
    for b in p:
        b[0] += b[2] * 0.01
        b[1] += b[3] * 0.01
p
""",
        None,
    ),
    "matrix": (
        """\
def mul(a, b):
    return [[sum([int(x) * int(y) for x, y in zip(r, c)]) for c in zip(*b)] for r in a]
mul([[1, 2], [3, 4]], [[5, 6], [7, 8]])
""",
        None,
    ),
    "parser": (
        """\
import re
def tokens(s):
    return re.findall(r'\\d+|[-+*/()]', s)
def expr(t):
    v = term(t)
    while t and t[0] in '+-':
        v = v + term(t) if t.pop(0) == '+' else v - term(t)
    return v
def term(t):
    v = atom(t)
    while t and t[0] in '*/':
        v = v * atom(t) if t.pop(0) == '*' else v / atom(t)
    return v
def atom(t):
    x = t.pop(0)
    if x == '(':
        v = expr(t)
        t.pop(0)
        return v
    return int(x)
expr(tokens('2*(3+4)-10/4'))
""",
        None,
    ),
    "graph search": (
        """\
from collections import deque
g = {'a': ['b', 'c'], 'b': ['d'], 'c': ['d'], 'd': ['e'], 'e': []}
def path(s, e):
    seen = set()
    q = deque([[s]])
    while q:
        p = q.popleft()
        if p[-1] == e:
            return p
        if p[-1] in seen:
            continue
        seen.add(p[-1])
        for n in g[p[-1]]:
            q.append([*p, n])
path('a', 'e')
""",
        None,
    ),
    "recursion through a sort": (
        """\
def f(n):
    return 0 if n == 0 else 1 + sorted([1], key=lambda _: f(n - 1))[0]
f(200)
""",
        None,
    ),
    "an uncaught error": (
        """\
def f(x):
    return 1 // x

print('before')
f(0)
""",
        None,
    ),
    "an error in a library": (
        """\
import json
json.loads('{"a": }')
""",
        None,
    ),
    "an assertion": (
        """\
x = 1
assert x == 2, 'no'
""",
        None,
    ),
    "a missing key": ("{'a': 1}['b']", None),
    "a wrong type": ("'a' + 1", None),
    "an unknown attribute": ("(5).nothing", None),
    "endless recursion": (
        """\
def f(n):
    return f(n + 1)
f(0)
""",
        None,
    ),
    "a value that holds itself": ("c = [1]\nc += [{'p': c, 'q': c}] * 3\nc", None),
    "a value that cannot leave": ("{'f': lambda: 1}", None),
    "exit": ("raise SystemExit(2)", None),
    "a good exit": (
        """\
print('done')
raise SystemExit
""",
        None,
    ),
}
