#!/bin/bash
# Starts Triton, the arguments, with TensorRT's engines. ONNX Runtime writes an engine in place, and
# one that is cut short makes every later load fail. So Triton works in a folder of its own pod, which
# begins with the whole engines among those that are kept. Once it is ready, those that it has made
# are kept too: each by one rename, under a name that says what must be in it, SHA256.NAME.
set -euo pipefail
engines=$WANWU_ENGINES kept=$WANWU_ENGINES_KEPT
port=${WANWU_HTTP_PORT:-8000} every=${WANWU_ENGINES_EVERY_S:-30}
printf -v sum '%64s' ''
sum=${sum// /[0-9a-f]}
declare -A took=()

say() { echo "engines: $*" >&2; }

sha256() { sha256sum <"$1" | cut -d ' ' -f 1; }

take() {
  rm -rf "$engines"
  mkdir -p "$engines" "$kept" || return 1
  # Of pods that were killed while they wrote.
  find "$kept" -maxdepth 1 -name '.part.*' -mmin +60 -delete || true
  local file base name found
  for file in "$kept"/$sum.*; do
    # Another pod may have replaced it meanwhile.
    [ -f "$file" ] || continue
    base=${file##*/}
    name=${base#*.}
    found=$(sha256 "$file") || continue
    if [ "$found" != "${base%%.*}" ]; then
      say "$file is not what its name says, cut short or changed: thrown away"
      rm -f "$file"
    elif [ ! -e "$engines/$name" ]; then
      if cp "$file" "$engines/$name"; then took[$name]=$file; else rm -f "$engines/$name"; fi
    else
      rm -f "$file" # two pods kept theirs at once
    fi
  done
}

keep() {
  local file name found part other
  for file in "$engines"/*; do
    [ -f "$file" ] || continue
    name=${file##*/} found=$(sha256 "$file")
    [ ! -e "$kept/$found.$name" ] || continue
    # Another pod may have kept its own meanwhile; two that do so at once leave two, both whole.
    for other in "$kept"/$sum."$name"; do
      [ ! -e "$other" ] || [ "$other" = "${took[$name]:-}" ] || continue 2
    done
    part=$kept/.part.${HOSTNAME:-pod}.$$.$name
    if ! cp "$file" "$part" || [ "$(sha256 "$part")" != "$found" ]; then
      say "$file cannot be written to $kept: is it full?"
      rm -f "$part"
      return 1
    fi
    mv "$part" "$kept/$found.$name" || return 1
    say "$name is kept in $kept"
    # Triton made this one although it had another, which did not fit.
    [ -z "${took[$name]:-}" ] || rm -f "${took[$name]}"
    took[$name]=$kept/$found.$name
  done
}

ready() (
  exec 3<>"/dev/tcp/${WANWU_HTTP_HOST:-127.0.0.1}/$port"
  printf 'GET /v2/health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
  read -r -t 5 _ status _ <&3
  [ "$status" = 200 ]
) 2>/dev/null

# Only engines that have not changed for a while and with which Triton is ready are known to be whole.
keep_those_made() {
  local now before='' done=''
  # Ends with Triton, which has this process's number from `exec` on.
  while sleep "$every" && kill -0 $$ 2>/dev/null; do
    now=$(stat -c '%n %s %Y' "$engines"/* 2>/dev/null) || continue
    if [ "$now" = "$before" ] && [ "$now" != "$done" ] && ready && keep; then done=$now; fi
    before=$now
  done
}

take || { say "$kept cannot be read and written: check the claim of triton.engineCache"; exit 1; }
keep_those_made &
exec "$@"
