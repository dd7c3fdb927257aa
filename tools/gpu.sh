#!/usr/bin/env bash
# Training on a machine with a GPU that is lent for minutes at a time, reached through a copy of this checkout alone.
#
#   here:   tools/gpu.sh prepare RECIPE               packs the recipe's data and the few packages missing there into .gpu/
#   there:  tools/gpu.sh keep                         of several journeys: keeps what this one brought
#   there:  tools/gpu.sh train RECIPE MINUTES         one call: trains or goes on, stops in time, hands checkpoints over
#   here:   tools/gpu.sh collect FOLDER RECIPE        joins what came back into runs/RECIPE, from where --resume goes on
#
# MINUTES is the budget of the whole run, over all calls: the learning rate falls over it. Variables, with their defaults:
#
#   JOURNEYS=1         calls that the data may take to get there: the pack is cut into .gpu, .gpu-1, .gpu-2, ...
#   CALL_SECONDS=540   a call stops after so many seconds (the machine allows 600)
#   HAND_OVER=120      seconds between two checkpoints handed over
#   OUT                folder that comes back (given there)
#   PYTHON=python3  DEVICE=cuda  BOX=.gpu  PACK=.gpu/pack.zip  SITE=.gpu/site  RUNS=runs
#
# Limits of the transfer: 64 MiB there in all; 8 files of 16 MiB, 64 MiB in all, back. Hence the pieces; and of a checkpoint
# beyond BACK_MIB the averaged weights alone come back (tools/strip_checkpoint.py).
set -euo pipefail

TRAVEL_MIB=63
BACK_MIB=${BACK_MIB:-60}
PIECE=15m
JOURNEYS=${JOURNEYS:-1}
PYTHON=${PYTHON:-python3}
DEVICE=${DEVICE:-cuda}
BOX=${BOX:-.gpu}
PACK=${PACK:-$BOX/pack.zip}
SITE=${SITE:-$BOX/site}
RUNS=${RUNS:-runs}
KEPT=$RUNS/kept
CALL_SECONDS=${CALL_SECONDS:-540}
HAND_OVER=${HAND_OVER:-120}

run_folder() { echo "$RUNS/$(basename "$1" .toml)"; }

# exec: a signal to the background job then reaches Python itself
eozip_train() {
  export PYTHONPATH="src:$SITE${PYTHONPATH:+:$PYTHONPATH}"
  exec "$PYTHON" -m eozip_lab train "$@"
}

# --- here, beforehand ---

# Packages that the machine lacks, for its Python 3.12; of imagecodecs only what reads JPEG XL: 9 of 90 MB.
fetch_site() {
  local wheels
  wheels=$(mktemp -d)
  "$PYTHON" -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --platform manylinux_2_28_x86_64 \
    --platform manylinux2014_x86_64 --dest "$wheels" constriction google-crc32c imagecodecs
  mkdir -p "$SITE"
  for wheel in "$wheels"/constriction* "$wheels"/google_crc32c*; do unzip -q -o "$wheel" -d "$SITE"; done
  unzip -q -o "$wheels"/imagecodecs* 'imagecodecs/*.py' 'imagecodecs/_shared.*' 'imagecodecs/_jpegxl.*' \
    'imagecodecs.libs/libjxl*' 'imagecodecs.libs/libbrotli*' 'imagecodecs.libs/liblcms2*' -d "$SITE"
  rm -r "$wheels"
}

bytes_of() { du -cb "$@" | tail -n 1 | cut -f 1; }

# What travels: tracked files, and untracked ones that git does not ignore.
tree_bytes() {
  local total=0 size file
  while IFS= read -r -d '' file; do
    size=$(stat -c %s "$file" 2>/dev/null || echo 0)
    total=$((total + size))
  done < <(git ls-files -z --cached --others --exclude-standard)
  echo "$total"
}

# The pack in pieces, each as large as its journey has room for.
cut_up() {
  local first=$1 further=$2 piece k
  sha256sum <"$PACK" | cut -d ' ' -f 1 >"$BOX/pack.sha256"
  tail -c "+$((first + 1))" "$PACK" | split -b "$further" -d -a 1 --numeric-suffixes=1 - "$BOX/rest-"
  for piece in "$BOX"/rest-*; do
    [ -e "$piece" ] || break # all of it fits into the first
    k=${piece##*-}
    mkdir -p "$BOX-$k"
    mv "$piece" "$BOX-$k/pack.part-$k"
  done
  truncate -s "<$first" "$PACK"
  mv "$PACK" "$BOX/pack.part-0"
}

prepare() {
  local recipe=$1 tree first further
  ((JOURNEYS >= 1 && JOURNEYS <= 9)) || { echo "JOURNEYS: expected 1 to 9, got $JOURNEYS" >&2; exit 2; }
  mkdir -p .git/info
  grep -qxF "/$BOX*/" .git/info/exclude 2>/dev/null || echo "/$BOX*/" >>.git/info/exclude
  rm -rf "$BOX" "$BOX"-[0-9]
  mkdir -p "$BOX"
  fetch_site
  tree=$(tree_bytes)
  further=$((TRAVEL_MIB - tree / 1048576 - 2))
  first=$((TRAVEL_MIB - (tree + $(bytes_of "$SITE")) / 1048576 - 2))
  echo "room for the pack: $first MiB, and $further MiB in each further journey" >&2
  if ((first < 1)); then
    echo "tracked files ($((tree / 1048576)) MiB) leave no room. Take weights that $recipe does not name out of src/eozip/weights while" \
      "the machine is lent (git restore src/eozip/weights brings them back), and prepare again." >&2
    exit 1
  fi
  # not eozip_train: what lies in SITE is for the Python there
  PYTHONPATH="src${PYTHONPATH:+:$PYTHONPATH}" "$PYTHON" -m eozip_lab train "$recipe" --pack "$PACK" \
    --limit-mib $((first + (JOURNEYS - 1) * further))
  if ((JOURNEYS > 1)); then
    cut_up $((first * 1048576)) $((further * 1048576))
    for folder in "$BOX" "$BOX"-[0-9]; do echo "carry: $folder    command: bash tools/gpu.sh keep" >&2; done
  fi
  echo "carry: $BOX    command: bash tools/gpu.sh train $recipe MINUTES" >&2
}

# --- there ---

keep() {
  local folder
  mkdir -p "$KEPT"
  for folder in "$BOX" "$BOX"-[0-9]; do
    if [ -d "$folder" ]; then find "$folder" -maxdepth 1 -name 'pack.[ps]*' -exec cp {} "$KEPT/" \;; fi
  done
  ls -l "$KEPT"
}

# Several journeys: the pieces become one pack again.
find_pack() {
  if [ -f "$PACK" ]; then return 0; fi
  keep >/dev/null
  if [ ! -f "$KEPT/pack.zip" ]; then
    cat "$KEPT"/pack.part-* >"$KEPT/pack.zip.part"
    if [ "$(sha256sum <"$KEPT/pack.zip.part" | cut -d ' ' -f 1)" != "$(cat "$KEPT/pack.sha256")" ]; then
      echo "$KEPT: a piece of the pack is missing or of another one; carry $BOX, $BOX-1, ... and call: tools/gpu.sh keep" >&2
      exit 1
    fi
    mv "$KEPT/pack.zip.part" "$KEPT/pack.zip"
  fi
  PACK=$KEPT/pack.zip
}

# Pieces under other names first: a call that is cut off leaves either the old checkpoint or the new one.
hand_over() {
  local folder=$1 fresh piece
  [ -f "$folder/checkpoint.pt" ] || return 0
  fresh=$(mktemp -d)
  if [ "$(stat -c %s "$folder/checkpoint.pt")" -le $((BACK_MIB * 1048576)) ]; then
    cp "$folder/checkpoint.pt" "$fresh/whole"
  else
    (export PYTHONPATH="src:$SITE${PYTHONPATH:+:$PYTHONPATH}" && exec "$PYTHON" tools/strip_checkpoint.py "$folder/checkpoint.pt" "$fresh/whole")
  fi
  (cd "$fresh" && sha256sum <whole | cut -d ' ' -f 1 >checkpoint.sha256 && split -b "$PIECE" -d whole checkpoint.part- && rm whole)
  cp "$folder/log.jsonl" "$fresh/" 2>/dev/null || true
  cp "$folder/curve.png" "$fresh/" 2>/dev/null || true
  cp "$fresh"/* "$OUT/"
  for piece in "$OUT"/checkpoint.part-*; do # a smaller checkpoint has fewer of them
    [ -e "$fresh/$(basename "$piece")" ] || rm "$piece"
  done
  rm -r "$fresh"
}

train() {
  local recipe=$1 minutes=$2 folder resume=() trainer status=0 waited=0
  : "${OUT:?expected OUT, the folder that comes back}"
  folder=$(run_folder "$recipe")
  find_pack
  if [ -f "$folder/checkpoint.pt" ]; then resume=(--resume); fi
  eozip_train "$recipe" --data "$PACK" --minutes "$minutes" --out "$folder" --device "$DEVICE" "${resume[@]}" &
  trainer=$!
  trap 'CALL_SECONDS=0' TERM INT # stop early, and hand over all the same
  for ((; waited < CALL_SECONDS; waited++)); do
    kill -0 "$trainer" 2>/dev/null || break
    sleep 1
    if ((waited % HAND_OVER == HAND_OVER - 1)); then hand_over "$folder"; fi
  done
  kill -TERM "$trainer" 2>/dev/null || true # stops after the step, with a checkpoint
  wait "$trainer" || status=$?
  trap - TERM INT
  hand_over "$folder"
  if [ "$status" -eq 130 ]; then echo "stopped in time; the next call goes on"; return 0; fi
  return "$status"
}

# --- here, afterwards ---

collect() {
  local from=$1 folder
  folder=$(run_folder "$2")
  mkdir -p "$folder"
  cat "$from"/checkpoint.part-* >"$folder/checkpoint.pt.part"
  if [ "$(sha256sum <"$folder/checkpoint.pt.part" | cut -d ' ' -f 1)" != "$(cat "$from/checkpoint.sha256")" ]; then
    echo "$from: the pieces are not those of one checkpoint; take those of the call before" >&2
    exit 1
  fi
  mv "$folder/checkpoint.pt.part" "$folder/checkpoint.pt"
  cp "$from/log.jsonl" "$folder/"
  echo "$folder: now  eozip train $2 --minutes MINUTES --resume --other-recipe --out $folder"
}

case "${1:-}" in
  keep) keep ;;
  prepare) prepare "${2:?recipe}" ;;
  train) train "${2:?recipe}" "${3:?minutes}" ;;
  collect) collect "${2:?folder}" "${3:?recipe}" ;;
  *) sed -n '2,20p' "$0" && exit 2 ;;
esac
