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
    local column manager missing=() group probe apt dnf
    if command -v apt-get >/dev/null 2>&1; then
        manager=apt
    elif command -v dnf >/dev/null 2>&1; then
        manager=dnf
    else
        fail "neither apt-get nor dnf is here: install by hand what scripts/packages lists"
    fi
    while read -r group probe apt dnf; do
        case " $* " in *" $group "*) ;; *) continue ;; esac
        have "$probe" && continue
        column=$apt
        [ "$manager" = apt ] || column=$dnf
        [ "$column" = - ] || missing+=("$column")
    done < <(grep -v '^#' "$top/scripts/packages")
    [ ${#missing[@]} = 0 ] && return
    say "installing ${missing[*]}"
    if [ "$manager" = apt ]; then
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -qq || true
        apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    else
        dnf install -y -q "${missing[@]}"
    fi
}

# have PROBE: a program on PATH, a file (/…), or a module of the system's Python (py:NAME).
have() {
    case "$1" in
    py:*) "$(find_python)" -c "import ${1#py:}" 2>/dev/null ;;
    /*) compgen -G "$1" >/dev/null ;;
    *) command -v "$1" >/dev/null 2>&1 ;;
    esac
}

# make_venv EXTRA STAMP: the package and its locked dependencies, unless they are there.
make_venv() {
    local extra=$1 stamp="$venv/.installed-$1" python wanted
    wanted=$(cat "$top/pyproject.toml" "$top/requirements.lock" "$top/requirements-dev.lock" | sha256sum)
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
        make_launcher
        return
    fi
    python=$(find_python)
    say "making the virtual environment $venv"
    [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
    local lock="$top/requirements.lock"
    [ "$extra" = dev ] && lock="$top/requirements-dev.lock"
    "$venv/bin/python" -m pip install -q --disable-pip-version-check -r "$lock"
    "$venv/bin/python" -m pip install -q --disable-pip-version-check --no-deps -e "$top"
    make_launcher
    printf '%s' "$wanted" >"$stamp"
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
