"""What is said about networks, as values: subnets, name servers, ports and memberships."""

import pytest

from pycontain import Container, Network
from pycontain.errors import InvalidSpec
from pycontain.runtime.fabric import Bridge, Subnet, text_of
from pycontain.sandbox.network import Networking, PublishedPort, resolver_of

HOST = Container("host:")


@pytest.mark.parametrize("text", ["10.1.2.0/24", "10.0.0.0/8", "192.0.2.4/30"])
def test_a_subnet_is_read_and_written(text):
    assert str(Subnet.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["10.1.2.3/24", "10.1.2.0", "10.1.2.0/31", "10.0.0.0/7", "10.1/16", "2001:db8::/64", "here/24"]
)
def test_what_is_no_subnet_is_refused(text):
    with pytest.raises(InvalidSpec, match="no subnet"):
        Network(subnet=text)


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ("10.1.2.0/24", "10.1.3.0/24", False),
        ("10.1.2.0/24", "10.0.0.0/8", True),
        ("10.1.2.128/25", "10.1.2.0/24", True),
        ("10.1.2.128/25", "10.1.2.0/25", False),
    ],
)
def test_subnets_overlap(one, other, overlap):
    assert Subnet.parse(one).overlaps(Subnet.parse(other)) is overlap
    assert Subnet.parse(other).overlaps(Subnet.parse(one)) is overlap


def small_bridge():
    return Bridge("br", Subnet.parse("10.1.2.0/29"), internal=False, isolated=False)


def test_each_address_is_had_once_and_neither_the_first_two_nor_the_last():
    bridge = small_bridge()
    assert [bridge.take() for _ in range(6)] == [*(f"10.1.2.{number}" for number in range(2, 7)), None]


def test_an_address_that_was_given_back_is_not_the_next_to_be_had():
    bridge = small_bridge()
    first = bridge.take()
    bridge.give_back(first)
    assert bridge.take() != first


def test_an_address_that_is_wanted_is_had_when_nobody_has_it():
    bridge = small_bridge()
    assert bridge.take("10.1.2.4") == "10.1.2.4"
    assert bridge.take("10.1.2.4") is None
    assert bridge.take("10.1.9.4") is None
    assert bridge.take(bridge.gateway) is None


def test_an_internal_network_has_no_rule_that_lets_out():
    rules = list(Bridge("br", Subnet.parse("10.1.2.0/24"), internal=True, isolated=False).rules())
    assert not any("masquerade" in rule for rule in rules)
    assert ("forward", "from br", "drop") in rules


@pytest.mark.parametrize("internal", [True, False])
def test_nobody_begins_to_talk_to_a_network_and_it_never_to_the_host(internal):
    rules = list(Bridge("br", Subnet.parse("10.1.2.0/24"), internal=internal, isolated=False).rules())
    assert rules[-3:] == [
        ("forward", "to br", "drop"),
        ("input", "from br", "known", "accept"),
        ("input", "from br", "drop"),
    ]


def test_text_of_an_address():
    assert text_of(0x0A010203) == "10.1.2.3"


PLAIN = "nameserver 192.0.2.53\n"
STUB = "# systemd-resolved\nnameserver 127.0.0.53\noptions edns0 trust-ad\nsearch example.org\n"


@pytest.mark.parametrize(
    ("configuration", "upstream", "servers", "own", "text", "asked"),
    [
        (PLAIN, "", (), (), PLAIN, ""),
        (STUB, PLAIN, (), (), f"{PLAIN}options edns0 trust-ad\nsearch example.org\n", ""),
        ("nameserver 127.0.0.1\n", "", (), (), "nameserver 127.0.0.11\n", "127.0.0.1"),
        ("nameserver ::1\n", "", (), (), "nameserver 127.0.0.11\n", "::1"),
        (PLAIN, "", (), ("192.0.2.53",), "nameserver 127.0.0.11\n", "192.0.2.53"),
        (f"nameserver 127.0.0.1\n{PLAIN}", "", (), (), PLAIN, ""),
        (STUB, PLAIN, ("192.0.2.1",), (), "nameserver 192.0.2.1\noptions edns0 trust-ad\nsearch example.org\n", ""),
        ("", "", (), (), "", ""),
        ("; nothing\nnameserver\n", "", (), (), "", ""),
    ],
)  # fmt: skip
def test_which_name_servers_a_container_is_told(configuration, upstream, servers, own, text, asked):
    assert resolver_of(configuration, upstream, servers, own) == (text, asked)


def test_networks_are_joined_one_after_the_other_and_left_by_a_mode():
    one, two = Network("one"), Network("two", internal=True)
    both = HOST.network(one, aliases=["db"]).network(two, ip="10.1.2.3")
    assert [each.network for each in both.spec.networking.networks] == [one, two]
    assert both.spec.networking.networks[0].aliases == ("db",)
    assert both.network("none") == HOST
    assert hash(both) == hash(HOST.network(one, aliases=["db"]).network(two, ip="10.1.2.3"))


def test_joining_a_network_again_changes_how_it_is_joined():
    network = Network()
    again = HOST.network(network).network(network, aliases=["x"])
    assert [each.aliases for each in again.spec.networking.networks] == [("x",)]


def test_all_that_is_wrong_with_a_network_is_said_at_once():
    with pytest.raises(InvalidSpec) as caught:
        Network("no name!", "10.0.0.1/24")
    assert len(caught.value.problems) == 2
    with pytest.raises(InvalidSpec) as caught:
        HOST.network(Network(), aliases=["a b", ""], ip="fe80::1")
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize("given", ["bridge", 5, None])
def test_what_is_no_network_is_refused(given):
    with pytest.raises(InvalidSpec, match="is no network"):
        HOST.network(given)


def test_aliases_are_for_networks():
    with pytest.raises(InvalidSpec, match="for a Network"):
        HOST.network("private", aliases=["x"])


def test_untrusted_has_no_network():
    assert HOST.network("host").untrusted().spec.networking == Networking()


@pytest.mark.parametrize(
    ("port", "text"),
    [
        (PublishedPort(80), "127.0.0.1:*->80/tcp"),
        (PublishedPort(53, 5353, "::1", "udp"), "[::1]:5353->53/udp"),
    ],
)
def test_a_published_port_as_text(port, text):
    assert str(port) == text


def test_a_port_for_everybody_is_reached_at_loopback():
    assert PublishedPort(80, 8080, "0.0.0.0").reached_at == ("127.0.0.1", 8080)
    assert PublishedPort(80, 8080, "::").reached_at == ("::1", 8080)
