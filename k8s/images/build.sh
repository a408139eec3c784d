#!/bin/sh
# Builds the images of Wanwu from wheels, without internet, in an unpacked bundle.
# In a checkout, `make images` collects the wheels and then runs this.
#
#   BASE=registry.example.internal/python@sha256:… sh k8s/images/build.sh gateway loadtest
#
# The images are named REGISTRY/wanwu/NAME:TAG, as the chart and the Jobs of k8s name them.
# Environment: ENGINE (the first of docker, podman and buildah that works), REGISTRY (none),
# TAG (Wanwu's version), BASE (the Dockerfile's Python), CONTEXT (the bundle: wheels, requirements).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
context=${CONTEXT:-$here/../..}

[ $# -ge 1 ] || { sed -n '/^# /s/^# //p; /^#$/p; /^set/q' "$0" >&2; exit 2; }

engine=$(sh "$here/engine.sh")
for image in "$@"; do
  [ -f "$context/requirements/$image.txt" ] || {
    printf '%s has no requirements/%s.txt; run: make images IMAGES=%s, or unpack a bundle of: make bundle IMAGES=%s\n' \
      "$context" "$image" "$image" "$image" >&2
    exit 2
  }
done

version=$(basename "$context"/wheels/wanwu-*.whl | cut -d - -f 2)
for image in "$@"; do
  name=${REGISTRY:+$REGISTRY/}wanwu/$image:${TAG:-$version}
  "$engine" build -f "$here/Dockerfile" -t "$name" ${BASE:+--build-arg "BASE=$BASE"} \
    --build-arg "IMAGE=$image" --build-arg "VERSION=$version" "$context"
  printf 'built %s\n' "$name"
done
