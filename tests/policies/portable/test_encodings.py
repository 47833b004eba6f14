"""Which encodings are found before a program runs."""

from __future__ import annotations

import codecs

import pytest

from runvisor.policies.portable.check import objection
from runvisor.policies.portable.modules import IMAGE_MODULES


@pytest.mark.parametrize(
    "use", ["'a'.encode('cp850')", "b'a'.decode(inputs)", "str(b'a', 'koi8-r')", "bytes('a', encoding='utf-7')"]
)
def test_an_encoding_that_the_image_lacks_is_not_portable(use: str) -> None:
    assert "encoding" in (objection(use) or "")


@pytest.mark.parametrize("name", ["utf-8", "UTF8", "ascii", "latin-1", "utf-16-be", "UTF_32", "utf-8-sig", "cp1252"])
def test_those_that_it_has_are(name: str) -> None:
    assert objection(f"'a'.encode('{name}').decode('{name}') + str(b'a', '{name}')") is None
    module = "encodings." + codecs.lookup(name).name.replace("-", "_").replace("iso8859_1", "latin_1")
    assert module in IMAGE_MODULES or module == "encodings.utf_8"


def test_without_a_name_it_is_utf_8() -> None:
    assert objection("'a'.encode() + b'b'.decode().encode(errors='replace')") is None
