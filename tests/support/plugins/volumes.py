"""A volume plugin: each volume is a directory; who has it mounted is counted by id."""

import json
import os
import shutil
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from serving import serve

ROOT = os.environ.get("PLUGIN_ROOT", "/")
TOLD = os.environ.get("PLUGIN_TOLD_ROOT", ROOT)
STATE = os.path.join(ROOT, "state")


def load():
    try:
        with open(STATE) as file:
            return json.load(file)
    except OSError:
        return {}


def save(volumes):
    with open(STATE + ".new", "w") as file:
        json.dump(volumes, file)
    os.rename(STATE + ".new", STATE)


def place(name):
    return os.path.join(TOLD, "volumes", name)


def create(arguments):
    volumes = load()
    if (arguments.get("Opts") or {}).get("bad"):
        return {"Err": "the option bad is not for us"}
    os.makedirs(place(arguments["Name"]), exist_ok=True)
    volumes.setdefault(arguments["Name"], {"opts": arguments.get("Opts") or {}, "users": []})
    save(volumes)
    return {"Err": ""}


def remove(arguments):
    volumes = load()
    if arguments["Name"] not in volumes:
        return {"Err": "no such volume"}
    if volumes[arguments["Name"]]["users"]:
        return {"Err": "volume is mounted"}
    del volumes[arguments["Name"]]
    shutil.rmtree(place(arguments["Name"]), ignore_errors=True)
    save(volumes)
    return {"Err": ""}


def mount(arguments):
    volumes = load()
    if arguments["Name"] not in volumes:
        return {"Err": "no such volume"}
    volumes[arguments["Name"]]["users"].append(arguments["ID"])
    save(volumes)
    return {"Mountpoint": place(arguments["Name"])}


def unmount(arguments):
    volumes = load()
    if arguments["ID"] not in volumes.get(arguments["Name"], {"users": []})["users"]:
        return {"Err": f"not mounted for {arguments['ID']}"}
    volumes[arguments["Name"]]["users"].remove(arguments["ID"])
    save(volumes)
    return {"Err": ""}


def view(name, volume):
    return {
        "Name": name,
        "Mountpoint": place(name) if volume["users"] else "",
        "CreatedAt": "2026-01-02T03:04:05Z",
        "Status": {"users": len(volume["users"]), "color": "blue"},
    }


def get(arguments):
    volumes = load()
    if arguments["Name"] not in volumes:
        return {"Err": "no such volume"}
    return {"Volume": view(arguments["Name"], volumes[arguments["Name"]])}


serve(
    os.environ["PLUGIN_SOCKET"],
    ["VolumeDriver"],
    {
        "VolumeDriver.Create": create,
        "VolumeDriver.Remove": remove,
        "VolumeDriver.Mount": mount,
        "VolumeDriver.Unmount": unmount,
        "VolumeDriver.Path": lambda arguments: {"Mountpoint": place(arguments["Name"])},
        "VolumeDriver.Get": get,
        "VolumeDriver.List": lambda arguments: {
            "Volumes": [view(name, volume) for name, volume in load().items()]
        },
        "VolumeDriver.Capabilities": lambda arguments: {"Capabilities": {"Scope": "global"}},
    },
)
