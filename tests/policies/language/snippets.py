"""Hand-made snippets, as agents write them, of languages that have no corpus on every machine."""

JAVASCRIPT = (
    "console.log(1)",
    "let x = 3; x",
    "[1,2,3].map(x => x*2)",
    "const xs = [3, 1, 2];\nxs.sort((a, b) => a - b);\nxs",
    "function add(a, b) { return a + b }\nadd(2, 3)",
    "JSON.stringify({a: 1})",
    "Math.max(1, 2, 3)",
    'const fs = require("fs");\nmodule.exports = { a: 1 };',
    "for (let i = 0; i < 10; i++) {\n  console.log(i);\n}",
    "async function main(input) {\n  const r = await fetch(input.url);\n  return await r.json();\n}",
    "const { a, b } = input;\na + b",
    "class Point {\n  constructor(x, y) { this.x = x; this.y = y; }\n"
    "  norm() { return Math.hypot(this.x, this.y); }\n}",
    "const name = 'x';\n`hello ${name}`",
    "function main(input) {\n  return input.rows.filter(row => row.n > 3).length;\n}",
    "if (typeof x === 'undefined') { throw new Error('no x'); }",
    "const m = new Map();\nm.set('a', 1);\nm.get('a')",
    "Object.entries({a: 1}).forEach(([k, v]) => console.log(k, v))",
    "'abc'.split('').reverse().join('').toUpperCase()",
    "export default function f() { return 1; }",
    "import { readFile } from 'fs/promises';\nconst t = await readFile('x');",
    "let s = 0;\nwhile (s < 5) s++;\ns",
    "try {\n  JSON.parse('{');\n} catch (e) {\n  e.message;\n}",
    "const fib = n => n < 2 ? n : fib(n - 1) + fib(n - 2);\nfib(10)",
    "[...Array(5).keys()]",
    "x = null",
    "(() => 42)()",
    "var a = 1, b = 2;\na === b",
    "new Date(0).toISOString()",
)

C = (
    "int main(void) { return 0; }",
    '#include <stdio.h>\nint main() {\n  printf("hi\\n");\n  return 0;\n}',
    "int add(int a, int b) { return a + b; }",
    "double area(double r) { return 3.14159 * r * r; }",
    "static inline unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }",
    "#include <stdint.h>\nuint64_t fib(uint32_t n) {\n  uint64_t a = 0, b = 1;\n"
    "  while (n--) {\n    uint64_t t = a + b;\n    a = b;\n"
    "    b = t;\n  }\n  return a;\n}",
    "struct point { int x; int y; };",
    "typedef struct node { struct node *next; int value; } node_t;",
    'char *s = "x";',
    "int xs[10] = {0};\nfor (int i = 0; i < 10; i++) xs[i] = i * i;",
    "#define N 16\nint table[N];",
    "int main(int argc, char **argv) {\n  if (argc < 2) return 1;\n  puts(argv[1]);\n  return 0;\n}",
    "void swap(int *a, int *b) {\n  int t = *a;\n  *a = *b;\n  *b = t;\n}",
    "long long gcd(long long a, long long b) { return b ? gcd(b, a % b) : a; }",
    "float mean(const float *xs, int n) {\n  float s = 0;\n  for (int i = 0; i < n; i++) s += xs[i];\n"
    "  return s / n;\n}",
    "#include <stdlib.h>\nint *make(int n) { return malloc(n * sizeof(int)); }",
    "unsigned char crc(const unsigned char *p, unsigned n) {\n  unsigned char c = 0;\n  while (n--) c ^= *p++;\n"
    "  return c;\n}",
    "enum color { RED, GREEN };\nint is_red(enum color c) { return c == RED; }",
    "size_t length(const char *s) { size_t n = 0; while (*s++) n++; return n; }",
    "int x = 3;",
    '#ifdef DEBUG\n#define LOG(x) printf("%d", x)\n#endif',
    "#include <math.h>\ndouble norm(double x, double y) { return sqrt(x*x + y*y); }",
    "extern int counter;\nvoid tick(void) { counter++; }",
    "int is_even(int n) {\n  switch (n & 1) {\n    case 0: return 1;\n    default: return 0;\n  }\n}",
    "union value { int i; float f; };\nint bits(union value v) { return v.i; }",
    "bool f(int x) { return x > 3; }",
)

C_RECORD = (
    "int on_record(struct record *r, struct state *s) { s->total += r->n; return 1; }",
    "struct state { u64 total; u32 last[4]; };\n\nint on_record(struct record *r, struct state *s)\n{\n"
    "    s->total += r->value;\n    return r->value > 500;\n}",
    "long on_record(struct record *r) { return r->price > 100; }",
    "// keep the even ones\nint on_record(struct record *r, struct state *s) {\n  return !(r->id & 1);\n}",
)

WAT = (
    "(module)",
    ';; add\n(module (func (export "add") (param i32 i32) (result i32) local.get 0 local.get 1 i32.add))',
    "(; block ;) (module $m (memory 1))",
    "(func $f (result i32) i32.const 1)",
)

TYPESCRIPT = (
    "interface Point { x: number; y: number }\nconst p: Point = { x: 1, y: 2 };",
    "function add(a: number, b: number): number {\n  return a + b;\n}",
    "type Id = string | number;\nlet id: Id = 'a';",
    "const add = (a: number, b: number): number => a + b;",
    "enum Color { Red, Green }\nconst names: string[] = [];\nconsole.log(Color[0], names.length);",
    "export async function main(input: { n: number }): Promise<number> {\n  return input.n * 2;\n}",
    "class Stack<T> {\n  private items: T[] = [];\n  push(item: T): void { this.items.push(item); }\n}",
)

CPP = (
    '#include <iostream>\nint main() { std::cout << "hi"; }',
    "std::vector<int> xs = {1, 2};",
    '#include <vector>\n#include <numeric>\nextern "C" int total(int n) {\n'
    "    std::vector<int> v(n);\n    return std::accumulate(v.begin(), v.end(), 0);\n}",
    "template <typename T> T twice(T x) { return x + x; }\nint main() { return twice(2); }",
    "class Point {\npublic:\n    int x = 0;\n    virtual ~Point() = default;\n};",
    '#include <cstdio>\nint main() {\n    auto f = [](int x) { return x * 2; };\n    std::printf("%d", f(3));\n}',
    "#include <string>\nusing namespace std;\nint main() { string s; getline(cin, s); cout << s.size() << endl; }",
    'extern "C" int add(int a, int b) { return a + b; }',
)

ZIG = (
    "export fn add(a: i32, b: i32) i32 {\n    return a + b;\n}",
    'const std = @import("std");\n\npub fn main() !void {\n    std.debug.print("hi\\n", .{});\n}',
    "fn fib(n: u64) u64 {\n    return if (n < 2) n else fib(n - 1) + fib(n - 2);\n}\n"
    "export fn run() u64 {\n    return fib(20);\n}",
    "fn max(comptime T: type, a: T, b: T) T {\n    return if (a > b) a else b;\n}",
    "pub fn main() void {\n    var total: u32 = 0;\n    for (0..10) |i| {\n        total += @intCast(i);\n    }\n}",
    'const std = @import("std");\nconst gpa = std.heap.page_allocator;\n'
    "pub fn main() !void {\n    var list: std.ArrayList(u8) = .empty;\n    defer list.deinit(gpa);\n"
    "    try list.append(gpa, 1);\n}",
)

GO = (
    'package main\n\nimport "fmt"\n\nfunc main() {\n\tfmt.Println("hi")\n}',
    "x := 3\nfor i := range xs { x += i }",
    "package main\n\n//go:wasmexport add\nfunc add(a, b int32) int32 { return a + b }\n\nfunc main() {}",
    "type Point struct {\n\tX, Y int\n}\n\nfunc (p *Point) Norm() int {\n\treturn p.X*p.X + p.Y*p.Y\n}",
    "func worker(jobs <-chan int, done chan<- bool) {\n\tfor j := range jobs {\n\t\tprintln(j)\n\t}\n\tdone <- true\n}",
    'import (\n\t"encoding/json"\n\t"os"\n)\n\nfunc main() {\n\tvar in map[string]int\n'
    "\tif err := json.NewDecoder(os.Stdin).Decode(&in); err != nil {\n\t\tpanic(err)\n\t}\n}",
)

RUST = (
    'fn main() {\n    println!("hi");\n}',
    "let mut total = 0;\nfor x in &xs { total += x; }",
    "impl Point { pub fn norm(&self) -> f64 { self.x } }",
    '#[no_mangle]\npub extern "C" fn add(a: i32, b: i32) -> i32 {\n    a + b\n}',
    "use std::io::Read;\n\nfn main() {\n    let mut text = String::new();\n"
    "    std::io::stdin().read_to_string(&mut text).unwrap();\n}",
    "fn fib(n: u64) -> u64 {\n    match n {\n        0 | 1 => n,\n        _ => fib(n - 1) + fib(n - 2),\n    }\n}",
    "struct Point { x: f64, y: f64 }\n\ntrait Shape { fn area(&self) -> f64; }",
)

FOREIGN = {
    "Bash": (
        "#!/bin/bash\necho hello",
        "echo hello\nls -la | grep txt",
        'for f in *.txt; do\n  cat "$f"\ndone',
        'if [ -f "$1" ]; then echo yes; fi',
        "npm install left-pad",
    ),
    "SQL": (
        "SELECT name, count(*) FROM users WHERE id > 3 GROUP BY name;",
        "insert into t values (1)",
        "-- make it\nCREATE TABLE t (id int);",
    ),
    "Java": ("public class A { public static void main(String[] args) { System.out.println(1); } }",),
    "Ruby": ('puts "hi"', "def foo\n  1\nend"),
    "PHP": ("<?php echo 1;",),
    "HTML": ("<!DOCTYPE html><html></html>",),
    "YAML": ("name: web\nversion: 3", "jobs:\n  build:\n    runs-on: linux\n    steps:\n      - run: make"),
    "Markdown": ("```python\nprint(1)\n```",),
}
