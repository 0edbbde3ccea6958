"""The commands for images and manifests, as data, and the flags that several commands share."""

from __future__ import annotations

from estiba.cli.parse import Command

FILTER = "-f --filter LIST…  filter the output (key=value)\n"
FORMAT = "--format TEMPLATE  table, json, a Go template, or `table TEMPLATE`\n"
INSPECT = "-f --format TEMPLATE  json or a Go template\n"
QUIET = "-q --quiet  only show ids\n"
NO_TRUNC = "--no-trunc  do not shorten the output\n"
FORCE = "-f --force  do not ask\n"
PRUNED = "--filter LIST…  only those that match (until=TIME, label=KEY[=VALUE])\n" + FORCE
_PLATFORM = "--platform NAME  os/arch[/variant]\n"
_TRUST = "--disable-content-trust=true  accepted for docker's sake\n"
_INSECURE = "--insecure  the registry may do without TLS or with a certificate of its own\n"
_IMAGE = "[OPTIONS] IMAGE [IMAGE...]"

IMAGE = {
    "attestations": Command(
        "[OPTIONS] IMAGE", "What is stated of an image: bill of materials, provenance",
        "attestations:attestations", FORMAT + NO_TRUNC + QUIET + _PLATFORM + """\
        --type LIST…  only these (spdx, slsa, or a predicate type), as they are stated
        """, least=1, most=1),
    "bootstrap": Command(
        "busybox|debian[:SUITE]",
        "Make a base image from the distribution's packages, without a registry",
        "image_bootstrap:bootstrap", least=1, most=1),
    "history": Command(
        "[OPTIONS] IMAGE", "An image's layers", "images:history",
        FORMAT + NO_TRUNC + QUIET + _PLATFORM + "-H --human=true  human sizes and dates",
        least=1, most=1),
    "import": Command(
        "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]", "Make an image of a file system's tar",
        "images:import_", _PLATFORM + """\
        -c --change LIST…  apply a Dockerfile instruction
        -m --message TEXT  message
        """, least=1, most=2),
    "inspect": Command(_IMAGE, "Details of images", "inspect:images",
        INSPECT + _PLATFORM, least=1),
    "load": Command(
        "[OPTIONS]", "Load images from an archive", "images:load", _PLATFORM + """\
        -i --input FILE  read from a file instead of STDIN
        -q --quiet  no progress
        """, most=0),
    "ls": Command(
        "[OPTIONS] [REPOSITORY[:TAG]]", "List images", "lists:images",
        FILTER + FORMAT + NO_TRUNC + QUIET + """\
        -a --all  intermediate ones too
        --digests  show digests
        --tree  the platforms of each image below it
        """, most=1),
    "outdated": Command(
        "[OPTIONS] [REPOSITORY[:TAG]...]", "Images with a newer one behind their tag",
        "outdated:outdated", FORMAT + NO_TRUNC + """\
        -a --all  those that are up to date as well
        """),
    "prune": Command(
        "[OPTIONS]", "Remove unused images", "prune:images", PRUNED + """\
        -a --all  all unused ones, not only those without a name
        --keep SIZE  with --lru: how much may stay (10GB)
        --lru  those that were used least recently, until no more than --keep is left
        """, most=0),
    "pull": Command(
        "[OPTIONS] NAME[:TAG|@DIGEST]", "Download an image from a registry", "transfer:pull",
        _PLATFORM + _TRUST + """\
        -a --all-tags  all tags of the repository
        -q --quiet  no progress
        """, least=1, most=1),
    "push": Command(
        "[OPTIONS] NAME[:TAG]", "Upload an image to a registry", "transfer:push", _TRUST + """\
        -a --all-tags  all tags of the repository
        --platform NAME  only that platform's manifest, as an image of its own
        -q --quiet  no progress
        """, least=1, most=1),
    "rm": Command(_IMAGE, "Remove images", "images:rm", """\
        -f --force  force removal
        --no-prune  keep parents without a name
        --platform NAME…  only that platform of an image (os/arch[/variant])
        """, least=1),
    "save": Command(_IMAGE, "Save images to an archive", "images:save", _PLATFORM + """\
        --format FORM  docker or oci: leave out what only the other needs
        -o --output FILE  write to a file instead of STDOUT
        """, least=1),
    "tag": Command(
        "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", "Give an image another name", "images:tag",
        least=2, most=2),
}  # fmt: skip

MANIFEST = {
    "annotate": Command(
        "[OPTIONS] MANIFEST_LIST MANIFEST", "Say more of a manifest in a local list",
        "manifests:annotate", """\
        --arch NAME  architecture
        --os NAME  operating system
        --os-features LIST…  features of the operating system
        --os-version VERSION  version of the operating system
        --variant NAME  variant of the architecture
        """, least=2, most=2),
    "create": Command(
        "MANIFEST_LIST MANIFEST [MANIFEST...]", "Make a local manifest list, to be pushed",
        "manifests:create", _INSECURE + "-a --amend  a list that is there already", least=2),
    "inspect": Command(
        "[OPTIONS] [MANIFEST_LIST] MANIFEST", "Show a manifest or a manifest list",
        "manifests:inspect", _INSECURE + "-v --verbose  layers and platform too", least=1, most=2),
    "push": Command(
        "[OPTIONS] MANIFEST_LIST", "Push a local manifest list to its repository",
        "manifests:push", _INSECURE + "-p --purge  remove the local list then", least=1, most=1),
    "rm": Command(
        "MANIFEST_LIST [MANIFEST_LIST...]", "Remove local manifest lists", "manifests:rm",
        least=1),
}  # fmt: skip
