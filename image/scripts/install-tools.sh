#!/usr/bin/env bash
# Install the tools that build and run images without a daemon, and configure them for a machine that is a container.
# Debian or Ubuntu, as root (or with sudo). Idempotent. CI runs it through `make image-tools`.
set -euo pipefail

sudo=()
[ "$(id -u)" -eq 0 ] || sudo=(sudo)

packages=(buildah podman skopeo debootstrap)
# Docker's packages contain a runc; Debian's package would replace it and remove Docker.
command -v runc >/dev/null || packages+=(runc)
missing=()
for package in "${packages[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if [ "${#missing[@]}" -gt 0 ]; then
    "${sudo[@]}" apt-get update -qq
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

# Write a file only where there is none: an administrator's settings take precedence.
put() {
    if [ ! -e "$1" ]; then
        "${sudo[@]}" mkdir -p "$(dirname "$1")"
        "${sudo[@]}" tee "$1" >/dev/null
        echo "wrote $1"
    else
        cat >/dev/null
    fi
}

# overlay where overlay mounts work; in some containers they do not, and vfs makes a full copy of every layer.
storage_driver() {
    local probe driver=vfs
    probe=$("${sudo[@]}" mktemp -d /var/lib/llama-gguf-probe.XXXXXX)
    "${sudo[@]}" mkdir "$probe"/{lower,upper,work,merged}
    if "${sudo[@]}" mount -t overlay overlay \
        -o "lowerdir=$probe/lower,upperdir=$probe/upper,workdir=$probe/work" "$probe/merged" 2>/dev/null; then
        "${sudo[@]}" umount "$probe/merged"
        driver=overlay
    fi
    "${sudo[@]}" rm -rf "$probe"
    echo "$driver"
}

# crun and the default limits need privileges that a nested container lacks; these settings need none. A machine with
# systemd is assumed to be no container and keeps the configuration of its packages.
if [ ! -d /run/systemd/system ]; then
    put /etc/containers/storage.conf <<CONF
[storage]
driver = "$(storage_driver)"
runroot = "/run/containers/storage"
graphroot = "/var/lib/containers/storage"
CONF
    put /etc/containers/containers.conf <<'CONF'
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]

[engine]
runtime = "runc"
CONF
fi
