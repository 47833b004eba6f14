"""C: commands, functions, errors with their place, and a compiler that sees nothing of the host."""

from __future__ import annotations

import secrets
from dataclasses import replace

import pytest

from runvisor.actors.wasm.compilers import ziglang
from runvisor.actors.wasm.compilers.c import C
from runvisor.actors.wasm.compilers.compilers import Compilers
from runvisor.policies import errors
from runvisor.policies.permissions import MiB
from tests.actors.wasm.conftest import Run

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(ziglang.find() is None, reason=ziglang.REMEDY),
    pytest.mark.timeout(600),  # the first run on a machine builds the C library
]

ADD = "int add(int a, int b) { return a + b; }"


def test_the_only_function_is_called(c: Run) -> None:
    result = c(ADD, [40, 2])
    assert (result.unwrap(), result.stdout) == (42, "")


def test_the_same_text_is_compiled_once(c: Run) -> None:
    code = f"int seven(void) {{ return 7; }} /* {secrets.token_hex(8)}: the cache of earlier runs does not know it */"
    assert [c(code).usage.start_kind for _ in range(3)] == ["cold", "warm", "warm"]


def test_static_functions_are_not_exported_and_run_is_preferred(c: Run) -> None:
    code = "static int one(void) { return 1; } int two(void) { return 2; } int run(void) { return one() + two(); }"
    assert c(code).unwrap() == 3
    with pytest.raises(errors.InvalidTask) as caught:
        c("int a(void) { return 1; } int b(void) { return 2; }")
    assert "a, b" in caught.value.what


def test_types_of_c_are_numbers_of_wasm(c: Run) -> None:
    assert (
        c("long long run(long long a, float b, double c) { return a + (long long)(b * c); }", [1, 2.0, 3.5]).unwrap()
        == 8
    )


def test_a_program_with_main_reads_stdin_and_its_output_is_the_value(c: Run) -> None:
    code = r"""
    #include <stdio.h>
    #include <string.h>
    int main(void) {
        char text[100] = {0};
        size_t size = fread(text, 1, 99, stdin);
        fprintf(stderr, "read %zu", size);
        printf("{\"length\": %zu, \"text\": %s}", size, text);
        return 0;
    }"""
    result = c(code, ["a", 1])
    assert result.unwrap() == {"length": 8, "text": ["a", 1]}
    assert result.stderr == "read 8"


def test_the_c_library_is_there(c: Run) -> None:
    code = r"""
    #include <assert.h>
    #include <ctype.h>
    #include <errno.h>
    #include <inttypes.h>
    #include <math.h>
    #include <signal.h>
    #include <stdio.h>
    #include <stdlib.h>
    #include <string.h>
    #include <time.h>
    static int by_value(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }
    int main(int argc, char **argv) {
        int numbers[] = {3, 1, 2};
        qsort(numbers, 3, sizeof *numbers, by_value);
        char *copy = strdup("text");
        assert(argc == 1 && toupper(copy[0]) == 'T' && clock() != (clock_t)-1 && time(NULL) > 1600000000);
        __int128 wide = (__int128)1 << 100;
        assert(fopen("/etc/passwd", "r") == NULL && errno);
        printf("[%d,%d,%d,%.3f,%" PRId64 ",%.1Lf]", numbers[0], numbers[1], numbers[2], sin(1.0),
               (int64_t)(wide >> 98), (long double)argc / 2);
        free(copy);
    }"""
    assert c(code).unwrap() == [1, 2, 3, 0.841, 4, 0.5]


def test_functions_may_use_the_c_library_without_main(c: Run) -> None:
    code = '#include <math.h>\n#include <stdio.h>\ndouble area(double r) { puts("hi"); return floor(cbrt(r)); }'
    result = c(code, [27.5])
    assert (result.unwrap(), result.stdout) == (3.0, "hi\n")


def test_an_error_names_line_and_column(c: Run) -> None:
    error = c("int run(void)\n{\n    return nope;\n}").error
    assert isinstance(error, errors.GuestSyntaxError)
    assert (error.what, error.where) == ("use of undeclared identifier 'nope'", "3:12")
    assert "return nope" in error.details["log"]


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("int f(int); int run(int a) { return f(a); }", "undefined symbol: f"),
        ("int run(void) { return 0; } int run(void) { return 1; }", "redefinition"),
        ('#error "no"', "no"),
        ("int x;", None),
        ("#include <nope.h>\nint run;", "nope.h"),
        ("int run(void) { return 0;", "expected '}'"),
    ],
)
def test_what_does_not_compile_or_link_is_a_syntax_error(c: Run, code: str, what: str | None) -> None:
    if what is None:
        with pytest.raises(errors.InvalidTask):
            c(code)
        return
    error = c(code).error
    assert isinstance(error, errors.GuestSyntaxError)
    assert what in error.what


@pytest.mark.parametrize(
    "code",
    [
        '#include "/etc/shadow"\nint run(void) { return 0; }',
        '#include "/etc/hosts"\nint run(void) { return 0; }',
        '__asm__(".incbin \\"/etc/shadow\\""); int run(void) { return 0; }',
        'const char text[] = {\n#embed "/etc/shadow"\n}; int run(void) { return text[0]; }',
    ],
)
def test_the_compiler_sees_no_secret_of_the_host(c: Run, code: str) -> None:
    error = c(code).error
    assert isinstance(error, errors.GuestSyntaxError)
    assert "root:" not in error.details["log"]


@pytest.mark.parametrize(
    "code",
    [
        "#include __FILE__\nint run(void) { return 0; }",
        "#define A(x) x x x x x x x x x x\n#define B A(A(A(A(A(A(A(A(A(1))))))))) \nint run(void) { return B; }",
        "char hog[3000000000u] = {1}; char *run(void) { return hog; }",
    ],
    ids=["includes itself", "expands without end", "a giant array"],
)
def test_a_compile_without_end_is_ended(code: str) -> None:
    compilers = Compilers(toolchains=[replace(C, bounds=replace(C.bounds, timeout_s=3.0))])
    try:
        with pytest.raises((errors.GuestError, errors.LimitExceeded)):
            compilers.compile("c", code)
        assert compilers.compile("c", ADD)
    finally:
        compilers.close()


def test_an_endless_program_ends_at_its_deadline_with_what_it_printed(c: Run) -> None:
    code = '#include <stdio.h>\nint main(void) { puts("before"); fflush(stdout); for (volatile int i = 0;; i++); }'
    result = c(code, timeout_s=0.3)
    assert isinstance(result.error, errors.TimeLimitExceeded)
    assert result.stdout == "before\n"


def test_malloc_fails_at_the_memory_limit(c: Run) -> None:
    code = r"""
    #include <stdio.h>
    #include <stdlib.h>
    #include <string.h>
    int main(void) {
        int blocks = 0;
        for (char *block; (block = malloc(1 << 20)); blocks++) {
            memset(block, 1, 1 << 20);
            __asm__ volatile("" : : "r"(block) : "memory");
        }
        printf("%d", blocks);
    }"""
    value = c(code, memory_bytes=64 * MiB).unwrap()
    assert 20 <= value < 64


def test_an_exit_code_and_an_abort_are_errors(c: Run) -> None:
    left = c("int main(void) { return 7; }").error
    assert isinstance(left, errors.GuestException)
    assert left.details["exit_code"] == 7
    aborted = c("#include <stdlib.h>\nint main(void) { abort(); }").error
    assert isinstance(aborted, errors.GuestException)
    assert "abort" in aborted.details["traceback"]


def test_recursion_without_end_is_the_guests_exception(c: Run) -> None:
    code = "int f(int n) { volatile int x = n; return n ? f(n - 1) + x : 0; } int main(void) { return f(1 << 30); }"
    assert isinstance(c(code).error, errors.GuestException)


def test_messages_of_other_files_keep_their_file() -> None:
    assert C.explain("layout.c:3:1: error: static assertion failed").where == "layout.c:3:1"
    assert C.explain("In file included from program.c:1:\nprogram.c:2:5: fatal error: too deep").where == "2:5"
    assert C.explain("").what == "it does not compile"
