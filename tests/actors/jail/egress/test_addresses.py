"""Which addresses a name may lead to."""

from __future__ import annotations

import ipaddress
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runvisor.actors.jail import kernel
from runvisor.actors.jail.egress import inside
from runvisor.actors.jail.egress.addresses import is_own, refusal
from runvisor.actors.jail.egress.plan import NetworkPlan


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.0.1",
        "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.1.1",
        "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255",
        "168.63.129.16",
        "::", "::1", "fe80::1", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "ff0e::1", "2001:db8::1", "100::1",
        "3fff::1", "2001::1", "2001:10::1", "5f00::1", "4000::1",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "::8.8.8.8",
        "64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::8.8.8.8", "2002:7f00:1::", "2002:a9fe:a9fe::1",
        "2002:0a00:0001::1", "2607:f8b0::5efe:10.0.0.1", "2607:f8b0::200:5efe:127.0.0.1",
        "", "localhost", "1.2.3", "127.0.0.1 ", "8.8.8.8/32", "fe80::1%eth0",
    ],
)  # fmt: skip
def test_no_name_leads_to(address: str) -> None:
    assert refusal(address) is not None


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1"],
)
def test_a_name_may_lead_to(address: str) -> None:
    assert refusal(address) is None


@given(st.ip_addresses(v=4))
def test_a_carrier_is_no_better_than_what_it_carries(address: ipaddress.IPv4Address) -> None:
    if refusal(str(address)) is not None:
        number = int(address)
        for carrier in (0xFFFF << 32 | number, 0x64FF9B << 96 | number, 0x2002 << 112 | number << 80):
            assert refusal(str(ipaddress.IPv6Address(carrier))) is not None


@given(st.ip_addresses())
def test_whatever_python_does_not_call_global_is_refused(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    mapped = isinstance(address, ipaddress.IPv6Address) and (
        address.ipv4_mapped is not None or address in ipaddress.IPv6Network("64:ff9b::/96")
    )
    if not address.is_global and not mapped:
        assert refusal(str(address)) is not None


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a network namespace")
def test_an_address_of_this_machine_is_known_even_if_it_is_global() -> None:
    plan = NetworkPlan.of(("93.184.216.34:80",))  # the plan gives lo this address, in the thread's own network
    with ThreadPoolExecutor(1) as thread:
        thread.submit(kernel.unshare, kernel.CLONE_NEWNET).result()
        for listener in thread.submit(inside.prepare, plan).result():
            listener.close()
        assert thread.submit(is_own, "93.184.216.34").result()
        assert thread.submit(is_own, "127.0.0.1").result()
        assert not thread.submit(is_own, "93.184.216.35").result()
        assert not thread.submit(is_own, "2606:4700::1111").result()
