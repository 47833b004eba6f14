"""Which language a piece of code is in: by name when declared, by looking when not."""

from runvisor.policies.language.detect import Guess, detect
from runvisor.policies.language.names import LANGUAGES, SUFFIXES, resolve

__all__ = ["LANGUAGES", "SUFFIXES", "Guess", "detect", "resolve"]
