"""The flags of run, create and update, in the notation of `parse`."""

LIMITS = """\
--blkio-weight N  block IO weight, 10 to 1000
--cpu-period N  CPU CFS period, microseconds
--cpu-quota N  CPU CFS quota, microseconds
--cpu-rt-period N  real-time period, microseconds
--cpu-rt-runtime N  real-time runtime, microseconds
-c --cpu-shares N  CPU shares (relative weight)
--cpus CPUS  number of CPUs
--cpuset-cpus LIST  CPUs to run on (0-3, 0,1)
--cpuset-mems LIST  memory nodes to use (0-3, 0,1)
-m --memory BYTES  memory limit
--memory-reservation BYTES  memory soft limit
--memory-swap BYTES  memory and swap; -1 is unlimited swap
--pids-limit N  limit of processes; -1 is none
--restart POLICY  no, always, unless-stopped, on-failure[:N] or on-unhealthy[:N]
"""
UPDATE = (
    LIMITS
    + """\
--egress LIST…  what it reaches outside: open, none or allow=HOST[:PORT]
--publish-add LIST…  publish a port, of a running container too ([[ip:]host:]container[/proto])
--publish-rm LIST…  take a published port back ([[ip:]host:]container[/proto])
"""
)
CREATE = LIMITS + """\
--add-host LIST…  a line of /etc/hosts (host:ip)
--annotation LIST…  annotation for the OCI runtime
-a --attach LIST…  attach to STDIN, STDOUT or STDERR
--blkio-weight-device LIST…  block IO weight of a device (path:weight)
--cap-add LIST…  add Linux capabilities
--cap-drop LIST…  drop Linux capabilities
--cgroup-parent NAME  parent cgroup
--cgroupns MODE  cgroup namespace: host or private
--cidfile FILE  write the container's id to a file
--cpu-count N  number of CPUs (Windows)
--cpu-percent N  CPU percent (Windows)
--device LIST…  add a host device (host[:container[:rwm]])
--device-cgroup-rule LIST…  add a rule to the allowed devices
--device-read-bps LIST…  limit the read rate of a device (path:bytes)
--device-read-iops LIST…  limit the read operations of a device (path:number)
--device-write-bps LIST…  limit the write rate of a device (path:bytes)
--device-write-iops LIST…  limit the write operations of a device (path:number)
--disable-content-trust=true  accepted for docker's sake
--dns LIST…  DNS servers
--dns-option --dns-opt LIST…  DNS options
--dns-search LIST…  DNS search domains
--domainname NAME  NIS domain name
--egress LIST…  what it reaches outside: none or allow=HOST[:PORT]
--entrypoint COMMAND  instead of the image's entrypoint
-e --env LIST…  environment variables
--env-file LIST…  files of environment variables
--expose LIST…  expose a port or a range
--gpus REQUEST  GPUs: all, a number, or device=…,capabilities=…
--group-add LIST…  additional groups
--health-cmd COMMAND  command that checks health
--health-interval TIME  time between checks
--health-retries N  consecutive failures that mean unhealthy
--health-start-interval TIME  time between checks in the start period
--health-start-period TIME  time in which failures do not count
--health-timeout TIME  the longest that a check may take
-h --hostname NAME  host name
--init  run an init that forwards signals and reaps processes
-i --interactive  keep STDIN open
--io-maxbandwidth BYTES  IO bandwidth of the system drive (Windows)
--io-maxiops N  IO operations of the system drive (Windows)
--ip ADDRESS  IPv4 address
--ip6 ADDRESS  IPv6 address
--ipc MODE  IPC namespace: private, shareable, host, none, container:NAME
--isolation NAME  isolation technology (Windows)
--kernel-memory BYTES  kernel memory limit (old kernels)
-l --label LIST…  metadata
--label-file LIST…  files of labels
--link LIST…  link to another container
--link-local-ip LIST…  link-local address
--log-driver NAME  log driver
--log-opt LIST…  options of the log driver
--mac-address MAC  MAC address
--memory-swappiness N  0 to 100
--mount SPEC…  attach a mount (type=…,source=…,target=…)
--name NAME  name of the container
--network --net NAME…  network: a name, host, none, container:NAME, or name=…,alias=…,ip=…
--network-alias --net-alias LIST…  name of the container in the network
--no-healthcheck  no health check, whatever the image says
--oom-kill-disable  disable the OOM killer
--oom-score-adj N  -1000 to 1000
--pid MODE  PID namespace: host or container:NAME
--platform NAME  os/arch[/variant]
--privileged  all privileges
-p --publish LIST…  publish a port ([[ip:]host:]container[/proto])
-P --publish-all  publish all exposed ports on free ones
--pull POLICY  pull the image: always, missing or never (default missing)
-q --quiet  no progress of the pull
--read-only  mount the root file system read-only
--rm  remove the container and its anonymous volumes when it ends
--runtime NAME  OCI runtime
--security-opt LIST…  security options (seccomp=FILE, no-new-privileges, …)
--shm-size BYTES  size of /dev/shm
--stop-signal SIGNAL  signal that stops the container
--stop-timeout N  seconds to wait before killing; -1 waits forever
--storage-opt LIST…  storage options
--sysctl LIST…  kernel parameters of its namespaces
--tmpfs LIST…  mount a tmpfs (path[:options])
-t --tty  allocate a terminal
--ulimit LIST…  limits (name=soft[:hard])
--use-api-socket  mount the daemon's own socket at /var/run/docker.sock
-u --user NAME  name or uid[:group or gid]
--userns MODE  user namespace: host
--uts MODE  UTS namespace: host
-v --volume LIST…  mount a volume or a host path (source:target[:options])
--volume-driver NAME  driver of volumes
--volumes-from LIST…  mounts of another container
-w --workdir PATH  working directory
"""  # fmt: skip
RUN = CREATE + """\
-d --detach  run in the background and print the id
--detach-keys KEYS  key sequence that detaches (default ctrl-p,ctrl-q)
--sig-proxy=true  pass signals on to the program
"""  # fmt: skip
