"""What lies beside the files of an image: their digests, where they come from, and what runs them needs to know."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

FILENAME: Final = "manifest.json"

Fact = str | int
"""Something that whoever runs the image needs to know."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """The contents of one image."""

    digests: Mapping[str, str]
    """SHA-256 in hex, by file name."""
    facts: Mapping[str, Fact] = field(default_factory=dict)

    @classmethod
    def of(cls, files: Mapping[str, bytes], facts: Mapping[str, Fact]) -> Manifest:
        """Describe files.

        Example:
            >>> Manifest.of({"a": b""}, {"heap": 1}).digests["a"][:8]
            'e3b0c442'
        """
        return cls({name: hashlib.sha256(data).hexdigest() for name, data in files.items()}, dict(facts))

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Read what `to_json` wrote.

        Raises:
            ValueError: It is not a manifest.
        """
        data = json.loads(text)
        if not (isinstance(data, dict) and isinstance(data.get("files"), dict) and isinstance(data.get("facts"), dict)):
            raise ValueError("not a manifest")
        for name, digest in data["files"].items():
            if "/" in name or name.startswith(".") or not isinstance(digest, str):
                raise ValueError(f"not a file of an image: {name}")
        if not all(isinstance(fact, str | int) for fact in data["facts"].values()):
            raise ValueError("not facts")
        return cls(data["files"], data["facts"])

    def to_json(self) -> str:
        """Return it as text."""
        return json.dumps({"files": dict(self.digests), "facts": dict(self.facts)}, indent=1) + "\n"

    def fits(self, name: str, data: bytes) -> bool:
        """Whether these are the bytes of that file."""
        return self.digests.get(name) == hashlib.sha256(data).hexdigest()
