"""Metrics in Prometheus' text format."""

from __future__ import annotations

from estiba.registry.metrics import Metrics


def test_requests_and_their_times() -> None:
    metrics = Metrics()
    for seconds in (0.0005, 0.02, 0.02, 100.0):
        metrics.observe("blob", "GET", 200, seconds)
    metrics.observe("other", "INVENTED\nx", 404, 0.001)
    metrics.add_source(
        "things", "gauge", "Things", lambda: {(("name", 'a"b\\c\nd'),): 3, (("name", "e"),): 0.5}
    )
    lines = metrics.render().decode().splitlines()
    prefix = "estiba_registry_"
    expected = [
        'http_requests_total{endpoint="blob",method="GET",code="200"} 4',
        'http_requests_total{endpoint="other",method="other",code="404"} 1',
        'http_request_seconds_bucket{endpoint="blob",le="0.001"} 1',
        'http_request_seconds_bucket{endpoint="blob",le="0.025"} 3',
        'http_request_seconds_bucket{endpoint="blob",le="30.0"} 3',
        'http_request_seconds_bucket{endpoint="blob",le="+Inf"} 4',
        'http_request_seconds_count{endpoint="blob"} 4',
        'things{name="a\\"b\\\\c\\nd"} 3',
        'things{name="e"} 0.5',
    ]
    for line in expected:
        assert prefix + line in lines
    assert f"# TYPE {prefix}http_request_seconds histogram" in lines
    assert all(line.startswith((prefix, f"# HELP {prefix}", f"# TYPE {prefix}")) for line in lines)
