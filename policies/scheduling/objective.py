"""What a choice of arm is to make small, in the caller's words.

Mean and deviation: A. Sani, A. Lazaric and R. Munos, "Risk-Aversion in
Multi-Armed Bandits", NeurIPS 2012. CVaR: R. T. Rockafellar and S. Uryasev,
"Optimization of Conditional Value-at-Risk", Journal of Risk 2(3), 2000.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, get_args

from runvisor.policies.errors import ConfigError, ProtocolError
from runvisor.policies.values import is_number

Kind: TypeAlias = Literal["mean", "mean+std", "slo", "cvar", "throughput", "cost"]

KINDS: Final = get_args(Kind)
WAITING: Final = "waiting"
"""In a table of rates: the price of a second that the task waits."""
OTHERWISE: Final = "*"
"""In a table of rates: every runtime that has no rate of its own."""
_COLD: Final = ":cold"
_MAX_RATES: Final = 64
_REMEDY: Final = (
    'write "mean", "mean + 2*std", "slo 100ms", "cvar 0.95", "throughput" or "cost python=2e-5 python:cold=4e-5"'
)
_NUMBER: Final = r"(\d+(?:\.\d*)?(?:e[+-]?\d+)?|\.\d+)"
_MEAN_STD: Final = re.compile(rf"mean\s*\+\s*(?:{_NUMBER}\s*\*?\s*)?(?:std|sd)")
_SLO: Final = re.compile(rf"slo\s*{_NUMBER}\s*(us|ms|s)")
_CVAR: Final = re.compile(rf"cvar\s*{_NUMBER}")
_UNITS_S: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_RATE_NAME: Final = re.compile(r"\*|[a-z0-9_-]{1,48}(?:/[a-z0-9_-]{1,48})?(?::cold)?")


@dataclass(frozen=True, slots=True)
class Objective:
    """What is minimised. Every kind adds what waiting, a cold start and a failure cost.

    A failure is never cheap: in the objectives that are times it counts its
    probability times the task's timeout.

    Example:
        >>> Objective.parse("mean + 2*std")
        Objective(kind='mean+std', rho=2.0, slo_s=0.0, q=0.0, rates=())
        >>> str(Objective.parse("SLO 0.25 s")), str(Objective())
        ('slo 250ms', 'mean + std')
    """

    kind: Kind = "mean+std"
    """``mean``: expected latency. ``mean+std``: that and its deviation. ``slo``: the probability of a latency
    above a bound. ``cvar``: the mean of the worst latencies. ``throughput``: when the pool would be done with
    all its work, this task included. ``cost``: what the execution costs by a table of rates."""
    rho: float = 1.0
    """``mean+std``: seconds of mean that a second of deviation is worth."""
    slo_s: float = 0.0
    """``slo``: the bound, in seconds."""
    q: float = 0.0
    """``cvar``: the worst ``1 - q`` of all latencies count, as 0.95."""
    rates: tuple[tuple[str, float], ...] = ()
    """``cost``: price of a second of execution, by ``runtime`` or ``runtime/variant``, either with ``:cold`` for
    executions that start cold, ``*`` for all others, and ``waiting`` for a second of waiting. Without any,
    each second of execution costs 1."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"{str(self.kind)[:40]!r} is no objective", "objective", _REMEDY)
        if not is_number(self.rho) or not 0 <= self.rho <= 100:
            raise ConfigError("the weight of the deviation is a number from 0 to 100", "objective.rho", _REMEDY)
        if not is_number(self.slo_s) or not (1e-6 <= self.slo_s <= 1e6 if self.kind == "slo" else self.slo_s == 0):
            raise ConfigError("only an slo has a bound, from 1 us to 1e6 s", "objective.slo_s", _REMEDY)
        if not is_number(self.q) or not (0 < self.q < 1 if self.kind == "cvar" else self.q == 0):
            raise ConfigError("only a cvar has a quantile, between 0 and 1", "objective.q", _REMEDY)
        if self.rates and self.kind != "cost":
            raise ConfigError("only the objective cost has rates", "objective.rates", _REMEDY)
        if len(self.rates) > _MAX_RATES or len(dict(self.rates)) != len(self.rates):
            raise ConfigError(f"at most {_MAX_RATES} rates, each name once", "objective.rates", _REMEDY)
        for name, rate in self.rates:
            if not isinstance(name, str) or not _RATE_NAME.fullmatch(name) or not is_number(rate) or rate < 0:
                raise ConfigError(f"{str(name)[:60]}={rate!r} is no rate", "objective.rates", _REMEDY)

    @classmethod
    def parse(cls, text: str) -> Objective:
        """Read an objective as people write it; `str` gives it back.

        Raises:
            ConfigError: It is none.
        """
        words = text.strip().lower() if isinstance(text, str) else ""
        if words in ("mean", "throughput"):
            return cls("mean" if words == "mean" else "throughput")
        if match := _MEAN_STD.fullmatch(words):
            return cls("mean+std", rho=float(match[1] or 1))
        if match := _SLO.fullmatch(words):
            return cls("slo", slo_s=float(match[1]) * _UNITS_S[match[2]])
        if match := _CVAR.fullmatch(words):
            return cls("cvar", q=float(match[1]))
        if words.split()[:1] == ["cost"]:
            return cls("cost", rates=tuple(map(_rate, words.split()[1:])))
        raise ConfigError(f"{str(text)[:60]!r} is no objective", "objective", _REMEDY)

    def __str__(self) -> str:
        if self.kind == "mean+std":
            return "mean + std" if self.rho == 1 else f"mean + {self.rho!r}*std"
        if self.kind == "slo":
            scaled_ms = self.slo_s * 1e3
            return f"slo {scaled_ms:g}ms" if float(f"{scaled_ms:g}") * 1e-3 == self.slo_s else f"slo {self.slo_s!r}s"
        if self.kind == "cvar":
            return f"cvar {self.q!r}"
        return " ".join([self.kind, *(f"{name}={rate!r}" for name, rate in self.rates)])

    @property
    def words(self) -> str:
        """What is minimised, in words that follow "the lowest"."""
        if self.kind == "mean+std":
            weight = "" if self.rho == 1 else f"{self.rho:g} times its "
            return f"sum of expected time, {weight}deviation, waiting time and the price of failures"
        return {
            "mean": "sum of expected time, waiting time and the price of failures",
            "slo": f"probability of taking more than {self.slo_s * 1e3:g} ms",
            "cvar": f"mean of the slowest {(1 - self.q) * 100:.3g}% of its times",
            "throughput": "time until its pool would be done with all its work",
            "cost": "expected cost",
        }[self.kind]

    def rate(self, runtime: str, arm: str, *, cold: bool) -> float:
        """Return the price of a second of execution on an arm.

        Example:
            >>> cost = Objective.parse("cost *=1 wasm=2 wasm:cold=5")
            >>> cost.rate("wasm", "wasm/module", cold=True), cost.rate("v8", "v8/isolate", cold=True)
            (5.0, 1.0)
        """
        table = dict(self.rates)
        names = [arm, runtime, OTHERWISE]
        if cold:
            names[:0] = [arm + _COLD, runtime + _COLD]
        return next((table[name] for name in names if name in table), 1.0)

    def to_wire(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "kind": self.kind,
            "rho": self.rho,
            "slo_s": self.slo_s,
            "q": self.q,
            "rates": [list(rate) for rate in self.rates],
        }

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Objective:
        """Rebuild an objective.

        Raises:
            ProtocolError: The data does not describe one.
        """
        try:
            rates = tuple((name, rate) for name, rate in data["rates"])
            return cls(data["kind"], data["rho"], data["slo_s"], data["q"], rates)
        except (KeyError, TypeError, ValueError, ConfigError) as error:
            raise ProtocolError(f"not an objective: {type(error).__name__}: {error}") from None


def _rate(word: str) -> tuple[str, float]:
    name, _, number = word.partition("=")
    try:
        return name, float(number)
    except ValueError:
        raise ConfigError(f"{word[:60]!r} is no rate", "objective", _REMEDY) from None
