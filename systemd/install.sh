#!/bin/sh
# Installs the daemon as a service, or upgrades it: `install.sh system` (as root) or `install.sh user`.
# The programs go into a new directory, which takes the place of the old one when it is complete.
set -eu
umask 022
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-/usr/bin/python3}

die() { echo "install.sh: $*" >&2; exit 1; }

case ${1:-} in
system)
    [ "$(id -u)" = 0 ] || die "the system service is root's to install"
    case $(readlink -f "$python") in
    /home/*|/root/*|/run/user/*) die "the service sees no home directories (ProtectHome), and $python is in one" ;;
    esac
    prefix=/opt/mcp-multi-server units=/etc/systemd/system config=/etc/mcp-multi-server manager=
    bin=/usr/local/bin
    ;;
user)
    prefix=$HOME/.local/share/mcp-multi-server units=${XDG_CONFIG_HOME:-$HOME/.config}/systemd/user
    config=${XDG_CONFIG_HOME:-$HOME/.config}/mcp-multi-server manager=--user
    bin=$HOME/.local/bin
    ;;
*)
    echo "usage: install.sh system|user" >&2
    exit 2
    ;;
esac

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "Python 3.11 or newer is needed (PYTHON=...)"
"$python" -c 'import ensurepip' || die "the venv module is missing: apt-get install python3-venv"

fresh=$prefix-$(date +%Y%m%d-%H%M%S)
previous=$(readlink -f "$prefix" || true)
trap 'rm -rf "$fresh"' EXIT
mkdir -p "$(dirname "$prefix")"
"$python" -m venv "$fresh"
pip() { "$fresh/bin/python" -m pip install -q --disable-pip-version-check "$@"; }
pip --require-hashes -r "$here/../requirements.lock"
pip --no-deps --no-build-isolation "$here/.."
version=$("$fresh/bin/mcp-multi-server" --version)
ln -sfn "$fresh" "$prefix.new"
mv -T "$prefix.new" "$prefix"
trap - EXIT
for old in "$prefix"-*; do  # the one before stays: the daemon may still run from it
    [ "$old" = "$fresh" ] || [ "$old" = "$previous" ] || rm -rf "$old"
done

if [ "$1" = system ]; then
    install -D -m 644 -t /etc/sysusers.d "$here/sysusers.d/mcp-multi-server.conf"
    install -D -m 644 -t /etc/tmpfiles.d "$here/tmpfiles.d/mcp-multi-server.conf"
    install -D -m 644 -t "$units" "$here/mcp-multi-server.service" "$here/mcp-multi-server.socket"
    systemd-sysusers mcp-multi-server.conf
    first=$here/first-config.json
else
    install -D -m 644 -t "$units" "$here/user/mcp-multi-server.service" "$here/user/mcp-multi-server.socket"
    first=$here/user/first-config.json
fi
mkdir -p "$bin"
[ -e "$bin/mcp-multi-server" ] || ln -sfn "$prefix/bin/mcp-multi-server" "$bin/mcp-multi-server"
[ -e "$config/mcp_servers.json" ] || install -D -m 600 "$first" "$config/mcp_servers.json"
[ "$1" = user ] || systemd-tmpfiles --create mcp-multi-server.conf
if [ -d /run/systemd/system ]; then
    systemctl $manager daemon-reload
    systemctl $manager try-restart mcp-multi-server.service
fi
echo "$version is in $prefix, its config is $config/mcp_servers.json"
echo "systemctl${manager:+ $manager} enable --now mcp-multi-server"
