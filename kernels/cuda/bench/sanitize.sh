#!/bin/sh
# Runs the checks of bench.py under compute-sanitizer's four tools. usage: sanitize.sh <folder>
for tool in memcheck racecheck initcheck synccheck; do
  echo "== $tool"
  compute-sanitizer --tool "$tool" --kernel-regex kns=i4_ python3 "$(dirname "$0")/bench.py" "$1" --check --shapes "" || exit
done
