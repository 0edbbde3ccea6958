"""The text of the engine's two tables: sets, maps and chains, without what is in them. Pure.

Table of family inet: translation of published ports, masquerading, isolation.

    guard           nobody outside reaches the host's loopback, although bridges route it
    gate            new connections from other machines to published ports: the administrator's
                    chain `user-published`, then what the host's own firewall says (`host`)
    prerouting      published port at an address of the host → container
    loopback        programs of the host that ask [::1]: see below
    output          published ports for the host's own programs, 127.0.0.1 included
    input           from an internal network only the bridge's own addresses are reached
    forward         frames that br_netfilter shows on their way within a bridge whose containers
                    do not talk are marked as judged here; the administrator's chain
                    `user-forward`; what belongs to a connection that
                    was let pass; what the policies say; within a bridge if its containers may
                    talk; into one only to published ports, and to what links open; nothing
                    crosses the edge of an internal network
    policies        of whoever makes policies; drop is final
    postrouting     containers leave with the host's address; a container that reaches a
                    neighbour by a published port does so with the bridge's, or the answer would
                    go past the translation

IPv6 has no route_localnet: a packet that comes in by a bridge is never routed to ::1. Packets
that the host sends from ::1 to a published port at ::1 therefore get STAND_IN as their source
before they are tracked, an address that is routed to the host itself and never seen on a link;
answers get ::1 again when they have been routed.

Table of family bridge: whatever comes in by a container's link bears its MAC and its addresses,
in ARP and neighbour discovery too, and is no advertisement, redirect or answer of a DHCP server,
nor meant for bridges themselves (802.1D).
It looks only at links that it knows, for other engines' links have names of the same kind.

Between containers of a network with icc=false it lets pass ARP, neighbour discovery and what
links open, with its answers, and nothing else, unless the inet table has judged the frame: with
br_netfilter that sees connections, and a neighbour's published port, translated. So the chain
`apart` comes after br_netfilter, whose priority is 0. A mark does not outlive the host's
namespace, and no container can set one.
"""

from __future__ import annotations

STAND_IN = "fd65:7374:6962:61::1"
JUDGED = "0x00e57000"
"""Bits of the packet mark, for the way from the one table to the other."""

USER_CHAINS = ("user-forward", "user-published")

SETS = {
    "inet": {
        "bridges": "set bridges { type ifname; %s }",
        "talking": "set talking { type ifname . ifname; %s }",
        "silent": "set silent { type ifname . ifname; %s }",
        "internal": "set internal { type ifname; %s }",
        "own": "set own { type ifname . ipv4_addr; flags interval; %s }",
        "own6": "set own6 { type ifname . ipv6_addr; flags interval; %s }",
        "leaving": "set leaving { type ipv4_addr; flags interval; %s }",
        "leaving6": "set leaving6 { type ipv6_addr; flags interval; %s }",
        "leaving_as": "map leaving_as { type ipv4_addr : ipv4_addr; flags interval; %s }",
        "leaving6_as": "map leaving6_as { type ipv6_addr : ipv6_addr; flags interval; %s }",
        "unprotected": "set unprotected { type ifname; %s }",
        "unprotected6": "set unprotected6 { type ifname; %s }",
        "linked": "set linked { type ipv4_addr . ipv4_addr . inet_proto . inet_service; %s }",
        "inner": "set inner { type ipv4_addr . inet_proto . inet_service; %s }",
        "inner6": "set inner6 { type ipv6_addr . inet_proto . inet_service; %s }",
        "published": "map published { type inet_proto . inet_service : "
        "ipv4_addr . inet_service; %s }",
        "published_at": "map published_at { type ipv4_addr . inet_proto . inet_service : "
        "ipv4_addr . inet_service; %s }",
        "published6": "map published6 { type inet_proto . inet_service : "
        "ipv6_addr . inet_service; %s }",
        "published6_at": "map published6_at { type ipv6_addr . inet_proto . inet_service : "
        "ipv6_addr . inet_service; %s }",
        "ports": "set ports { type inet_proto . inet_service; %s }",
        "ports_at": "set ports_at { type ipv4_addr . inet_proto . inet_service; %s }",
        "ports6": "set ports6 { type inet_proto . inet_service; %s }",
        "ports6_at": "set ports6_at { type ipv6_addr . inet_proto . inet_service; %s }",
    },
    "bridge": {
        "apart": "set apart { type ifname; %s }",
        "linked": "set linked { type ipv4_addr . ipv4_addr . inet_proto . inet_service; %s }",
        "links": "set links { type ifname; %s }",
        "macs": "set macs { type ifname . ether_addr; %s }",
        "sources": "set sources { type ifname . ipv4_addr; %s }",
        "sources6": "set sources6 { type ifname . ipv6_addr; %s }",
        "targets6": "set targets6 { typeof iifname . @th,64,128; %s }",
    },
}

INET_CHAINS = f"""\
  chain user-forward {{ }}
  chain user-published {{ }}

  chain guard {{
    type filter hook prerouting priority raw; policy accept;
    iifname "lo" accept
    ip daddr 127.0.0.0/8 drop
    iifname @bridges ip saddr 127.0.0.0/8 drop
    ip6 daddr {STAND_IN} drop
    ip6 saddr {STAND_IN} drop
  }}
  chain gate {{
    type filter hook prerouting priority dstnat - 1; policy accept;
    ct state != new accept
    iifname "lo" accept
    iifname @bridges accept
    fib daddr type != local accept
    ip daddr . meta l4proto . th dport @ports_at jump admission
    meta nfproto ipv4 meta l4proto . th dport @ports jump admission
    ip6 daddr . meta l4proto . th dport @ports6_at jump admission
    meta nfproto ipv6 meta l4proto . th dport @ports6 jump admission
  }}
  chain admission {{
    jump user-published
    goto host
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    fib daddr type local jump publish
  }}
  chain loopback {{
    type filter hook output priority raw; policy accept;
    ip6 daddr ::1 ip6 saddr ::1 jump stand-in
  }}
  chain stand-in {{
    ip6 daddr . meta l4proto . th dport @ports6_at ip6 saddr set {STAND_IN}
    meta l4proto . th dport @ports6 ip6 saddr set {STAND_IN}
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    fib daddr type local jump publish
  }}
  chain publish {{
    dnat ip to ip daddr . meta l4proto . th dport map @published_at
    dnat ip to meta l4proto . th dport map @published
    dnat ip6 to ip6 daddr . meta l4proto . th dport map @published6_at
    dnat ip6 to meta l4proto . th dport map @published6
  }}
  chain input {{
    type filter hook input priority filter; policy accept;
    iifname @internal jump from-internal
  }}
  chain from-internal {{
    iifname . ip daddr @own accept
    iifname . ip6 daddr @own6 accept
    ip daddr 224.0.0.0/4 accept
    ip6 daddr {{ fe80::/10, ff00::/8 }} accept
    drop
  }}
  chain back {{
    type filter hook input priority 101; policy accept;
    ip6 daddr {STAND_IN} ip6 saddr ::1 ct status dnat ip6 daddr set ::1
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    iifname . oifname @silent meta mark set meta mark or {JUDGED}
    jump user-forward
    ct state established,related accept
    jump policies
    iifname . oifname @talking accept
    iifname @internal drop
    oifname @internal drop
    oifname @bridges jump inbound
  }}
  chain inbound {{
    ct status dnat accept
    iifname . oifname @silent ip saddr . ip daddr . meta l4proto . th dport @linked accept
    iifname . oifname @silent drop
    ip daddr . meta l4proto . th dport @inner accept
    ip6 daddr . meta l4proto . th dport @inner6 accept
    meta nfproto ipv4 oifname @unprotected accept
    meta nfproto ipv6 oifname @unprotected6 accept
    drop
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname . ip saddr @own ct status dnat masquerade
    oifname . ip saddr @own accept
    oifname . ip6 saddr @own6 ct status dnat masquerade
    oifname . ip6 saddr @own6 accept
    oifname @bridges ip saddr 127.0.0.0/8 masquerade
    oifname @bridges ip6 saddr {STAND_IN} masquerade
    snat ip to ip saddr map @leaving_as
    snat ip6 to ip6 saddr map @leaving6_as
    ip saddr @leaving masquerade
    ip6 saddr @leaving6 masquerade
  }}
"""

BRIDGE_CHAINS = f"""\
  chain prerouting {{
    type filter hook prerouting priority dstnat; policy accept;
    iifname @links jump from-container
  }}
  chain from-container {{
    iifname . ether saddr != @macs drop
    ether daddr & ff:ff:ff:ff:ff:f0 == 01:80:c2:00:00:00 drop
    ether type vmap {{ ip : jump ipv4, ip6 : jump ipv6, arp : jump arp-of }}
    drop
  }}
  chain ipv4 {{
    iifname . ip saddr != @sources drop
    icmp type redirect drop
    udp dport 68 drop
    accept
  }}
  chain ipv6 {{
    icmpv6 type {{ nd-router-advert, nd-redirect }} drop
    udp dport 546 drop
    icmpv6 type nd-neighbor-advert iifname . @th,64,128 != @targets6 drop
    iifname . ip6 saddr @sources6 accept
    ip6 saddr :: jump ipv6-without-address
    drop
  }}
  chain ipv6-without-address {{
    icmpv6 type nd-neighbor-solicit iifname . @th,64,128 @targets6 accept
    icmpv6 type {{ mld-listener-report, mld-listener-done, mld2-listener-report }} accept
  }}
  chain arp-of {{
    iifname . arp saddr ether != @macs drop
    iifname . arp saddr ip @sources accept
    arp operation request arp saddr ip 0.0.0.0 accept
    drop
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    jump policies
  }}
  chain apart {{
    type filter hook forward priority 10; policy accept;
    iifname @apart oifname @apart jump between
  }}
  chain between {{
    meta mark and {JUDGED} == {JUDGED} accept
    ether type arp accept
    icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
    ip saddr . ip daddr . meta l4proto . th dport @linked accept
    tcp flags & ack == ack jump answers
    meta l4proto {{ udp, sctp }} jump answers
    drop
  }}
  chain answers {{
    ip daddr . ip saddr . meta l4proto . th sport @linked accept
  }}
"""
