#!/bin/sh
# Runs the small checks of bench.py under compute-sanitizer's tools. usage: sanitize.sh <folder>
# initcheck sees only what instrumented kernels write, so it has to instrument PyTorch's too.
for tool in memcheck racecheck synccheck initcheck; do
  echo "== $tool"
  filter=--kernel-name=kns=i4_
  [ "$tool" = initcheck ] && filter=
  compute-sanitizer --tool "$tool" $filter python3 "$(dirname "$0")/bench.py" "$1" --check --quick --shapes "" || exit
done
