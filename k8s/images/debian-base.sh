#!/bin/sh
# Makes a base for the images from Debian's packages, where no registry has a Python image. It runs
# as root, and needs debootstrap.
#
#   sh k8s/images/debian-base.sh wanwu-base     # then: make images BASE=wanwu-base
#
# Packages are those of the suite's last point release.
# Environment: ENGINE (the first of docker, podman and buildah that works), SUITE (bookworm, whose
# Python is 3.11), MIRROR (debootstrap's own), TMPDIR (/tmp; it must take devices).
set -eu

[ $# -eq 1 ] || { sed -n '/^# /s/^# //p; /^#$/p; /^set/q' "$0" >&2; exit 2; }
engine=$(sh "$(dirname "$0")/engine.sh")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# dash runs the trap of EXIT at an exit alone.
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
root=$work/root

debootstrap --variant=minbase --include=ca-certificates,python3 "${SUITE:-bookworm}" "$root" ${MIRROR:+"$MIRROR"}
# What is this machine's.
rm -f "$root/etc/hostname" "$root/etc/resolv.conf"
# What a pod never reads; the licenses stay.
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/* "$root"/var/log/* "$root"/usr/share/info \
  "$root"/usr/share/locale "$root"/usr/share/man
find "$root/usr/share/doc" -type f ! -name copyright -delete
tar -C "$root" -cf "$work/root.tar" .
printf 'FROM scratch\nADD root.tar /\nCMD ["python3"]\n' >"$work/Dockerfile"
rm -rf "$root"
"$engine" build -t "$1" "$work"
