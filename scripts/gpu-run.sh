#!/bin/sh
# Runs fireq's GPU tests, then its benchmarks: run.sh [test | bench | attention | sanitize] [options of the tests or the benchmarks].
# sanitize takes a pattern of tests, then options of compute-sanitizer (another one than the PATH's: COMPUTE_SANITIZER=FILE).
# scripts/gpu-bundle.mjs puts it beside what it runs.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
what=${1:-all}
[ $# -eq 0 ] || shift

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [ -f "$here/node.xz" ]; then
  if command -v xz >/dev/null; then
    xz -dc "$here/node.xz" >"$work/node"
  elif command -v python3 >/dev/null; then
    python3 -c 'import lzma, shutil, sys; shutil.copyfileobj(lzma.open(sys.argv[1]), open(sys.argv[2], "wb"))' \
      "$here/node.xz" "$work/node"
  else
    echo 'run.sh needs xz or python3 to unpack node' >&2
    exit 1
  fi
  chmod +x "$work/node"
  node=$work/node
else
  node=node
fi

export FIREQ_ADDON="$here/fireq.node"
export FIREQ_COMMIT="${FIREQ_COMMIT:-$(cat "$here/commit")}"
bench() {
  "$node" "$here/bench.mjs"
  "$node" "$here/repro.mjs" bench gemm "$@"
}
attention() {
  "$node" "$here/repro.mjs" bench attention "$@"
}
case $what in
  test) "$node" --test-reporter=spec "$@" "$here/tests.mjs" ;;
  bench) bench "$@" ;;
  attention) attention "$@" ;;
  all)
    "$node" --test-reporter=spec "$here/tests.mjs"
    bench
    attention
    ;;
  sanitize)
    pattern=${1:-small:}
    [ $# -eq 0 ] || shift
    sanitizer=${COMPUTE_SANITIZER:-compute-sanitizer}
    "$sanitizer" --version
    failed=
    for tool in memcheck racecheck initcheck synccheck; do
      echo "$tool:"
      # The tests provoke errors of the API, which they check themselves.
      "$sanitizer" --tool $tool --report-api-errors no --error-exitcode 3 --show-backtrace no "$@" \
        "$node" --test-reporter=dot --test-name-pattern="$pattern" "$here/tests.mjs" || failed="$failed $tool"
    done
    [ -z "$failed" ] || { echo "not clean:$failed" >&2; exit 3; }
    ;;
  *)
    echo "expected test, bench, attention or sanitize but received '$what'" >&2
    exit 2
    ;;
esac
