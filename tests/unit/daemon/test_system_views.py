"""What `GET /info` says."""

from __future__ import annotations

from estiba.daemon.adapters.system_views import registry_view
from estiba.distribution.settings import RegistrySettings


def index(name: str, *mirrors: str, secure: bool, official: bool = False) -> dict[str, object]:
    return {"Name": name, "Mirrors": list(mirrors), "Secure": secure, "Official": official}


def test_registries_are_told() -> None:
    settings = RegistrySettings(
        insecure=("192.168.1.0/24", "plain.example:5000"),
        mirrors={"docker.io": ("https://one.example", "http://two.example/"), "*": ("http://x",)},
    )
    mirrors = ("https://one.example/", "http://two.example/")
    assert registry_view(settings) == {
        "InsecureRegistryCIDRs": ["::1/128", "127.0.0.0/8", "192.168.1.0/24"],
        "IndexConfigs": {
            "docker.io": index("docker.io", *mirrors, secure=True, official=True),
            "plain.example:5000": index("plain.example:5000", secure=False),
        },
        "Mirrors": list(mirrors),
    }
