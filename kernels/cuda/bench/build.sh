#!/bin/sh
# Builds what the benchmarks load into a folder. usage: build.sh <folder>
set -e
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
for file in gemm_large gemm_medium gemm_small gemm_w4a16 quantize; do
  nvcc -O3 -std=c++17 -gencode=arch=compute_90a,code=sm_90a -Xptxas -warn-spills -cubin -o "$1/$file.cubin" "$here/../$file.cu"
done
c++ -O2 -std=c++17 -Wall -shared -fPIC -o "$1/libheuristics.so" "$here/heuristics_c.cpp"
c++ -O2 -std=c++17 -Wall -shared -fPIC -o "$1/libheuristics_w4a16.so" "$here/heuristics_w4a16_c.cpp"
