# Set-up that scripts/run, scripts/test and scripts/bench share. Source it; it needs bash.
#
# Packages are named once, in scripts/packages: a column a package manager.

set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv="$top/.venv"

say() { printf '\033[1m==> %s\033[0m\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

need_root() {
    [ "$(id -u)" = 0 ] || fail "run this as root: it makes namespaces, mounts and firewall rules"
}

find_python() {
    local candidate
    for candidate in /usr/bin/python3 python3 python3.13 python3.12 python3.11; do
        if command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    fail "Python 3.11 or newer is needed: install it and run this again"
}

# install_packages GROUP…: what scripts/packages lists for the groups and is not there yet.
install_packages() {
    local column manager missing=() group probe apt dnf log
    if command -v apt-get >/dev/null 2>&1; then
        manager=apt
    elif command -v dnf >/dev/null 2>&1; then
        manager=dnf
    else
        fail "neither apt-get nor dnf is here: install by hand what scripts/packages lists"
    fi
    while read -r group probe apt dnf; do
        case " $* " in *" $group "*) ;; *) continue ;; esac
        column=$apt
        [ "$manager" = apt ] || column=$dnf
        case " - ${missing[*]} " in *" $column "*) continue ;; esac
        have "$probe" || missing+=("$column")
    done < <(grep -v '^#' "$top/scripts/packages")
    [ ${#missing[@]} = 0 ] && return
    say "installing ${missing[*]}"
    log=$(mktemp)
    if ! "install_by_$manager" "${missing[@]}" >"$log" 2>&1; then
        tail -n 15 "$log" >&2
        rm -f "$log"
        fail "these packages could not be installed: does this host reach its package mirror?"
    fi
    rm -f "$log"
}

# A service that comes along, as dockerd does for the tests, is neither started nor enabled.
install_by_apt() {
    local policy=/usr/sbin/policy-rc.d name status=0
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq || true
    if [ -e "$policy" ]; then
        policy=
    else
        # Not before the file is ours to remove, whatever ends this.
        trap "rm -f $policy" EXIT
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    apt-get install -y -q --no-install-recommends -o DPkg::Lock::Timeout=300 "$@" || status=$?
    [ -z "$policy" ] || rm -f "$policy"
    [ -d /run/systemd/system ] || return $status
    for name; do
        case "$name" in
        docker.io) systemctl disable -q docker.service docker.socket containerd.service || true ;;
        firewalld) systemctl disable -q firewalld.service || true ;;
        docker-registry) systemctl disable -q docker-registry.service || true ;;
        esac
    done
    return $status
}

install_by_dnf() {
    dnf install -y -q "$@"
}

# have PROBE: a program on PATH, a file (/…), or a module of the system's Python (py:NAME).
have() {
    case "$1" in
    py:*) "$(find_python)" -c "import ${1#py:}" 2>/dev/null ;;
    /*) compgen -G "$1" >/dev/null ;;
    *) command -v "$1" >/dev/null 2>&1 ;;
    esac
}

# make_venv EXTRA: the package and its locked dependencies, unless they are there.
make_venv() {
    local extra=$1 stamp="$venv/.installed-$1" lock="$top/requirements.lock" python place wanted
    [ "$extra" = dev ] && lock="$top/requirements-dev.lock"
    python=$(find_python)
    place="$top $("$python" -V)"
    wanted=$({ echo "$place" && cat "$top/pyproject.toml" "$top"/requirements*.lock; } | sha256sum)
    if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
        make_launcher
        return
    fi
    say "making the virtual environment $venv"
    # One that is half made, was moved or is of another Python cannot be mended.
    if [ "$(cat "$venv/.place" 2>/dev/null)" != "$place" ]; then
        "$python" -m venv --clear "$venv" || fail "$python cannot make a virtual environment"
        echo "$place" >"$venv/.place"
    fi
    pip_install -r "$lock"
    pip_install --no-deps -e "$top"
    make_launcher
    printf '%s' "$wanted" >"$stamp"
}

pip_install() {
    "$venv/bin/python" -m pip install -q --disable-pip-version-check --root-user-action ignore "$@" ||
        fail "pip could not install what $top/pyproject.toml needs: does this host reach PyPI?"
}

# The client needs nothing but itself and the standard library. Without site and the imports of the
# script that pip writes it starts in a third of the time; without PYTHON* variables and the current
# directory on its path nobody slips it a module.
make_launcher() {
    local script="$venv/bin/estiba" wanted
    # The kernel splits the first line at spaces, and cuts it.
    case "$venv" in *[[:space:]]*) return 0 ;; esac
    [ ${#venv} -lt 100 ] || return 0
    wanted="#!$venv/bin/python -IS
import sys

sys.path.insert(0, '$top/src')
from estiba.cli.main import main

main()"
    case "$top" in *[\'\\]*) return 0 ;; esac
    [ "$(cat "$script" 2>/dev/null)" = "$wanted" ] && return
    printf '%s\n' "$wanted" >"$script.new"
    chmod 755 "$script.new"
    mv "$script.new" "$script"
}

# crun 1.8 refuses hosts where version 1 and 2 of cgroups are mounted and version 2 holds a
# controller. Mounting that controller as version 1, as Debian's cgroupfs-mount does, cures it.
prepare_cgroups() {
    local unified=/sys/fs/cgroup/unified controller
    [ -f "$unified/cgroup.controllers" ] || return 0
    for controller in $(cat "$unified/cgroup.controllers"); do
        mountpoint -q "/sys/fs/cgroup/$controller" && continue
        mkdir -p "/sys/fs/cgroup/$controller"
        mount -t cgroup -o "$controller" cgroup "/sys/fs/cgroup/$controller" 2>/dev/null ||
            echo "note: cannot mount the cgroup controller $controller; use --runtime runc" >&2
    done
}
