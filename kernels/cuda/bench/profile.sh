#!/bin/sh
# Profiles kernels of a cubin with ncu: details to the terminal, stalls by instruction to a folder.
# usage: profile.sh <cubin> <folder> N K M <kernel>…
cubin=$1 folder=$2 n=$3 k=$4 m=$5
shift 5
for kernel in "$@"; do
  ncu --set full --clock-control none -k "$kernel" --launch-skip 2 -c 1 -f -o "/tmp/$kernel" \
    python3 profile_large.py "$cubin" "$kernel" "$n" "$k" "$m" >/dev/null
  ncu --import "/tmp/$kernel.ncu-rep" --page details >"$folder/$kernel.details.txt"
  ncu --import "/tmp/$kernel.ncu-rep" --page source --csv >"$folder/$kernel.source.csv"
  ncu --import "/tmp/$kernel.ncu-rep" --page raw >"$folder/$kernel.raw.txt"
done
