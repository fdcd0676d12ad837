#!/usr/bin/env bash
# Bootstrap a Debian root filesystem as a base image, for a machine that reaches a Debian mirror but no registry.
# The image is tagged localhost/llama-gguf-base:SUITE; build_image.py uses it (`--base auto` or `local`).
#   image/scripts/base-image.sh [SUITE] [MIRROR]
set -euo pipefail

suite=${1:-bookworm}
mirror=${2:-http://deb.debian.org/debian}
name=localhost/llama-gguf-base:$suite

if buildah inspect --type image "$name" >/dev/null 2>&1; then
    echo "$name exists already (remove it with: buildah rmi $name)"
    exit 0
fi

work=$(mktemp -d "${TMPDIR:-/var/tmp}/base-image.XXXXXX")
container=
finish() {
    [ -z "$container" ] || buildah rm "$container" >/dev/null
    rm -rf "$work"
}
trap finish EXIT

echo "bootstrapping Debian $suite from $mirror (about half a minute)"
debootstrap --variant=minbase --include=ca-certificates "$suite" "$work/rootfs" "$mirror" >"$work/log" 2>&1 || {
    tail -n 20 "$work/log" >&2
    exit 1
}

cat >"$work/rootfs/etc/apt/sources.list" <<LIST
deb $mirror $suite main
deb $mirror $suite-updates main
deb $mirror-security $suite-security main
LIST

# What Debian's slim image omits too: package lists, caches, documentation, translations.
rm -rf "$work"/rootfs/var/lib/apt/lists/* "$work"/rootfs/var/cache/apt/* "$work"/rootfs/var/cache/debconf/*-old \
    "$work"/rootfs/var/log/* "$work"/rootfs/usr/share/{doc,man,info,locale,lintian,linda,groff}/*
# The container runtime creates device nodes; copying them needs privileges that a nested container lacks.
find "$work/rootfs/dev" -mindepth 1 -delete

container=$(buildah from scratch)
buildah add -q "$container" "$work/rootfs" / >/dev/null
buildah config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin --cmd bash "$container"
buildah commit -q "$container" "$name" >/dev/null
echo "$name"
