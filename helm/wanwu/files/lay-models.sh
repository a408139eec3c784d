#!/bin/sh
# Lays out the folder that Triton serves: the repository's models by links, for it is read-only, and
# beside each the config that the chart rendered. Runs anew in each pod.
set -eu
from=$WANWU_REPOSITORY configs=$WANWU_CONFIGS to=$WANWU_MODELS

fail() { echo "$*" >&2; exit 1; }

[ -f "$from/manifest.json" ] || fail "$from holds no exported model (no manifest.json):" \
  "run \`wanwu export\` into it, and set the field of \`repository\` that names its folder"

if [ -n "${WANWU_MANIFEST_SHA256:-}" ]; then
  found=$(sha256sum <"$from/manifest.json" | cut -d ' ' -f 1)
  [ "$found" = "$WANWU_MANIFEST_SHA256" ] || fail "$from/manifest.json has SHA-256 $found and" \
    "model.manifestSha256 is $WANWU_MANIFEST_SHA256: run helm upgrade with the values.yaml that" \
    "lies beside these models, or give the repository that the values were written for"
fi

rm -rf "${to:?}"/*
for model in "$from"/*/; do
  name=$(basename "$model")
  case $name in
    image_encoder | text_encoder) config=$name ;;
    label_bank*) config=label_bank ;;
    *) echo "$name is no model of Wanwu and is left out"; continue ;;
  esac
  mkdir -p "$to/$name/configs"
  cp "$model/config.pbtxt" "$to/$name/"
  cp "$model"/configs/*.pbtxt "$configs/$config.pbtxt" "$to/$name/configs/"
  mv "$to/$name/configs/$config.pbtxt" "$to/$name/configs/chart.pbtxt"
  for version in "$model"[1-9]*/; do
    ln -s "${version%/}" "$to/$name/$(basename "$version")"
  done
done
[ -d "$to/image_encoder" ] && [ -d "$to/text_encoder" ] && [ -d "$to/label_bank" ] ||
  fail "$from lacks image_encoder, text_encoder or label_bank: export the model again"
