"""The standard library of the Python inside wasm."""

from __future__ import annotations

from typing import Final

IMAGE_MODULES: Final = (
    "_strptime",
    "abc", "argparse", "array", "ast", "base64", "binascii", "bisect", "builtins", "bz2", "calendar", "cmath",
    "codecs", "collections", "collections.abc", "colorsys", "configparser", "contextlib", "contextvars", "copy",
    "copyreg", "csv", "dataclasses", "datetime", "decimal", "difflib", "dis", "email", "email.message",
    "email.mime.text", "email.parser", "encodings.ascii", "encodings.cp1252", "encodings.idna", "encodings.latin_1",
    "encodings.punycode", "encodings.utf_16", "encodings.utf_16_be", "encodings.utf_16_le", "encodings.utf_32",
    "encodings.utf_32_be", "encodings.utf_32_le", "encodings.utf_8_sig", "enum", "errno", "fnmatch", "fractions",
    "functools", "gc", "getpass", "gettext", "glob", "graphlib", "gzip", "hashlib", "heapq", "hmac",
    "html", "html.parser", "inspect", "io", "ipaddress", "itertools", "json", "keyword", "linecache", "locale",
    "logging", "lzma", "math", "mimetypes", "numbers", "opcode", "operator", "os", "os.path", "pathlib", "pickle",
    "platform", "posixpath", "pprint", "queue", "quopri", "random", "re", "reprlib", "secrets", "shlex", "signal",
    "stat", "statistics", "string", "string.templatelib", "stringprep", "struct", "symtable", "sys", "tempfile",
    "textwrap", "threading", "time", "timeit", "token", "tokenize", "tomllib", "traceback", "types", "typing",
    "unicodedata", "unittest", "unittest.mock", "urllib.parse", "uuid", "warnings", "weakref", "xml.dom.minidom",
    "xml.etree.ElementTree", "zipfile", "zlib", "zoneinfo",
)  # fmt: skip
"""What is loaded before the image is frozen, where CPython's build for WASI has it; nothing else can be imported."""
