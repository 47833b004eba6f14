"""Maps of every kind that we make, against the real kernel."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from runvisor.actors.ebpf.maps import Map, MapKind, possible_cores
from runvisor.actors.ebpf.probe import probe_ebpf

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(not probe_ebpf().available, reason=probe_ebpf().detail),
]


def open_descriptors() -> list[Path]:
    return sorted(Path("/proc/self/fd").iterdir())


def key(number: int) -> bytes:
    return struct.pack("<I", number)


@pytest.mark.parametrize("kind", [MapKind.HASH, MapKind.LRU_HASH])
def test_a_hash_keeps_gives_and_forgets(kind: MapKind) -> None:
    with Map(kind, 4, 8, 16) as table:
        assert table.lookup(key(1)) is None
        table.update(key(1), b"abcdefgh")
        assert table.lookup(key(1)) == b"abcdefgh"
        assert table.delete(key(1))
        assert not table.delete(key(1))
        assert list(table.items()) == []


def test_a_key_is_added_once() -> None:
    with Map(MapKind.HASH, 4, 1, 16) as table:
        assert table.add(key(1), b"a")
        assert not table.add(key(1), b"b")
        assert table.lookup(key(1)) == b"a"


@pytest.mark.parametrize("count", [0, 1, 511, 512, 513, 3000])
def test_every_entry_is_read_once(count: int) -> None:
    with Map(MapKind.HASH, 4, 8, 4096) as table:
        for number in range(count):
            table.update(key(number), struct.pack("<Q", number * 7))
        read = list(table.items())
        assert len(read) == count
        assert dict(read) == {key(number): struct.pack("<Q", number * 7) for number in range(count)}


def test_an_array_has_all_its_elements_from_the_start() -> None:
    with Map(MapKind.ARRAY, 4, 3, 5) as table:
        table.update(key(4), b"end")
        assert dict(table.items()) == {key(number): bytes(3) for number in range(4)} | {key(4): b"end"}
        with pytest.raises(OSError, match="bpf map update"):
            table.update(key(5), b"out")


@pytest.mark.parametrize("kind", [MapKind.PER_CORE_HASH, MapKind.PER_CORE_ARRAY])
def test_a_per_core_map_has_a_value_for_each_core(kind: MapKind) -> None:
    cores = possible_cores()
    with Map(kind, 4, 5, 3) as table:
        table.update(key(2), b"".join(f"core{number}".encode()[:5].ljust(8, b"\0") for number in range(cores)))
        value = table.lookup(key(2))
        assert value is not None
        assert table.split(value) == [f"core{number}".encode()[:5] for number in range(cores)]
        assert table.split(dict(table.items())[key(2)]) == table.split(value)


def test_a_size_that_is_not_the_maps_is_refused_before_the_kernel_reads_it() -> None:
    with Map(MapKind.HASH, 4, 8, 4) as table:
        with pytest.raises(ValueError, match="the key has 3 bytes, not 4"):
            table.lookup(b"abc")
        with pytest.raises(ValueError, match="the value has 7 bytes, not 8"):
            table.update(key(1), bytes(7))


def test_a_full_hash_and_a_map_too_large_are_errors() -> None:
    with Map(MapKind.HASH, 4, 8, 1) as table:
        table.update(key(1), bytes(8))
        with pytest.raises(OSError, match="bpf map update"):
            table.update(key(2), bytes(8))
    with pytest.raises(OSError, match="bpf map create"):
        Map(MapKind.HASH, 4, 1 << 30, 1 << 30)


def test_a_closed_map_is_gone() -> None:
    before = open_descriptors()
    table = Map(MapKind.HASH, 4, 8, 4)
    assert Path(f"/proc/self/fd/{table.fd}").readlink().name == "anon_inode:bpf-map"
    table.close()
    table.close()
    assert open_descriptors() == before
