"""Programs in Python. All stay inside what every Python answers alike; sizes go from where nothing but the
start counts to where only the work does.
"""

from __future__ import annotations

from typing import Final

from benchmarks.scheduler.real.programs.program import (
    Program,
    edges,
    itself,
    letters,
    log_lines,
    rows,
    whole_numbers,
    words,
)

_LOOPS: Final = "python loops"
_LISTS: Final = "python lists of numbers"
_RECURSION: Final = "python recursion"
_TEXT: Final = "python text"
_JSON: Final = "python json"
_REGEX: Final = "python regex"
_SORTING: Final = "python sorting"
_GRAPHS: Final = "python graphs"
_TABLES: Final = "python tables"
_ENCODING: Final = "python hashing and encoding"
_ONE_LINERS: Final = "python one-liners"
_SMALL: Final = "python small programs"
_NUMPY: Final = "python numpy"

PYTHON: Final = (
    Program(
        "congruences", _LOOPS, "python",
        """
def congruences(n):
    total = 0
    for i in range(n):
        total = (total * 31 + i) % 1000003
    return total

congruences($N)
""",
        (200, 30_000, 500_000),
    ),
    Program(
        "collatz", _LOOPS, "python",
        """
def longest(limit):
    best = 0
    where = 0
    for start in range(1, limit):
        steps = 0
        n = start
        while n != 1:
            if n % 2 == 0:
                n = n // 2
            else:
                n = 3 * n + 1
            steps += 1
        if steps > best:
            best = steps
            where = start
    return where

longest($N)
""",
        (20, 400, 5_000),
    ),
    Program(
        "greatest divisors", _LOOPS, "python",
        """
def gcd(a, b):
    while b:
        a, b = b, a % b
    return a

def main(n):
    total = 0
    for a in range(1, n):
        for b in range(1, n):
            total += gcd(a, b)
    return total
""",
        (6, 50, 330), itself,
    ),
    Program(
        "mandelbrot", _LOOPS, "python",
        """
def inside(width):
    count = 0
    for row in range(width):
        for column in range(width):
            x0 = 3.0 * column / width - 2.0
            y0 = 2.0 * row / width - 1.0
            x = 0.0
            y = 0.0
            steps = 0
            while x ** 2 + y ** 2 <= 4.0 and steps < 60:
                t = x * x - y * y + x0
                y = 2.0 * x * y + y0
                x = t
                steps += 1
            if steps == 60:
                count += 1
    return count

inside($N)
""",
        (4, 24, 110),
    ),
    Program(
        "primes by trial", _LOOPS, "python",
        """
def count_primes(limit):
    count = 0
    for n in range(2, limit):
        prime = True
        d = 2
        while d * d <= n:
            if n % d == 0:
                prime = False
                break
            d += 1
        if prime:
            count += 1
    return count

count_primes($N)
""",
        (50, 2_000, 32_000),
    ),
    Program(
        "shift register", _LOOPS, "python",
        """
def register(rounds):
    state = 44257
    ones = 0
    for _ in range(rounds):
        bit = (state ^ (state >> 2) ^ (state >> 3) ^ (state >> 5)) & 1
        state = (state >> 1) | (bit << 15)
        ones += bit
    return ones

register(inputs)
""",
        (100, 20_000, 200_000), itself,
    ),
    Program(
        "area under a wave", _LOOPS, "python",
        """
import math

def area(steps):
    width = 3.0 / steps
    total = 0.0
    for i in range(steps):
        x = (i + 0.5) * width
        total += math.sin(x) * math.exp(-x) * width
    return total

round(area($N), 9)
""",
        (50, 10_000, 400_000),
    ),
    Program(
        "falling bodies", _LOOPS, "python",
        """
def fall(steps):
    x = 1.0
    y = 0.0
    vx = 0.0
    vy = 0.9
    for _ in range(steps):
        far = (x * x + y * y) ** 1.5
        vx -= x / far * 0.001
        vy -= y / far * 0.001
        x += vx * 0.001
        y += vy * 0.001
    return [round(x, 9), round(y, 9)]

def main(steps):
    return fall(steps)
""",
        (50, 5_000, 200_000), itself,
    ),
    Program(
        "distances", _LISTS, "python",
        """
import math

def nearest(values):
    best = 1e18
    for i in range(0, len(values) - 1, 2):
        for j in range(i + 2, len(values) - 1, 2):
            far = math.hypot(values[i] - values[j], values[i + 1] - values[j + 1])
            if far < best:
                best = far
    return best

round(nearest(inputs), 6)
""",
        (10, 120, 1_200), whole_numbers,
    ),
    Program(
        "smooth", _LISTS, "python",
        """
import math

def smooth(count, passes):
    values = [math.sin(i * 0.1) for i in range(count)]
    for _ in range(passes):
        after = values.copy()
        for i in range(1, count - 1):
            after[i] = (values[i - 1] + 2.0 * values[i] + values[i + 1]) / 4.0
        values = after
    return sum(values)

round(smooth($N, 20), 6)
""",
        (10, 500, 16_000),
    ),
    Program(
        "sieve", _LISTS, "python",
        """
def sieve(limit):
    marks = [True] * (limit + 1)
    marks[0] = False
    marks[1] = False
    for n in range(2, limit + 1):
        if n * n > limit:
            break
        if marks[n]:
            for m in range(n * n, limit + 1, n):
                marks[m] = False
    return sum(1 for mark in marks if mark)

sieve($N)
""",
        (200, 20_000, 700_000),
    ),
    Program(
        "matrix product", _LISTS, "python",
        """
def product(n):
    a = [[(i * j) % 7 for j in range(n)] for i in range(n)]
    b = [[(i + j) % 5 for j in range(n)] for i in range(n)]
    total = 0
    for i in range(n):
        for j in range(n):
            cell = 0
            for k in range(n):
                cell += a[i][k] * b[k][j]
            total += cell * (i + 1)
    return total

product($N)
""",
        (4, 24, 75),
    ),
    Program(
        "running mean", _LISTS, "python",
        """
def above_mean(values):
    mean = 0
    count = 0
    for value in values:
        mean = (mean * 7 + value) // 8
        if value > mean:
            count += 1
    return count

above_mean(inputs)
""",
        (50, 1_500, 15_000), whole_numbers,
    ),
    Program(
        "edit distance", _LISTS, "python",
        """
def distance(a, b):
    previous = [j for j in range(len(b) + 1)]
    for i in range(1, len(a) + 1):
        current = [i]
        for j in range(1, len(b) + 1):
            cost = 0 if a[i - 1] == b[j - 1] else 1
            current.append(min(previous[j] + 1, current[j - 1] + 1, previous[j - 1] + cost))
        previous = current
    return previous[len(b)]

def main(inputs):
    return distance(inputs[0], inputs[1])
""",
        (10, 80, 380), letters,
    ),
    Program(
        "knapsack", _LISTS, "python",
        """
def best(values, room):
    table = [0 for _ in range(room + 1)]
    for value in values:
        weight = value % 37 + 1
        worth = value % 101
        for left in range(room, weight - 1, -1):
            if table[left - weight] + worth > table[left]:
                table[left] = table[left - weight] + worth
    return table[room]

best(inputs, 600)
""",
        (4, 40, 700), whole_numbers,
    ),
    Program(
        "inversions", _LISTS, "python",
        """
def inversions(values):
    count = 0
    for i in range(len(values)):
        for j in range(i + 1, len(values)):
            if values[i] > values[j]:
                count += 1
    return count

inversions(inputs)
""",
        (10, 120, 1_200), whole_numbers,
    ),
    Program(
        "fibonacci", _RECURSION, "python",
        """
def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)

fib($N)
""",
        (8, 17, 27),
    ),
    Program(
        "tak", _RECURSION, "python",
        """
def tak(x, y, z):
    if y >= x:
        return z
    return tak(tak(x - 1, y, z), tak(y - 1, z, x), tak(z - 1, x, y))

tak($N, $N // 2, 0)
""",
        (4, 9, 16),
    ),
    Program(
        "binary trees", _RECURSION, "python",
        """
def tree(depth):
    if depth == 0:
        return None
    return {"left": tree(depth - 1), "right": tree(depth - 1)}

def count(node):
    return 0 if node is None else 1 + count(node["left"]) + count(node["right"])

count(tree($N))
""",
        (3, 9, 13),
    ),
    Program(
        "permutations", _RECURSION, "python",
        """
def permute(items):
    if len(items) <= 1:
        return [items]
    found = []
    for place, item in enumerate(items):
        for rest in permute(items[:place] + items[place + 1:]):
            found.append([item] + rest)
    return found

len(permute(list(range($N))))
""",
        (3, 5, 7),
    ),
    Program(
        "count words", _TEXT, "python",
        """
from collections import Counter

Counter(inputs.split()).most_common(5)
""",
        (20, 2_000, 30_000), words,
    ),
    Program(
        "caesar", _TEXT, "python",
        """
def shift(text, by):
    out = []
    for c in text:
        if c.isalpha():
            out.append(chr((ord(c) - 97 + by) % 26 + 97))
        else:
            out.append(c)
    return "".join(out)

shift(inputs, 3)[-20:]
""",
        (10, 400, 6_000), words,
    ),
    Program(
        "palindromes", _TEXT, "python",
        """
found = []
for n in range($N):
    text = str(n)
    if text == text[::-1]:
        found.append(text)
len(found)
""",
        (50, 4_000, 60_000),
    ),
    Program(
        "json there and back", _JSON, "python",
        """
import json

text = json.dumps(inputs)
back = json.loads(text)
[len(text), len(back)]
""",
        (3, 200, 2_000), rows,
    ),
    Program(
        "nested json", _JSON, "python",
        """
import json

document = {"items": [{"id": i, "tags": [str(i), "x" * (i % 9)], "at": {"x": i, "y": -i}} for i in range($N)]}
text = json.dumps(document, sort_keys=True)
max(item["at"]["x"] for item in json.loads(text)["items"])
""",
        (5, 400, 4_000),
    ),
    Program(
        "addresses", _REGEX, "python",
        r"""
import re

found = re.findall(r"(\w+)@(\w+)\.net", inputs)
[len(found), found[-1]]
""",
        (5, 200, 2_000), log_lines,
    ),
    Program(
        "parse a log", _REGEX, "python",
        r"""
import re
from collections import defaultdict

LINE = re.compile(r"^(\S+) (\w+) (\w+) (\S+) (\d+)ms$")
slowest = defaultdict(int)
for line in inputs.splitlines():
    match = LINE.match(line)
    if match:
        slowest[match.group(3)] = max(slowest[match.group(3)], int(match.group(5)))
sorted(slowest.items())
""",
        (5, 200, 3_000), log_lines,
    ),
    Program(
        "sort by key", _SORTING, "python",
        """
ordered = sorted(inputs, key=lambda row: (row["kind"], -row["amount"]))
[row["id"] for row in ordered[:5]]
""",
        (10, 300, 3_000), rows,
    ),
    Program("sort numbers", _SORTING, "python", "sorted(inputs)[::1000]", (20, 1_000, 19_000), whole_numbers),
    Program(
        "bubble sort", _SORTING, "python",
        """
def bubble(values):
    for end in range(len(values) - 1, 0, -1):
        for i in range(end):
            if values[i] > values[i + 1]:
                values[i], values[i + 1] = values[i + 1], values[i]
    return values

bubble(list(inputs))[:3]
""",
        (10, 80, 600), whole_numbers,
    ),
    Program(
        "breadth first", _GRAPHS, "python",
        """
from collections import deque

ways = {}
for start, end, _ in inputs:
    ways.setdefault(start, []).append(end)
seen = {0: 0}
queue = deque([0])
while queue:
    node = queue.popleft()
    for end in ways.get(node, []):
        if end not in seen:
            seen[end] = seen[node] + 1
            queue.append(end)
[len(seen), max(seen.values())]
""",
        (10, 300, 1_600), edges,
    ),
    Program(
        "shortest ways", _GRAPHS, "python",
        """
import heapq

ways = {}
for start, end, length in inputs:
    ways.setdefault(start, []).append((length, end))
known = {}
heap = [(0, 0)]
while heap:
    far, node = heapq.heappop(heap)
    if node in known:
        continue
    known[node] = far
    for length, end in ways.get(node, []):
        if end not in known:
            heapq.heappush(heap, (far + length, end))
max(known.values())
""",
        (10, 300, 1_600), edges,
    ),
    Program(
        "totals by kind", _TABLES, "python",
        """
totals = {}
for row in inputs:
    if row["open"]:
        totals[row["kind"]] = totals.get(row["kind"], 0) + row["amount"]
sorted(totals.items())
""",
        (10, 300, 3_000), rows,
    ),
    Program(
        "comma separated", _TABLES, "python",
        """
import csv
import io

out = io.StringIO()
writer = csv.writer(out)
for i in range($N):
    writer.writerow([i, "name %d" % i, i * i])
back = list(csv.reader(io.StringIO(out.getvalue())))
[len(back), back[-1]]
""",
        (5, 500, 5_000),
    ),
    Program(
        "digest chain", _ENCODING, "python",
        """
import hashlib

digest = b"seed"
for _ in range($N):
    digest = hashlib.sha256(digest).digest()
digest.hex()
""",
        (5, 1_000, 20_000),
    ),
    Program(
        "base 64", _ENCODING, "python",
        """
import base64

data = inputs.encode()
for _ in range(3):
    data = base64.b64encode(data)
len(data)
""",
        (20, 3_000, 60_000), words,
    ),
    Program("one and one", _ONE_LINERS, "python", "1 + 1"),
    Program("json of a dict", _ONE_LINERS, "python", 'import json\njson.dumps({"a": 1, "b": [2, 3]})'),
    Program(
        "dates", _SMALL, "python",
        """
from datetime import date, timedelta

start = date(2026, 1, 31)
[(start + timedelta(days=30 * i)).isoformat() for i in range(4)]
""",
    ),
    Program(
        "shopping", _SMALL, "python",
        """
from dataclasses import dataclass
from decimal import Decimal

@dataclass
class Item:
    name: str
    price: Decimal
    count: int

total = Decimal("0.00")
for item in (Item("tea", Decimal("3.20"), 2), Item("ink", Decimal("1.15"), 5)):
    total += item.price * item.count
str(total)
""",
    ),
    Program(
        "moments", _NUMPY, "python",
        """
import numpy as np

def weights(n):
    out = []
    for i in range(n):
        out.append((i * 7919) % 104729)
    return out

values = np.array(weights($N))
[int(values.min()), int(np.median(values)), int(values.max())]
""",
        (50, 10_000, 250_000),
    ),
    Program(
        "trapezoids", _NUMPY, "python",
        """
import numpy as np

def area(values, step):
    total = 0.0
    for i in range(1, len(values)):
        total += (values[i] + values[i - 1]) * step / 2.0
    return total

grid = np.linspace(0.0, 1.0, $N)
round(area((grid * grid).tolist(), 1.0 / ($N - 1)), 6)
""",
        (50, 10_000, 200_000),
    ),
)  # fmt: skip
"""Those with a numeric function may be compiled (python/jit) too, all but those with numpy run inside wasm too."""
