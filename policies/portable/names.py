"""What a portable program may name: builtins, and of the standard library what answers alike everywhere.

Left out, although the image has it, is what differs

- between CPython 3.11 and 3.14: names that came or went, texts that changed;
- between 64 and 32 bits: hashes, sizes, the order of sets;
- between C libraries: functions whose last digit depends on who wrote them (``math.sin``);
- between sandboxes: files, processes, the interpreter itself.
"""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from typing import Final

_NAMES: Final = {
    "__future__": "annotations",
    "abc": "ABC ABCMeta abstractmethod",
    "base64": "a85decode a85encode b16decode b16encode b32decode b32encode b64decode b64encode b85decode b85encode "
    "standard_b64decode standard_b64encode urlsafe_b64decode urlsafe_b64encode",
    "binascii": "crc32 hexlify unhexlify",
    "bisect": "bisect bisect_left bisect_right insort insort_left insort_right",
    "collections": "ChainMap Counter abc defaultdict deque namedtuple",
    "collections.abc": "Callable Collection Container Generator Hashable Iterable Iterator Mapping MutableMapping "
    "MutableSequence Reversible Sequence Sized",
    "contextlib": "ExitStack closing contextmanager nullcontext suppress",
    "copy": "copy deepcopy",
    "csv": "DictReader DictWriter QUOTE_ALL QUOTE_MINIMAL QUOTE_NONE QUOTE_NONNUMERIC reader writer",
    "dataclasses": "asdict astuple dataclass field fields is_dataclass replace",
    "datetime": "MAXYEAR MINYEAR UTC date datetime time timedelta timezone",
    "decimal": "Context Decimal DivisionByZero InvalidOperation ROUND_CEILING ROUND_DOWN ROUND_FLOOR ROUND_HALF_DOWN "
    "ROUND_HALF_EVEN ROUND_HALF_UP ROUND_UP getcontext localcontext",
    "difflib": "SequenceMatcher get_close_matches ndiff unified_diff",
    "enum": "Enum IntEnum auto unique",
    "fractions": "Fraction",
    "functools": "cache cached_property cmp_to_key lru_cache partial reduce singledispatch total_ordering wraps",
    "hashlib": "blake2b blake2s md5 sha1 sha224 sha256 sha384 sha3_256 sha3_512 sha512",
    "heapq": "heapify heappop heappush heappushpop heapreplace merge nlargest nsmallest",
    "hmac": "compare_digest digest new",
    "html": "escape unescape",
    "io": "BytesIO StringIO",
    "itertools": "accumulate chain combinations combinations_with_replacement compress count cycle dropwhile "
    "filterfalse groupby islice pairwise permutations product repeat starmap takewhile tee zip_longest",
    "json": "JSONDecodeError dump dumps load loads",
    "math": "ceil comb copysign degrees e fabs factorial floor fmod frexp fsum gcd inf isclose isfinite isinf isnan "
    "isqrt lcm ldexp modf nan perm pi prod radians sqrt tau trunc ulp",
    "operator": "add and_ attrgetter concat contains eq floordiv ge getitem gt itemgetter le lt methodcaller mod mul "
    "ne neg not_ or_ sub truediv xor",
    "random": "Random choice choices getrandbits randbytes randint random randrange sample seed shuffle uniform",
    "re": "A ASCII DOTALL I IGNORECASE M MULTILINE S VERBOSE X compile error escape findall finditer fullmatch match "
    "search split sub subn",
    "statistics": "fmean mean median median_high median_low mode multimode pstdev pvariance quantiles stdev variance",
    "string": "Template ascii_letters ascii_lowercase ascii_uppercase capwords digits hexdigits octdigits printable "
    "punctuation whitespace",
    "textwrap": "fill indent shorten wrap",
    "time": "monotonic monotonic_ns perf_counter perf_counter_ns sleep time time_ns",
    "types": "MappingProxyType SimpleNamespace",
    "typing": "Any Callable ClassVar DefaultDict Deque Dict Final Generator Generic Iterable Iterator List Literal "
    "Mapping NamedTuple NewType NoReturn Optional Protocol Self Sequence Set FrozenSet TYPE_CHECKING Tuple Type "
    "TypeAlias TypeVar TypedDict Union cast overload runtime_checkable",
    "urllib.parse": "quote quote_plus unquote unquote_plus urlencode",
    "uuid": "NAMESPACE_DNS NAMESPACE_OID NAMESPACE_URL UUID uuid3 uuid4 uuid5",
    "zlib": "adler32 crc32 decompress",
}

PORTABLE_NAMES: Final[Mapping[str, frozenset[str]]] = {name: frozenset(text.split()) for name, text in _NAMES.items()}
"""By module."""

_EXCEPTIONS: Final = frozenset(
    name
    for name, item in vars(builtins).items()
    if isinstance(item, type) and issubclass(item, BaseException) and "Group" not in name
) - {"PythonFinalizationError", "EncodingWarning"}

PORTABLE_BUILTINS: Final = _EXCEPTIONS | frozenset(
    "Ellipsis False None NotImplemented True __name__ abs all any ascii bin bool bytearray bytes callable chr "
    "classmethod dict divmod enumerate filter float format frozenset getattr hasattr hex inputs int isinstance "
    "issubclass iter len list map max min next object oct ord pow print property range repr reversed round set setattr "
    "slice sorted staticmethod str sum super tuple type zip".split()
)
"""Also what a task finds in its namespace."""

PORTABLE_DUNDERS: Final = frozenset(
    "__abs__ __add__ __and__ __bool__ __call__ __class__ __contains__ __dict__ __enter__ __eq__ __exit__ __float__ "
    "__floordiv__ __ge__ __getitem__ __gt__ __iadd__ __index__ __init__ __init_subclass__ __int__ __iter__ __le__ "
    "__len__ __lt__ __mod__ __mul__ __name__ __ne__ __neg__ __new__ __next__ __or__ __post_init__ __qualname__ "
    "__radd__ __repr__ __rmul__ __setitem__ __str__ __sub__ __truediv__ __xor__".split()
)
"""Attributes of this form that may be read."""
