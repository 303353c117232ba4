"""Fuzz target: a routing snapshot, from the disk or from the registry."""

from __future__ import annotations

import itertools

from google.protobuf.message import DecodeError

from inferway.errors import InferwayError
from inferway.registry.v1.watch_service_pb2 import RoutingSnapshot
from inferway_chassis.routing_feed import digest_of
from inferway_gateway.convert import to_addresses, to_table
from inferway_gateway.routing import Selector, TableRefused

MOST_ENDPOINTS = 20


def snapshot(data: bytes) -> None:
    """Is taken or refused as a whole; a table that was taken answers every question."""
    try:
        message = RoutingSnapshot.FromString(data)
    except DecodeError:
        return
    digest_of(message)
    to_addresses(message)
    try:
        table = to_table(message)
    except TableRefused:
        return
    for endpoint, unit in itertools.product(list(table.endpoints)[:MOST_ENDPOINTS], ("", "unit")):
        for selector in (Selector(endpoint), Selector(endpoint, number=1), Selector(endpoint, alias="champion")):
            try:
                table.route(selector, unit)
            except InferwayError:
                continue
