"""Checks and times the small-M kernel, over the ways to cut K, beside cuBLASLt.

usage: python3 bench_small.py <cubin> <M:kernel+kernel,…> [--check] [--shapes NxK,…] [--splits 1,2,…] [--json file]
"""
import argparse, json

import torch
from driver import Module
from gemm import GemmSmall, poison, reference, relative_error
from harness import Weights, activations, capture, check, times

parser = argparse.ArgumentParser()
parser.add_argument("cubin")
parser.add_argument("plan")
parser.add_argument("--shapes", default="12288x4096,4096x4096,22016x4096,4096x11008,6144x4096,28672x4096,4096x14336")
parser.add_argument("--splits", default="1,2,3,4,5,6,8")
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--check", action="store_true")
parser.add_argument("--json")
args = parser.parse_args()
module = Module(args.cubin)
plan = {int(m): names.split("+") for m, names in (part.split(":") for part in args.plan.split(","))}
splits = list(map(int, args.splits.split(",")))
if args.check:
    for name in sorted({n for names in plan.values() for n in names}):
        worst = max(check(f"{name}/{s}", GemmSmall(module, name, s), max_m=300) for s in (1, 2, 3, 4, 8)
                    if s * module.kernel(name).info.cluster <= 8)
        print(f"checked {name}, worst error {worst:.3g}", flush=True)

rows = []
for shape in filter(None, args.shapes.split(",")):
    n, k = map(int, shape.split("x"))
    kinds = {bool(module.kernel(name).info.fullCodes) for names in plan.values() for name in names}
    weights = Weights(n, k, kinds)
    for m, names in plan.items():
        x8, token_scale = activations(m, k)
        out = torch.empty(m, n, device="cuda", dtype=torch.bfloat16)
        exact = reference(x8, token_scale, weights.codes, weights.scale)
        count, graphs, errors = 48, {}, {}
        for name in names:
            for split in splits:
                info = module.kernel(name).info
                blocks = -(-n // info.features) * split * -(-m // info.tokens)
                if blocks < 60 or blocks > 600 or split * info.cluster > 8:
                    continue
                kernel = GemmSmall(module, name, split)
                packed = weights.packed[bool(kernel.info.fullCodes)]
                poison(out)
                label = f"{name}/{split}"
                graphs[label] = capture([kernel.prepare(x8, packed[i % len(packed)], token_scale, out) for i in range(count)])
                errors[label] = relative_error(out, exact)
        for name, run in weights.baselines(x8, token_scale).items():
            graphs[name] = capture([lambda i=i: run(i) for i in range(count)])
        t = times(graphs, count, args.rounds)
        best = min(t["fp8 row"], t["fp8 tensor"])
        ours = sorted((us, name) for name, us in t.items() if name in errors)
        size = n * k * (0.5 + 2 / 128)
        rows.append(dict(N=n, K=k, M=m, us=t, error=errors))
        print(f"{n}x{k} M={m}: fp8 {best:.1f} floor {size / 4.67e6:.1f} | {ours[0][1]} {ours[0][0]:.2f} ({best / ours[0][0]:.2f}x, "
              f"{size / ours[0][0] / 1e6:.2f} TB/s, {max(errors.values()):.2e}) | " + " ".join(f"{n[3:]} {us:.1f}" for us, n in ours[1:8]), flush=True)
if args.json:
    json.dump(rows, open(args.json, "w"))
