"""Programs in JavaScript. All stay inside what V8 and QuickJS answer alike."""

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

_LOOPS: Final = "javascript loops"
_TYPED: Final = "javascript arrays of numbers"
_RECURSION: Final = "javascript recursion"
_TEXT: Final = "javascript text"
_JSON: Final = "javascript json"
_SORTING: Final = "javascript sorting"
_COLLECTIONS: Final = "javascript collections"
_ONE_LINERS: Final = "javascript one-liners"

JAVASCRIPT: Final = (
    Program(
        "js congruences", _LOOPS, "javascript",
        "let total = 0;\nfor (let i = 0; i < $N; i++) total = (total * 31 + i) % 1000003;\ntotal",
        (100, 5_000, 100_000),
    ),
    Program(
        "js collatz", _LOOPS, "javascript",
        """
function longest(limit) {
  let best = 0, where = 0;
  for (let start = 1; start < limit; start++) {
    let steps = 0;
    for (let n = start; n !== 1; steps++) n = n % 2 === 0 ? n / 2 : 3 * n + 1;
    if (steps > best) { best = steps; where = start; }
  }
  return where;
}
longest(inputs)
""",
        (20, 200, 2_000), itself,
    ),
    Program(
        "js primes", _LOOPS, "javascript",
        """
const primes = [];
for (let n = 2; n < $N; n++) {
  let prime = true;
  for (let d = 2; d * d <= n; d++) if (n % d === 0) { prime = false; break; }
  if (prime) primes.push(n);
}
primes.length
""",
        (50, 1_000, 12_000),
    ),
    Program(
        "js sieve", _TYPED, "javascript",
        """
const limit = $N, marks = new Uint8Array(limit + 1);
let count = 0;
for (let n = 2; n <= limit; n++) {
  if (marks[n]) continue;
  count++;
  for (let m = n * n; m <= limit; m += n) marks[m] = 1;
}
count
""",
        (200, 4_000, 100_000),
    ),
    Program(
        "js matrix product", _TYPED, "javascript",
        """
const n = $N, a = [], b = [];
for (let i = 0; i < n; i++) {
  a.push(Array.from({ length: n }, (_, j) => (i * j) % 7));
  b.push(Array.from({ length: n }, (_, j) => (i + j) % 5));
}
let total = 0;
for (let i = 0; i < n; i++)
  for (let j = 0; j < n; j++) {
    let cell = 0;
    for (let k = 0; k < n; k++) cell += a[i][k] * b[k][j];
    total += cell * (i + 1);
  }
total
""",
        (4, 14, 45),
    ),
    Program(
        "js edit distance", _TYPED, "javascript",
        """
function main([a, b]) {
  let previous = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const current = [i];
    for (let j = 1; j <= b.length; j++)
      current.push(Math.min(previous[j] + 1, current[j - 1] + 1, previous[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1)));
    previous = current;
  }
  return previous[b.length];
}
""",
        (10, 40, 180), letters,
    ),
    Program(
        "js running mean", _TYPED, "javascript",
        "let mean = 0, count = 0;\n"
        "for (const v of inputs) { mean = Math.floor((mean * 7 + v) / 8); if (v > mean) count++; }\ncount",
        (50, 1_500, 20_000), whole_numbers,
    ),
    Program(
        "js fibonacci", _RECURSION, "javascript",
        "const fib = (n) => (n < 2 ? n : fib(n - 1) + fib(n - 2));\nfib($N)",
        (8, 14, 21),
    ),
    Program(
        "js queens", _RECURSION, "javascript",
        """
function place(n, row, columns, rising, falling) {
  if (row === n) return 1;
  let count = 0;
  for (let c = 0; c < n; c++) {
    if (columns[c] || rising[row + c] || falling[row - c + n]) continue;
    columns[c] = rising[row + c] = falling[row - c + n] = true;
    count += place(n, row + 1, columns, rising, falling);
    columns[c] = rising[row + c] = falling[row - c + n] = false;
  }
  return count;
}
place($N, 0, [], [], [])
""",
        (4, 6, 8),
    ),
    Program(
        "js trees", _RECURSION, "javascript",
        "const tree = (d) => (d ? { left: tree(d - 1), right: tree(d - 1) } : null);\n"
        "const count = (t) => (t ? 1 + count(t.left) + count(t.right) : 0);\ncount(tree($N))",
        (3, 8, 13),
    ),
    Program(
        "js count words", _TEXT, "javascript",
        "const counts = new Map();\n"
        "for (const word of inputs.split(' ')) counts.set(word, (counts.get(word) ?? 0) + 1);\n"
        "[...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1)).slice(0, 5)",
        (20, 500, 10_000), words,
    ),
    Program(
        "js log", _TEXT, "javascript",
        r"const slowest = {};"
        "\nfor (const line of inputs.split('\\n')) {\n"
        r"  const match = /^(\S+) (\w+) (\w+) (\S+) (\d+)ms$/.exec(line);"
        "\n  if (match) slowest[match[3]] = Math.max(slowest[match[3]] ?? 0, Number(match[5]));\n}\n"
        "Object.keys(slowest).sort().map((key) => [key, slowest[key]])",
        (5, 100, 1_500), log_lines,
    ),
    Program(
        "js backwards", _TEXT, "javascript",
        "inputs.split(' ').map((word) => word.split('').reverse().join('')).join(' ').slice(-20)",
        (10, 300, 6_000), words,
    ),
    Program(
        "js json", _JSON, "javascript",
        "const text = JSON.stringify(inputs);\n[text.length, JSON.parse(text).length]",
        (3, 100, 1_500), rows,
    ),
    Program(
        "js nested json", _JSON, "javascript",
        "const items = [];\n"
        "for (let i = 0; i < $N; i++) items.push({ id: i, tags: [String(i)], at: { x: i, y: -i } });\n"
        "JSON.parse(JSON.stringify({ items })).items.reduce((sum, item) => sum + item.at.x, 0)",
        (5, 200, 3_000),
    ),
    Program(
        "js sort numbers", _SORTING, "javascript",
        "inputs.slice().sort((a, b) => a - b).filter((_, i) => i % 1000 === 0)",
        (20, 500, 6_000), whole_numbers,
    ),
    Program(
        "js sort rows", _SORTING, "javascript",
        "inputs.slice().sort((a, b) => a.kind < b.kind ? -1 : a.kind > b.kind ? 1 : b.amount - a.amount)"
        ".slice(0, 5).map((row) => row.id)",
        (10, 150, 1_500), rows,
    ),
    Program(
        "js totals", _COLLECTIONS, "javascript",
        "const totals = {};\n"
        "for (const { kind, amount, open } of inputs) if (open) totals[kind] = (totals[kind] ?? 0) + amount;\n"
        "Object.keys(totals).sort().map((kind) => [kind, totals[kind]])",
        (10, 200, 2_500), rows,
    ),
    Program(
        "js graph", _COLLECTIONS, "javascript",
        """
const ways = new Map();
for (const [start, end] of inputs) ways.set(start, [...(ways.get(start) ?? []), end]);
const far = new Map([[0, 0]]), queue = [0];
while (queue.length) {
  const node = queue.shift();
  for (const end of ways.get(node) ?? [])
    if (!far.has(end)) { far.set(end, far.get(node) + 1); queue.push(end); }
}
[far.size, Math.max(...far.values())]
""",
        (10, 200, 1_000), edges,
    ),
    Program("js one and one", _ONE_LINERS, "javascript", "1 + 1"),
    Program("js template", _ONE_LINERS, "javascript", "const name = 'agent'; `Hello, ${name.toUpperCase()}!`"),
    Program("js chain", _ONE_LINERS, "javascript", "[3, 1, 2].map((x) => x * x).filter((x) => x > 1).join('-')"),
)  # fmt: skip
