#!/bin/sh
# Prints what builds images here: ENGINE, or the first of docker, podman and buildah that works.
set -eu

# Where only a client is installed, `info` fails.
works() { command -v "$1" >/dev/null && "$1" info >/dev/null 2>&1; }

for engine in ${ENGINE:-docker podman buildah}; do
  if works "$engine"; then
    printf '%s\n' "$engine"
    exit
  fi
done
printf '%s: none works here (its command info fails); install docker, podman or buildah, or start its daemon%s\n' \
  "${ENGINE:-docker, podman, buildah}" "${ENGINE:+, or leave ENGINE out}" >&2
exit 2
