"""The API's shapes: names on the wire, null and absent as zero, nothing lost on the way back."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from estiba.model import container as api
from estiba.model import errors
from estiba.model import image as oci


@pytest.mark.parametrize(
    ("struct", "field", "wire"),
    [
        (api.HostConfig, "blkio_device_read_iops", "BlkioDeviceReadIOps"),
        (api.HostConfig, "kernel_memory_tcp", "KernelMemoryTCP"),
        (api.HostConfig, "io_maximum_iops", "IOMaximumIOps"),
        (api.HostConfig, "container_id_file", "ContainerIDFile"),
        (api.HostConfig, "uts_mode", "UTSMode"),
        (api.HostConfig, "nano_cpus", "NanoCpus"),
        (api.HostConfig, "oom_score_adj", "OomScoreAdj"),
        (api.HostConfig, "cgroupns_mode", "CgroupnsMode"),
        (api.EndpointSettings, "ip_address", "IPAddress"),
        (api.EndpointSettings, "ipam_config", "IPAMConfig"),
        (api.EndpointSettings, "global_ipv6_prefix_len", "GlobalIPv6PrefixLen"),
        (api.EndpointIpamConfig, "link_local_ips", "LinkLocalIPs"),
        (api.DeviceRequest, "device_ids", "DeviceIDs"),
        (api.MountPoint, "rw", "RW"),
        (oci.ImageConfig, "os_version", "os.version"),
        (oci.Manifest, "media_type", "mediaType"),
        (oci.HistoryEntry, "empty_layer", "empty_layer"),
    ],
)
def test_names_on_the_wire(struct: Any, field: str, wire: str) -> None:
    names = dict(zip(struct.__struct_fields__, struct.__struct_encode_fields__, strict=True))
    assert names[field] == wire


@pytest.mark.parametrize("struct", [api.Config, api.HostConfig, api.NetworkingConfig])
def test_an_empty_object_is_all_zeros_and_survives_a_round_trip(struct: Any) -> None:
    empty = msgspec.json.decode(b"{}", type=struct)
    assert empty == struct()
    assert msgspec.json.decode(msgspec.json.encode(empty), type=struct) == empty


def test_zero_and_not_given_differ_where_the_api_tells_them_apart() -> None:
    given = msgspec.json.decode(b'{"StopTimeout":0,"Entrypoint":[],"Cmd":null}', type=api.Config)
    assert (given.stop_timeout, given.entrypoint, given.cmd) == (0, [], None)
    host = msgspec.json.decode(b'{"PidsLimit":0,"Init":false}', type=api.HostConfig)
    assert (host.pids_limit, host.init, host.memory_swappiness) == (0, False, None)


def test_a_wrong_type_names_the_field() -> None:
    with pytest.raises(msgspec.ValidationError, match=r"\$\.Memory"):
        msgspec.json.decode(b'{"Memory":"1g"}', type=api.HostConfig)


def test_platforms_print_as_people_write_them() -> None:
    assert str(oci.Platform(architecture="arm", variant="v7")) == "linux/arm/v7"
    assert str(oci.Platform(architecture="amd64")) == "linux/amd64"


def test_the_error_tree_is_the_one_in_the_docstring() -> None:
    drawn = re.findall(r"[├└]── (\w+)", errors.__doc__ or "")
    made = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type)
        and issubclass(value, errors.EstibaError)
        and value is not errors.EstibaError
    }
    assert set(drawn) == made
    assert errors.NotFound("no such thing").message == "no such thing"
    assert errors.CommandNotFound("x").exit_code == 127
    assert errors.CommandNotExecutable("x").exit_code == 126
