"""Object ids and container names. Randomness comes in as an argument."""

from __future__ import annotations

import random
import re
import secrets

from estiba.model.errors import InvalidArgument

ID_LENGTH = 64
SHORT_ID_LENGTH = 12

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")

_ADJECTIVES = (
    "able agile airy amber ample azure balmy bold brave brief bright brisk calm candid clear "
    "clever coastal crisp daring deft eager early easy fair fast firm fleet fond frank fresh "
    "gentle glad golden grand green handy happy hardy honest humble jolly keen kind level light "
    "lively lucid lunar mellow merry mild modest neat noble northern patient placid plain polite "
    "prime prompt proud quick quiet rapid ready robust serene sharp silent silver sincere smart "
    "smooth snug sober solar solid sound southern spry stable steady still stout sturdy subtle "
    "sunny sure swift tidal tidy trim trusty upbeat vivid warm western whole wise witty zesty"
).split()
_NOUNS = (
    "anchor anvil ballast barge barrel basin beacon berth boom bosun bow brig buoy cable canoe "
    "capstan cargo channel chart clipper coast compass coral crane crate crew current cutter "
    "davit deck delta derrick dinghy dock drift ferry fjord fleet galleon galley gangway gull "
    "harbor hatch haven hawser helm hold hull island jetty jib kayak keel ketch knot lagoon "
    "lantern lagan ledge lighthouse lock log lugger mainsail mariner mast mooring oar ocean pier "
    "pilot port porthole pulley quay raft reef rigging rudder sail schooner sextant shore sloop "
    "sounding spar sponson stern stevedore strait tackle tender tide tiller tonnage topsail "
    "trawler tug vane voyage wake wharf whistle winch windlass yard yawl"
).split()


def new_id() -> str:
    """A random object id of 64 hex digits that never looks like a decimal number.

    A host name that is all digits confuses tools, and the short id is the host name.
    """
    while True:
        candidate = secrets.token_hex(ID_LENGTH // 2)
        if not candidate[:SHORT_ID_LENGTH].isdigit():
            return candidate


def short(object_id: str) -> str:
    """The first 12 digits, as lists print them."""
    return object_id[:SHORT_ID_LENGTH]


def random_name(attempt: int = 0) -> str:
    """A name such as `swift_schooner`; a digit is added from the third attempt on."""
    name = f"{random.choice(_ADJECTIVES)}_{random.choice(_NOUNS)}"
    return name if attempt < 2 else f"{name}{random.randrange(10 ** min(attempt, 6))}"


def check_name(name: str, *, what: str = "container") -> str:
    """Returns `name` without a leading slash if it may name an object.

    Raises InvalidArgument naming the characters that are allowed.
    """
    bare = name.removeprefix("/")
    if len(bare) > 255 or not _NAME.fullmatch(bare):
        raise InvalidArgument(
            f"Invalid {what} name ({name[:64]}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, "
            "two to 255 characters"
        )
    return bare
