"""Policies of networks as records of the store, in their own language.

A record outlives changes of the classes that it is read into.
"""

from __future__ import annotations

import logging

import msgspec

from estiba.model.decoding import from_json
from estiba.model.errors import EstibaError
from estiba.model.event import Event, EventType
from estiba.network.policy.rules import OPEN, NetworkPolicy, parse_policy
from estiba.network.record import NetworkRecord
from estiba.store import Store, Transaction

_log = logging.getLogger(__name__)

KIND = "policy"


class _Stored(msgspec.Struct, frozen=True):
    lines: list[str]


def load(store: Store) -> dict[str, NetworkPolicy]:
    """By network. A record that cannot be read closes its network."""
    found = {}
    for record in store.load(KIND):
        try:
            stored = from_json(record.body, _Stored)
            found[record.id] = parse_policy("\n".join(stored.lines))
        except (msgspec.MsgspecError, EstibaError) as error:
            _log.error("the policy of network %s is closed: %s", record.id, error)
            found[record.id] = NetworkPolicy(closed=True)
    return found


def write(tx: Transaction, network: NetworkRecord, policy: NetworkPolicy) -> None:
    """Its record and event; OPEN has no record."""
    if policy == OPEN:
        tx.delete(KIND, network.id)
    else:
        tx.put(KIND, network.id, msgspec.json.encode(_Stored(policy.lines())))
    attributes = {"name": network.name, "type": network.driver}
    tx.add_event(Event(EventType.NETWORK, "policy", network.id, attributes))


def forget(tx: Transaction, *, network_id: str) -> None:
    tx.delete(KIND, network_id)
