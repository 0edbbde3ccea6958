"""Containers that ask, and name servers outside that answer, on the private host."""

from __future__ import annotations

SERVER = ("127.0.0.11", 53)
TYPES = {"A": 1, "CNAME": 5, "PTR": 12, "MX": 15, "TXT": 16, "AAAA": 28, "SRV": 33, "ANY": 255}
