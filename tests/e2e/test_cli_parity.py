"""`estiba` and `docker` side by side on a genuine Docker Engine: the same words, the same answer.

Output, messages and exit codes are compared byte by byte, with the program's name replaced.
"""

# ruff: noqa: E501 - a command line a line

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support.daemon import needs_docker, wait_until
from tests.support.dockerd import GenuineDockerd
from tests.support.parity import compare

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not GenuineDockerd.is_installed(), reason="dockerd is not installed"),
    # Messages are compared byte by byte, and those of older clients differ.
    needs_docker(28),
]


@pytest.fixture(scope="module")
def dockerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GenuineDockerd]:
    engine = GenuineDockerd(tmp_path_factory.mktemp("dockerd"))
    try:
        engine.start()
        _populate(engine)
        yield engine
    finally:
        engine.close()


def _populate(engine: GenuineDockerd) -> None:
    """A container that runs, one that was only made, one that ended."""
    plain = ["--network", "none"]
    engine.docker(
        "run", "-d", *plain, "--name", "box", "-l", "a=b", "-l", "c.d=e f", "-v", "/data",
        "-v", "vol1:/vol", "--expose", "80", "-e", "X=1", "--health-cmd", "true",
        "--health-interval", "1h", "busybox", "sh", "-c",
        "echo out; echo err >&2; touch /made; sleep 100000",
    )  # fmt: skip
    engine.docker(
        "create", *plain, "--name", "made", "busybox", "sh", "-c", 'echo "a long" line here'
    )
    engine.docker("run", *plain, "--name", "ended", "busybox", "true")
    engine.docker("volume", "create", "--label", "l=1", "vol2")
    engine.docker("tag", "busybox", "localhost:5000/team/busybox:1.0")
    wait_until(lambda: b"out" in engine.docker("logs", "box"), what="the container's output")
    (engine.root / "file").write_text("content\n")
    (engine.root / "env").write_text("# comment\n\nA=1\n  B=two words\nHOME\nNOT_SET_ANYWHERE\n")
    (engine.root / "tree" / "sub").mkdir(parents=True)
    (engine.root / "tree" / "sub" / "leaf").write_text("leaf")


READS = """\
ps
ps -a
ps -aq
ps -a --no-trunc
ps -as
ps -a -n 2
ps -l
ps -a --format json
ps -a --format '{{json .}}'
ps -a --format '{{.Names}}: {{.Image}} {{.Ports}} {{.Mounts}} {{.Networks}} {{.LocalVolumes}}'
ps -a --format '{{.Names}}\\t{{.Label "a"}}\\t{{.Size}}\\t{{.CreatedAt}}'
ps -a --format 'table {{.ID}}\\t{{.Names}}\\t{{.Label "c.d"}}\\t{{.CreatedAt}}\\t{{.State}}'
ps -a --format 'table {{upper .Names}} is\\t{{.LocalVolumes}}'
ps --format '{{if eq .Names "box"}}yes{{else}}no{{end}} {{truncate .ID 4}} {{len .ID}}'
ps --format '{{range $i, $w := split .Names "o"}}{{$i}}={{$w}} {{end}}{{pad .State 2 1}}|'
ps --format '{{- .Names -}} {{printf "%-6s|%5d" .State 7}} {{title .State}} {{join (split "a b" " ") "-"}}'
ps -a --filter status=exited --format '{{.Names}}'
ps -a -f name=ma -f label=nope
ps --filter foo
ps --filter foo=bar
ps -a --format '{{.Names'
ps --foo
ps -n
ps -n x
ps extra
ps --all=foo
images
images -q
images --no-trunc
images --digests
images busybox
images --format json
images --format '{{.Repository}}:{{.Tag}} {{.ID}} {{.CreatedAt}} {{.Size}} {{.Containers}}'
image ls -f dangling=true
history busybox
history --no-trunc --human=false busybox
history -q busybox
history --format json busybox
network ls
network ls -q
network ls --no-trunc
network ls --format json
network inspect none
network inspect -f '{{.Name}} {{.Driver}} {{.Options}}' none host
volume ls -q
volume ls
volume ls -f dangling=true
volume ls --format json
volume inspect vol2
volume inspect vol1 -f '{{.Name}} {{.Driver}}'
system df
system df -v
system df --format json
system df --format '{{.Type}}: {{.Size}} {{.Reclaimable}}'
inspect box
inspect box made
inspect -s box -f '{{.SizeRw}}'
inspect --type volume vol1
inspect --type container vol1
inspect vol1 busybox none
inspect -f json box
inspect -f '{{.Name}} {{.State.Status}} {{.State.Running}} {{.HostConfig.Memory}}' box made
inspect -f '{{json .Config.Cmd}} {{json .Config.Labels}} {{.Config.Env}}' box
inspect -f '{{.Config.Entrypoint}} {{.HostConfig.Binds}} {{.Config.Cmd}}' box made
inspect -f '{{range $k, $v := .Config.Labels}}{{$k}}={{$v}};{{end}} {{.Config.Labels}}' box
inspect -f '{{range .Mounts}}{{.Destination}} {{.RW}}, {{end}}' ended
inspect -f '{{range .Mounts}}x{{else}}none{{end}}{{with .Config.User}}u{{else}}nobody{{end}}' ended
inspect -f '{{index .Config.Labels "c.d"}}{{index .Config.Labels "no"}}|{{.Config.Labels.nope}}' box
inspect -f '{{index .Config.Cmd 0}} {{(index .Config.Cmd 1)}} {{len .Config.Cmd}}' box
inspect -f '{{if and .State.Running (not .State.Paused)}}up{{else if .State.Dead}}dead{{end}}' box made
inspect -f '{{$x := .Name}}{{$x}} {{println "a" 1}}{{print 1 2 "b"}} {{slice .Id 0 0}}' box
inspect -f '{{if gt .HostConfig.ShmSize 1000}}big{{end}} {{eq .State.Status "running" "exited"}}' box
inspect -f '{{/* comment */}}{{.Name | upper | printf "%q"}}' box
inspect -f '{{.State.Health.Status}} {{if .State.Health}}checked{{end}}' box
inspect -f '{{.Id' box
inspect -f '{{range .Config.Env}}{{if .}}{{break}}{{end}}{{end}}{{define "x"}}[{{.}}]{{end}}{{template "x" .Name}}' box
inspect -f '{{html "<a>&"}} {{js "a<b"}} {{urlquery "a b&c/d"}} {{block "x" .Name}}<{{.}}>{{end}}' box
inspect -f '{{printf "%v %d %q %t %x %X %o %b %c %e %g %5.2f|%-10s|%+d|%05d|%T %%" .Name 5 "q" true 255 255 8 5 65 1.5 2.5 3.14159 "l" 3 42 "s"}}' box
inspect -f '{{printf "%s" 5}} {{printf "%d" "a"}} {{printf "%d"}} {{printf "x" 1}} {{printf "%q" .Config.Cmd}}' box
inspect -f '{{print 0x1F}} {{1e3}} {{-5}} {{1_000}} {{.5}} {{1234567.5}} {{"a\\tb \\"c\\u00e9\\x41"}}' box
inspect -f '{{eq 1 1.0}}' box
inspect -f '{{.Nope}}' box
inspect -f '{{.State.Nope}}' box
inspect -f '{{index .Config.Cmd 10}}' box
inspect -f '{{slice .Id 0 500}}' box
inspect -f '{{and}}' box
inspect -f '{{nil}}' box
inspect -f '{{$y}}' box
inspect -f '{{if}}x{{end}}' box
inspect -f '{{if .Name}}x' box
inspect -f '{{"unterminated}}' box
inspect -f '{{.SizeRw}} {{.Config.StopTimeout}} {{.Config.Healthcheck}} {{.Config.ExposedPorts}} {{.HostConfig.Sysctls}}' made
ps -aq --format '{{.Names}}'
ps -a --format raw
images --format raw
images -q --format raw
images --format '{{json .}}'
images --format 'table {{.Repository}}\\t{{.VirtualSize}}\\t{{.Containers}}'
network ls --format raw
network ls --format 'table {{.Name}}\\t{{.IPv6}}\\t{{.Internal}}'
volume ls --format raw
info --format '{{.ClientInfo.Context}} {{.ClientInfo.Os}}'
context ls --format '{{json .}}'
context ls -q
context create 'a b'
context export nope
context update nope
context import x nope
stats --no-stream --format '{{.Container}} {{.Name}}' made
--foo ps
-X ps
port
tag busybox
image rm --platform linux/amd64 nosuch
image inspect --platform linux/amd64 busybox
volume prune -a -f
system prune -f --volumes --filter until=1h
container prune --filter foo
image inspect busybox
image inspect nosuch
container inspect nosuch
network inspect nosuch
volume inspect nosuch
inspect nosuch
top box
top box -o pid,comm
diff made
port box
port box 80
logs box
logs --tail 1 box
logs -n 0 box
logs --since 1s made
logs --since x box
logs nosuch
context ls
context show
context inspect
context use nope
context inspect nope
context rm nope
context create default
info --format '{{.Driver}} {{.NCPU}} {{json .SecurityOptions}}'
version --format '{{.Server.Version}} {{.Server.APIVersion}}'
stats --no-stream --format '{{.Name}} {{.PIDs}}' box made
events --since 1h --until 0s --filter container=ended --filter event=create
events --since 1h --until 0s --filter container=ended --format '{{.Type}} {{.Action}} {{.Actor.Attributes.name}}'
events --since 1h --until 0s --filter container=ended --filter event=die --format json
nosuch
container nosuch
-H unix:///nope context show
rm
run
rename a
save
cp a b
cp a:b c:d
cp box:/nosuch .
cp file box:/no/x
cp file box:/tmp/nodir/
cp box:/etc file
cp box:/etc/passwd nodir/
cp box:/etc/passwd no/x
attach nosuch
attach made
top nosuch
top made
wait nosuch
wait ended nosuch made
start nosuch
stop nosuch
kill nosuch
kill made
pause made
unpause box
restart nosuch
rename nosuch x
update box
update nosuch -m 64m
exec nosuch ls
exec made ls
exec -it box ls
rm nosuch nosuch2
rm -f nosuch
rm box
network rm -f nosuch
volume rm nosuch
volume rm vol1
image rm nosuch
image rm -f nosuch
tag nosuch foo
history nosuch
commit nosuch
export nosuch -o out.tar
save busybox -o /nope/x
load -i /nope
import /nope
stop -t x box
events --until 0s --since 1h --filter event=
container prune
volume prune
network prune
image prune
image prune -a
container prune -f --filter label=nope
"""

RUNS = """\
run --rm --network none busybox echo hi
run --rm --network none busybox sh -c 'echo out; echo err >&2; exit 7'
run --rm --network none busybox nosuch
run --rm --network none busybox /no/such
run --rm --network none busybox /etc/passwd
run --rm -i --network none busybox cat
run --rm -i --network none -a stdin -a stdout busybox sh -c 'cat; echo err >&2'
run --rm --network none -e A=b -e HOME -e NOT_SET_ANYWHERE --env-file env busybox sh -c 'echo $A $B $HOME'
run --rm --network none --entrypoint echo busybox a b
run --rm --network none --entrypoint '' busybox echo x
run --rm --network none -w /tmp -u 1:2 -h name busybox sh -c 'pwd; id; hostname'
run --rm --network none -m 32m --ulimit nofile=100:200 --tmpfs /t:size=1m --read-only busybox sh -c 'ulimit -n; df /t | tail -1; touch /x'
run --rm --network none --mount type=tmpfs,target=/t,tmpfs-size=1m busybox df /t
run --rm --network none -v vol2:/v:ro busybox touch /v/x
run --rm --network none -v ./tree:/t busybox find /t
run --rm --network none --mount type=bind,src=./tree,dst=/t,ro busybox touch /t/x
run --rm --network none --add-host db:10.1.2.3 --add-host six=[::1] busybox grep -E 'db|six' /etc/hosts
run --rm --network none --cap-drop ALL --security-opt no-new-privileges busybox grep CapEff /proc/self/status
run --pull never nosuchimg
run --pull foo busybox
run nosuchimg --foo
run --foo busybox
run --rm -it busybox true
run -d -a stdout busybox true
run --rm --restart always busybox true
run --rm --no-healthcheck --health-cmd x busybox true
run --name box busybox
run --name 'a b' busybox
run --rm --mount type=bind busybox true
run --rm --mount foo=bar busybox true
run --rm --mount type=bind,src=/nope,dst=/x busybox true
run --rm --ulimit foo busybox true
run --rm --ulimit nofile=10:5 busybox true
run --restart foo busybox true
run --restart on-failure:x busybox true
run --rm --device :: busybox true
run --rm --device /dev/nope busybox true
run --rm -p a:b busybox true
run --rm -p 99999:1 busybox true
run --rm -p 80-82:90-91 busybox true
run --rm -p 1.2.3:80:80 busybox true
run --rm -p 80/foo busybox true
run --rm --expose x busybox true
run --rm --env-file /nope busybox true
run --rm --security-opt seccomp=/nope busybox true
run --rm --security-opt foo busybox true
run --cidfile file busybox true
run --rm --network none --security-opt systempaths=unconfined busybox sh -c 'grep -c /proc/kcore /proc/self/mounts'
run --rm --network none --dns foo busybox true
run --rm --network none -v '' busybox true
run --rm --network none -v :/x busybox true
run --rm --network none --cpus -1 busybox true
run --rm --network none --log-opt foo busybox true
run --rm --restart on-failure:-1 busybox true
run --rm -a foo busybox true
run --rm -m abc busybox
run --rm --cpus abc busybox
run --rm --memory-swappiness 200 busybox
run --rm --health-interval abc busybox
run --rm --add-host foo busybox
run --rm --log-driver none --log-opt a=b busybox
run --rm --mac-address foo busybox
create --pull never nosuchimg
create --name box busybox
create -p 99999:1 busybox
exec box echo hi
exec box sh -c 'echo out; echo err >&2; exit 3'
exec -i box cat
exec -e A=b -w /tmp -u 1 box sh -c 'echo $A; pwd; id -u'
exec -d box true
exec box nosuch
exec box /etc/passwd
start ended
start -a ended
start -ai ended
start box ended nosuch
wait ended
kill -s 0 box
"""


@pytest.mark.parametrize("line", READS.splitlines())
def test_answers(dockerd: GenuineDockerd, line: str) -> None:
    compare(dockerd, line)


@pytest.mark.parametrize("line", RUNS.splitlines())
def test_runs(dockerd: GenuineDockerd, line: str) -> None:
    compare(dockerd, line, stdin=b"input\n")
