"""The flags of build, in the notation of `parse`."""

BUILD = """\
--add-host LIST…  a line of /etc/hosts for RUN (host:ip)
--allow LIST…  what RUN may ask for: network.host, security.insecure
--attest LIST…  type=sbom or type=provenance,mode=min|max
--build-arg LIST…  a build argument (NAME=VALUE, or NAME for the environment's)
--build-context LIST…  one more context (NAME=DIRECTORY, docker-image://IMAGE or a URL)
--cache-from LIST…  caches to look in (an image, or type=registry|local|inline,ref=|src=)
--cache-to LIST…  where to put the cache (type=registry|local|inline,ref=|dest=)
--call METHOD  build or check (default build)
--cgroup-parent NAME  parent cgroup of RUN
--check  only look for what is unwise or wrong in the Dockerfile
--compress  accepted for docker's sake
--cpu-period N  CPU CFS period of RUN, microseconds
--cpu-quota N  CPU CFS quota of RUN, microseconds
-c --cpu-shares N  CPU shares of RUN (relative weight)
--cpuset-cpus LIST  CPUs of RUN (0-3, 0,1)
--cpuset-mems LIST  memory nodes of RUN (0-3, 0,1)
-D --debug  open a shell in the state at which a step failed
--disable-content-trust=true  accepted for docker's sake
--explain-cache  say for each step why the cache hit or missed
-f --file PATH  the Dockerfile (default PATH/Dockerfile; - is STDIN)
--force-rm  accepted for docker's sake
--iidfile FILE  write the image's id to a file
--isolation NAME  isolation technology (Windows)
--label LIST…  metadata of the image
--load  put the image into the engine's store, besides other outputs
-m --memory BYTES  memory limit of RUN
--memory-swap BYTES  memory and swap of RUN; -1 is unlimited swap
--metadata-file FILE  write what came of the build to a file, as JSON
--network NAME  network of RUN: default, none, host or a network's name
--no-cache  do every step anew
--no-cache-filter LIST…  stages of which every step is done anew
-o --output LIST…  where the result goes: DIRECTORY, -, or type=image|local|tar|oci|docker|registry
--platform LIST…  platforms to build for (os/arch[/variant])
--progress MODE  auto, plain, tty, quiet, json or rawjson (default auto)
--provenance MODE  attest how it was built: true, false, min or max
--pull  ask the registries for newer base images
--push  push the image to its registry
-q --quiet  no progress, only the image's id
--rm=true  accepted for docker's sake
--sbom BOOL  attest what the image consists of
--secret LIST…  a secret for RUN (id=NAME[,src=FILE][,env=VARIABLE])
--security-opt LIST…  accepted for docker's sake
--shm-size BYTES  size of /dev/shm of RUN
--squash  one layer instead of all that the build made
--ssh LIST…  an ssh agent for RUN (default, or ID=SOCKET|KEY[,KEY])
-t --tag LIST…  a name for the image
--target NAME  the stage to build
--ulimit LIST…  limits of RUN (name=soft[:hard])
"""
PRUNE = """\
-a --all  all of the cache, not only what no image has a share in
--filter LIST…  only what matches (until=TIME, id=, type=, inuse, shared, private)
-f --force  do not ask
--keep-storage BYTES  keep so much (docker's older word for --reserved-space)
--max-used-space BYTES  prune until no more than this is used
--min-free-space BYTES  prune until so much of the disk is free
--reserved-space BYTES  keep so much of the cache in any case
--verbose  what was removed, in detail
"""
USAGE = """\
--filter LIST…  only what matches (id=, type=, description~=, inuse, shared, private)
--format TEMPLATE  table, json, a Go template, or `table TEMPLATE`
--verbose  all that is known of each entry
"""
