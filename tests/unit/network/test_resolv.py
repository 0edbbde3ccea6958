from __future__ import annotations

import pytest

from estiba.model.errors import InvalidArgument
from estiba.network.resolv import (
    is_ndots_set,
    own_names,
    parse_extra_host,
    parse_resolv_conf,
    render_hostname,
    render_hosts,
    render_resolv_conf,
    with_hosts,
)

HOST = """\
# made by hand
nameserver 192.0.2.53 # the first
nameserver 127.0.0.53
nameserver fe80::1%eth0
nameserver nonsense
domain old.example
search one.example two.example
options edns0
options ndots:2 ; why not
"""


def test_the_hosts_resolv_conf_is_read_as_the_c_library_does() -> None:
    conf = parse_resolv_conf(HOST)
    assert conf.nameservers == ("192.0.2.53", "127.0.0.53", "fe80::1%eth0", "nonsense")
    assert conf.search == ("one.example", "two.example")
    assert conf.options == ("edns0", "ndots:2")


def test_resolvers_out_of_reach_are_left_out() -> None:
    assert render_resolv_conf(HOST) == (
        "nameserver 192.0.2.53\nsearch one.example two.example\noptions edns0 ndots:2\n"
    )
    assert "nameserver 127.0.0.53\n" in render_resolv_conf(HOST, shares_host=True)


def test_a_host_with_loopback_resolvers_only() -> None:
    assert render_resolv_conf("nameserver ::1\nnameserver 127.0.0.1\n") == (
        "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"
    )


def test_wishes_replace_what_the_host_says() -> None:
    text = render_resolv_conf(HOST, dns=["127.0.0.1"], search=["."], options=["ndots:1"])
    assert text == "nameserver 127.0.0.1\noptions ndots:1\n"
    assert "search mine.example\n" in render_resolv_conf(HOST, search=["mine.example"])


def test_a_whole_host_name_has_a_short_form() -> None:
    text = render_hosts("web.example.org", addresses=["172.17.0.2"])
    assert text.endswith("172.17.0.2\tweb.example.org web\n")


def test_hosts() -> None:
    text = render_hosts(
        "web",
        domainname="example.org",
        addresses=["172.17.0.2", "", "10.0.0.2"],
        extra_hosts=["db:10.0.0.9", "six:[::2]", "me:host-gateway"],
        host_gateway="172.17.0.1",
    )
    assert text.splitlines()[:2] == [
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
    ]
    assert text.splitlines()[-5:] == [
        "10.0.0.9\tdb",
        "::2\tsix",
        "172.17.0.1\tme",
        "172.17.0.2\tweb.example.org web",
        "10.0.0.2\tweb.example.org web",
    ]
    assert render_hosts("web", base="1.2.3.4 host") == "1.2.3.4 host\n"
    assert render_hostname("web") == "web\n"


@pytest.mark.parametrize(
    "entry",
    ["", "name", "name:", ":1.2.3.4", "a b:1.2.3.4", "n:1.2.3.4\nx", "n:fe80::1%\n", "n=1.2.3.4"],
)
def test_extra_hosts_that_are_none(entry: str) -> None:
    with pytest.raises(InvalidArgument, match="bad format for add-host"):
        parse_extra_host(entry)


def test_extra_hosts_with_ipv6() -> None:
    assert parse_extra_host("name:2001:db8::1") == ("name", "2001:db8::1")
    with pytest.raises(InvalidArgument, match="give an address"):
        render_hosts("web", extra_hosts=["me:host-gateway"])


def test_resolvers_with_ipv6_addresses_are_for_containers_that_have_one() -> None:
    host = "nameserver 2001:db8::53\nnameserver ::1\nnameserver fe80::1%eth0\n"
    assert render_resolv_conf(host, ipv6=True) == "nameserver 2001:db8::53\n"
    assert "2001" not in render_resolv_conf(host)


def test_the_engines_own_server_stands_alone() -> None:
    plain = render_resolv_conf("nameserver 192.0.2.1\nsearch a.example\n", internal=True)
    assert plain == "nameserver 127.0.0.11\nsearch a.example\noptions ndots:0\n"
    given = render_resolv_conf(HOST, dns=["192.0.2.9"], options=["ndots:5"], internal=True)
    assert given == ("nameserver 127.0.0.11\nsearch one.example two.example\noptions ndots:5\n")


@pytest.mark.parametrize(
    ("options", "is_set"),
    [((), False), (("ndots:0",), False), (("ndots:1",), True), (("ndots:x",), False),
     (("ndots:2", "edns0", "ndots:0"), False), (("ndots:-1",), False)],
)  # fmt: skip
def test_whether_names_of_one_label_wait_for_the_search_list(
    options: tuple[str, ...], is_set: bool
) -> None:
    assert is_ndots_set(options) == is_set


def test_what_a_container_calls_itself() -> None:
    assert own_names("web") == "web"
    assert own_names("web", "example.org") == own_names("web.example.org") == "web.example.org web"


def test_a_hosts_file_that_others_write_too() -> None:
    text = "127.0.0.1\tlocalhost\n10.0.0.2\tweb\n# mine\n10.9.9.9   db\n10.0.0.3\tsql db"
    moved = with_hosts(text, {"web": ["10.0.0.2", "fd00::2"], "sql db": []})
    assert moved == "127.0.0.1\tlocalhost\n10.0.0.2\tweb\n# mine\n10.9.9.9   db\nfd00::2\tweb\n"
    assert with_hosts(moved, {"web": ["10.0.0.2", "fd00::2"]}) == moved
    assert with_hosts(moved, {"web": []}, kept=["fd00::2\tweb"]).count("web") == 1
    odd = "# one\x0cline\u2028\r\n\n"
    assert with_hosts(odd, {"a": []}) == odd
    assert with_hosts("", {"a": ["1.2.3.4"]}) == "1.2.3.4\ta\n"
