"""Launches one kernel once, for ncu. usage: ncu … python3 profile_large.py <cubin> <kernel> N K M"""
import sys

import torch
from driver import Module
from gemm import GemmLarge
from weights import activations, pack, problem

cubin, name = sys.argv[1:3]
n, k, m = map(int, sys.argv[3:6])
kernel = GemmLarge(Module(cubin), name)
full = bool(kernel.info.fullCodes)
codes, scale = problem(n, k, full)
x8, ts = activations(m, k)
out = torch.empty(m, n, device="cuda", dtype=torch.bfloat16)
run = kernel.prepare(x8, pack(codes, scale, full, kernel.info.scaleBytes), ts, out)
for _ in range(3):
    run()
torch.cuda.synchronize()
