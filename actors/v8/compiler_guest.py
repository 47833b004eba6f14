"""Inside the jail: the TypeScript compiler, in an isolate that runs no code of any task.

What it is given is only ever text to compile. A child of this kind serves
one principal, so that even a compiler that was taken over by what it read
holds nobody else's source.
"""

from __future__ import annotations

import importlib.resources
import json
import lzma
import os
from typing import Any, Final

from runvisor.actors.channel.frames import FrameSocket
from runvisor.actors.v8.isolate import Failure, Isolate, load_library

FILENAME: Final = "task.ts"
_HEAP_BYTES: Final = 1 << 30
_COMPILE: Final = """
(ts) => {
  const compilerOptions = {
    target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext, sourceMap: true, alwaysStrict: false,
    isolatedModules: true, newLine: ts.NewLineKind.LineFeed,
  };
  return (fileName, source) => {
    const options = { compilerOptions, fileName, reportDiagnostics: true };
    const { outputText, sourceMapText, diagnostics } = ts.transpileModule(source, options);
    const wrong = diagnostics.find((item) => item.file !== undefined && item.category === ts.DiagnosticCategory.Error);
    if (wrong) {
      const { line, character } = wrong.file.getLineAndCharacterOfPosition(wrong.start);
      const what = ts.flattenDiagnosticMessageText(wrong.messageText, " ");
      return JSON.stringify({ what, where: `${line + 1}:${character + 1}` });
    }
    const code = outputText.replace(/\\n\\/\\/# sourceMappingURL=.*\\n?$/, "");
    return JSON.stringify({ code, mappings: JSON.parse(sourceMapText).mappings });
  };
}
"""
_WARM_SOURCE: Final = "enum A { B = 1 }\nconst x: A = A.B;\nexport const f = <T>(y: T): T => y;\n"

_compiler = ""


def preload(options: dict[str, Any]) -> None:
    """Load V8 and the compiler's text, but start no isolate: a fork after the first isolate hangs."""
    del options
    global _compiler
    load_library(["--max-heap-size=2048"])
    packed = importlib.resources.files("runvisor.actors.v8").joinpath("bundle", "typescript.js.xz").read_bytes()
    _compiler = lzma.decompress(packed).decode("ascii")


def prepare(options: dict[str, Any]) -> Isolate:
    """Load the compiler into an isolate and compile once."""
    del options
    isolate = Isolate(lambda: None)
    made = isolate.evaluate(f"var compile = ({_COMPILE})(({_compiler})()); ''")
    if isinstance(made, Failure):
        raise RuntimeError(f"the compiler did not load: {made.text[:500]}")
    _compile(isolate, _WARM_SOURCE)
    return isolate


def serve(channel: FrameSocket, prepared: Isolate) -> None:
    """Compile one source after another, until the stream ends."""
    prepared.limit_heap(_HEAP_BYTES)
    while (request := channel.receive()) is not None:
        channel.send(_compile(prepared, str(request["code"])))
    os._exit(0)


def _compile(isolate: Isolate, source: str) -> dict[str, Any]:
    text = isolate.evaluate(f"compile({json.dumps(FILENAME)}, {json.dumps(source)})")
    if isinstance(text, str):
        return dict(json.loads(text))
    why = text.text.strip().splitlines()[-1] if isinstance(text, Failure) and text.text.strip() else "it gave nothing"
    return {"what": f"the compiler broke off: {why}", "where": "1:1"}
