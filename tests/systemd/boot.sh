#!/bin/bash
# boot.sh WORK NAME SOURCE [nspawn options]: boots systemd over a copy-on-write view of this machine, with the service
# installed by its own installer. Runs in mount and pid namespaces of its own: nothing of it is left when it ends.
set -euo pipefail
work=$1 name=$2 source=$3
shift 3
root=$work/root

mount -t tmpfs -o mode=755,size=2g tmpfs "$work"
mkdir "$work/upper" "$work/scratch" "$root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$work/upper,workdir=$work/scratch" "$root"
umount -R /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir "/sys/fs/cgroup/$name"
echo 0 > "/sys/fs/cgroup/$name/cgroup.procs"

# A machine of its own, with accounts: alice and carol are members of the daemon's group, eve is not, bob has his own.
: > "$root/etc/machine-id"
rm -rf "$root/var/log/journal"
cat > "$root/etc/systemd/system/tests.target" <<'UNIT'
[Unit]
Requires=basic.target
Wants=dbus.socket systemd-logind.service systemd-user-sessions.service
After=basic.target
AllowIsolate=yes
UNIT
for account in alice:4201 bob:4202 carol:4203 eve:4204; do
    user=${account%:*} id=${account#*:}
    echo "$user:x:$id:$id::/home/$user:/bin/bash" >> "$root/etc/passwd"
    echo "$user:x:$id:" >> "$root/etc/group"
    echo "$user:*:19000:0:99999:7:::" >> "$root/etc/shadow"
    mkdir -p "$root/home/$user"
done
mkdir -p "$root/srv/source" "$root/var/lib/systemd/linger"
touch "$root/var/lib/systemd/linger/bob"

mount --bind "$source" "$root/srv/source"
mount --bind /dev "$root/dev"
mount -t proc proc "$root/proc"
install() {
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME="$2" PYTHON="$3" PIP_NO_INDEX=1 \
        PIP_FIND_LINKS=/srv/source/tests/wheels chroot "$root" /srv/source/systemd/install.sh "$1"
}
# A Python in a hurry: its virtual environments begin as a copy of what is installed, which pip then finds complete.
cat > "$root/srv/python-in-a-hurry" <<'PYTHON'
#!/bin/sh
[ "$1" != -m ] || { mkdir -p "$3" && exec cp -a /opt/mcp-multi-server/. "$3"; }
exec /usr/bin/python3 "$@"
PYTHON
chmod 755 "$root/srv/python-in-a-hurry"
install system /root /usr/bin/python3
install user /home/bob /srv/python-in-a-hurry
umount "$root/proc" "$root/dev" "$root/srv/source"
for user in alice bob carol eve; do chroot "$root" chown -R "$user:" "/home/$user"; done
for user in alice carol; do chroot "$root" usermod -aG mcp-multi-server "$user"; done

echo booting
exec systemd-nspawn --quiet --directory="$root" --machine="$name" --register=no --keep-unit --private-network \
    --console=pipe --kill-signal=SIGRTMIN+3 "$@" \
    -b systemd.unit=tests.target systemd.show_status=0 systemd.log_target=journal
