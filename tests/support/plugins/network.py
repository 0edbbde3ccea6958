"""A plugin of networks and addresses: a bridge for each network, a veth pair for each endpoint.

PLUGIN_TAG begins the names of its links, PLUGIN_SUBNET its own address pools (`10.7` gives
10.7.N.0/24 and fd00:10:7:N::/64). State is kept in files, so that it may be killed at any time.
"""

import ipaddress
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from serving import serve

ROOT = os.environ["PLUGIN_ROOT"]
TAG = os.environ["PLUGIN_TAG"]
BASE = os.environ["PLUGIN_SUBNET"]
STATE = os.path.join(ROOT, "state")
CAPABILITIES = json.loads(os.environ.get("PLUGIN_CAPABILITIES", "{}"))
GATEWAY = "com.docker.network.gateway"


def load():
    try:
        with open(STATE) as file:
            return json.load(file)
    except OSError:
        return {"networks": {}, "endpoints": {}, "pools": {}}


def save(state):
    with open(STATE + ".new", "w") as file:
        json.dump(state, file)
    os.rename(STATE + ".new", STATE)


def ip(*words, check=True):
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if check and done.returncode != 0:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")


def bridge_of(network):
    return f"{TAG}{network[:6]}"


def pair_of(endpoint):
    return f"{TAG}h{endpoint[:6]}", f"{TAG}c{endpoint[:6]}"


# -- networks ------------------------------------------------------------------------------------


def create_network(arguments):
    state = load()
    network = arguments["NetworkID"]
    if network in state["networks"]:
        return {"Err": "network exists already"}
    name = bridge_of(network)
    ip("link", "add", name, "type", "bridge")
    for data in (arguments.get("IPv4Data") or []) + (arguments.get("IPv6Data") or []):
        if data["Gateway"] != "0.0.0.0/0":
            words = ["nodad"] if ":" in data["Gateway"] else []
            ip("addr", "add", data["Gateway"], "dev", name, *words)
    ip("link", "set", name, "up")
    state["networks"][network] = arguments
    save(state)
    return {}


def delete_network(arguments):
    state = load()
    if state["networks"].pop(arguments["NetworkID"], None) is None:
        return {"Err": "no such network"}
    ip("link", "del", bridge_of(arguments["NetworkID"]), check=False)
    save(state)
    return {}


def create_endpoint(arguments):
    state = load()
    if arguments["NetworkID"] not in state["networks"]:
        return {"Err": f"no network {arguments['NetworkID'][:6]}"}
    if arguments["EndpointID"] in state["endpoints"]:
        return {"Err": "endpoint exists already"}
    state["endpoints"][arguments["EndpointID"]] = arguments
    save(state)
    given = arguments["Interface"]
    options = state["networks"][arguments["NetworkID"]]["Options"]["com.docker.network.generic"]
    mac = "02:aa:" + ":".join(arguments["EndpointID"][n : n + 2] for n in (0, 2, 4, 6))
    answer = {} if given["MacAddress"] else {"MacAddress": mac}
    if not given["Address"] and "address" in options:
        answer["Address"] = options["address"]
    return {"Interface": answer}


def delete_endpoint(arguments):
    state = load()
    if state["endpoints"].pop(arguments["EndpointID"], None) is None:
        return {"Err": "no such endpoint"}
    save(state)
    ip("link", "del", pair_of(arguments["EndpointID"])[0], check=False)
    return {}


def join(arguments):
    state = load()
    network = state["networks"][arguments["NetworkID"]]
    options = network["Options"]["com.docker.network.generic"]
    host, inside = pair_of(arguments["EndpointID"])
    ip("link", "add", host, "type", "veth", "peer", "name", inside)
    ip("link", "set", host, "master", bridge_of(arguments["NetworkID"]), "up")
    answer = {"InterfaceName": {"SrcName": inside, "DstPrefix": options.get("prefix", "eth")}}
    for data in network.get("IPv4Data") or []:
        if data["Gateway"] != "0.0.0.0/0":
            answer["Gateway"] = data["Gateway"].partition("/")[0]
    for data in network.get("IPv6Data") or []:
        answer["GatewayIPv6"] = data["Gateway"].partition("/")[0]
    if "route" in options:
        answer["StaticRoutes"] = [
            {"Destination": "203.0.113.0/24", "RouteType": 0, "NextHop": options["route"]},
            {"Destination": "198.51.100.0/24", "RouteType": 1},
        ]
        answer["DisableGatewayService"] = True
    return {**answer, **json.loads(options.get("join", "{}"))}


def leave(arguments):
    if arguments["EndpointID"] not in load()["endpoints"]:
        return {"Err": "no such endpoint"}
    return {}


def connectivity(arguments):
    state = load()
    state["endpoints"][arguments["EndpointID"]]["programmed"] = arguments.get("Options")
    save(state)
    return {}


def info(arguments):
    options = load()["endpoints"][arguments["EndpointID"]].get("programmed") or {}
    ports = options.get("com.docker.network.portmap") or []
    return {"Value": {"com.docker.network.portmap": ports}}


# -- addresses -----------------------------------------------------------------------------------


def request_pool(arguments):
    state = load()
    number = len(state["pools"]) + 1
    subnet = arguments["Pool"]
    if not subnet and arguments["V6"]:
        subnet = f"fd00:{BASE.replace('.', ':')}:{number}::/64"
    elif not subnet:
        subnet = f"{BASE}.{number}.0/24"
    identity = f"{arguments['AddressSpace']}/{subnet}"
    if identity in state["pools"]:
        return {"Error": f"pool {subnet} is taken"}
    state["pools"][identity] = {"subnet": subnet, "used": {}, "options": arguments["Options"]}
    save(state)
    return {"PoolID": identity, "Pool": subnet, "Data": {}}


def release_pool(arguments):
    state = load()
    if state["pools"].pop(arguments["PoolID"], None) is None:
        return {"Error": "no such pool"}
    save(state)
    return {}


def request_address(arguments):
    state = load()
    pool = state["pools"].get(arguments["PoolID"])
    if pool is None:
        return {"Error": "no such pool"}
    subnet = ipaddress.ip_network(pool["subnet"])
    options = arguments.get("Options") or {}
    first = 1 if options.get("RequestAddressType") == GATEWAY else 50
    wanted = arguments["Address"]
    if not wanted:
        numbers = range(first, min(subnet.num_addresses - 1, 250))
        wanted = next(str(subnet[n]) for n in numbers if str(subnet[n]) not in pool["used"])
    if wanted in pool["used"]:
        return {"Error": f"address {wanted} is taken"}
    pool["used"][wanted] = options
    save(state)
    return {"Address": f"{wanted}/{subnet.prefixlen}", "Data": {}}


def release_address(arguments):
    state = load()
    pool = state["pools"].get(arguments["PoolID"], {"used": {}})
    if pool["used"].pop(arguments["Address"], None) is None:
        return {"Error": "no such address"}
    save(state)
    return {}


serve(
    os.environ["PLUGIN_SOCKET"],
    ["NetworkDriver", "IpamDriver"],
    {
        "NetworkDriver.GetCapabilities": lambda arguments: {
            "Scope": CAPABILITIES.get("scope", "local"),
            "ConnectivityScope": "local",
        },
        "NetworkDriver.CreateNetwork": create_network,
        "NetworkDriver.DeleteNetwork": delete_network,
        "NetworkDriver.CreateEndpoint": create_endpoint,
        "NetworkDriver.DeleteEndpoint": delete_endpoint,
        "NetworkDriver.EndpointOperInfo": info,
        "NetworkDriver.Join": join,
        "NetworkDriver.Leave": leave,
        "NetworkDriver.ProgramExternalConnectivity": connectivity,
        "NetworkDriver.RevokeExternalConnectivity": lambda arguments: {},
        "NetworkDriver.DiscoverNew": lambda arguments: {},
        "NetworkDriver.DiscoverDelete": lambda arguments: {},
        "IpamDriver.GetCapabilities": lambda arguments: {
            "RequiresMACAddress": CAPABILITIES.get("mac", False),
            "RequiresRequestReplay": CAPABILITIES.get("replay", False),
        },
        "IpamDriver.GetDefaultAddressSpaces": lambda arguments: {
            "LocalDefaultAddressSpace": "here",
            "GlobalDefaultAddressSpace": "everywhere",
        },
        "IpamDriver.RequestPool": request_pool,
        "IpamDriver.ReleasePool": release_pool,
        "IpamDriver.RequestAddress": request_address,
        "IpamDriver.ReleaseAddress": release_address,
    },
)
