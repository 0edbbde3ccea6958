"""The Engine API's client: HTTP over sockets, hijacked streams. Small and quick to import."""
