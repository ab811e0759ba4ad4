"""Checks and times variants of the large-M kernel beside cuBLASLt.

usage: python3 bench_large.py <cubin> <kernel,…> [--check] [--shapes NxK,…] [--tokens M,…] [--sweep n,…] [--clusters n,…] [--cut none,some,all] [--json file]
"""
import argparse, json

import torch
from driver import Module
from gemm import GemmLarge, poison, reference, relative_error
from harness import Weights, activations, capture, check, sustained, times

parser = argparse.ArgumentParser()
parser.add_argument("cubin")
parser.add_argument("kernels")
parser.add_argument("--shapes", default="4096x4096,6144x4096,28672x4096,4096x14336")
parser.add_argument("--tokens", default="256,1024,4096,16384")
parser.add_argument("--sweep", default="8")
parser.add_argument("--clusters", default="66")
parser.add_argument("--cut", default="some", help="tiles that are cut among clusters: none, those beyond whole rounds, all")
parser.add_argument("--rounds", type=int, default=7)
parser.add_argument("--check", action="store_true")
parser.add_argument("--sustain", type=int, default=0, help="M at which clocks and power are read too")
parser.add_argument("--json")
args = parser.parse_args()
module, cuts = Module(args.cubin), {"none": 0, "some": None, "all": 1 << 30}
kernels = {f"{n}/s{s}/c{c}/{cut}": GemmLarge(module, n, int(s), clusters=int(c), cut=cuts[cut])
           for n in args.kernels.split(",") for s in args.sweep.split(",") for c in args.clusters.split(",") for cut in args.cut.split(",")}
if args.check:
    for name, kernel in kernels.items():
        print(f"checked {name}, worst error {check(name, kernel):.3g}", flush=True)

rows = []
for shape in filter(None, args.shapes.split(",")):
    n, k = map(int, shape.split("x"))
    weights = Weights(n, k, {bool(x.info.fullCodes) for x in kernels.values()})
    for m in map(int, args.tokens.split(",")):
        x8, token_scale = activations(m, k)
        out = torch.empty(m, n, device="cuda", dtype=torch.bfloat16)
        flops = 2.0 * m * n * k
        count = max(2, min(40, int(4e-3 / (flops / 1.2e15 + 4e-6))))
        sample = torch.cat([torch.arange(0, min(m, 256)), torch.arange(max(0, m - 37), m)]).unique().cuda()
        exact = reference(x8[sample], token_scale[sample], weights.codes, weights.scale)
        graphs, errors = {}, {"fp8 row": weights.fp8_error(x8, token_scale, sample)}
        for name, kernel in kernels.items():
            poison(out)
            packed = weights.packed[bool(kernel.info.fullCodes)]
            graphs[name] = capture([kernel.prepare(x8, packed[i % len(packed)], token_scale, out) for i in range(count)])
            errors[name] = relative_error(out[sample], exact)
        for name, run in weights.baselines(x8, token_scale).items():
            graphs[name] = capture([lambda i=i: run(i) for i in range(count)])
        t = times(graphs, count, args.rounds)
        if m == args.sustain:
            for name, (us, mhz, watt) in sustained(graphs, count).items():
                print(f"  sustained {name}: {us:.1f} us, {flops / us / 1e6:.0f} TF, {mhz:.0f} MHz, {watt:.0f} W", flush=True)
        best = min(t["fp8 row"], t["fp8 tensor"])
        rows.append(dict(N=n, K=k, M=m, us=t, error=errors))
        print(f"{n}x{k} M={m}: fp8 row {t['fp8 row']:.1f} tensor {t['fp8 tensor']:.1f} err {errors['fp8 row']:.2e} | "
              + " | ".join(f"{name} {t[name]:.1f} ({best / t[name]:.3f}x, {flops / t[name] / 1e6:.0f} TF, {errors[name]:.2e})"
                           for name in kernels), flush=True)
if args.json:
    json.dump(rows, open(args.json, "w"))
