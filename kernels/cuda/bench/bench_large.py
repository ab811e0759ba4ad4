"""Checks and times variants of the large-M kernel beside cuBLASLt.

usage: python3 bench_large.py <cubin> <kernel,…> [--shapes NxK,…] [--tokens M,…] [--json file]
"""
import argparse, json, statistics, sys, time

import torch
from driver import Module
from gemm import GemmLarge, poison, reference, relative_error
from weights import activations, pack, problem

parser = argparse.ArgumentParser()
parser.add_argument("cubin")
parser.add_argument("kernels")
parser.add_argument("--shapes", default="4096x4096,6144x4096,28672x4096,4096x14336")
parser.add_argument("--tokens", default="256,1024,4096,16384")
parser.add_argument("--sweep", default="16")
parser.add_argument("--rounds", type=int, default=7)
parser.add_argument("--check", action="store_true")
parser.add_argument("--json")
args = parser.parse_args()
module = Module(args.cubin)
kernels = [(f"{n}/s{s}" if len(args.sweep.split(",")) > 1 else n, GemmLarge(module, n, int(s)))
           for n in args.kernels.split(",") for s in args.sweep.split(",")]


def capture(launches):
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        launches[0]()
        with torch.cuda.graph(graph, stream=stream):
            for f in launches:
                f()
    torch.cuda.synchronize()
    return graph


def times(graphs, count):
    """graphs: name → graph of `count` launches; round robin, so that all meet the same clocks. → name → median µs."""
    found = {name: [] for name in graphs}
    for r in range(args.rounds + 1):
        for name, graph in graphs.items():
            a, b = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            a.record(); graph.replay(); b.record(); b.synchronize()
            if r:
                found[name].append(a.elapsed_time(b) / count * 1e3)
    return {name: statistics.median(v) for name, v in found.items()}


def check_all():
    for name, kernel in kernels:
        worst = 0
        full = bool(kernel.info.fullCodes)
        for n, k, m, kind, xkind in [(512, 512, 256, "random", "random"), (512, 4096, 300, "random", "random"),
                                     (1024, 1152, 127, "random", "extreme"), (528, 384, 129, "wild", "random"),
                                     (2064, 128, 1, "random", "random"), (4096, 1024, 2047, "huge-group", "random"),
                                     (768, 11008, 255, "random", "random"), (512, 640, 513, "all-minus-8", "extreme")]:
            codes, scale = problem(n, k, full, kind=kind)
            x8, ts = activations(m, k, xkind)
            out = poison(torch.empty(m + 8, n, device="cuda", dtype=torch.bfloat16))
            kernel.prepare(x8, pack(codes, scale, full, kernel.info.scaleBytes), ts, out[:m])()
            torch.cuda.synchronize()
            error = relative_error(out[:m], reference(x8, ts, codes, scale))
            intact = bool(out[m:].isnan().all())
            worst = max(worst, error)
            if not (error < 6e-3) or not intact:
                bad = (~(out[:m].double() - reference(x8, ts, codes, scale)).abs().le(1e-2 * reference(x8, ts, codes, scale).abs().mean() * 30)).nonzero()
                print(f"WRONG {name} N={n} K={k} M={m} {kind} {xkind}: error {error:.3g}, intact {intact}, first bad {bad[:1].tolist()}, {len(bad)} bad", flush=True)
        print(f"checked {name}, worst error {worst:.3g}", flush=True)


if args.check:
    check_all()
rows = []
for shape in filter(None, args.shapes.split(",")):
    n, k = map(int, shape.split("x"))
    copies = min(24, max(1, int(200e6 / (n * k / 2))))
    codes, scale = problem(n, k, False)
    packed = {}
    for full in {bool(x.info.fullCodes) for _, x in kernels}:
        packed[full] = [pack(codes, scale, full, 2)]
        packed[full] += [packed[full][0].clone() for _ in range(copies - 1)]
    w = (codes.float().view(n, k // 128, 128) * scale[:, :, None]).view(n, k)
    ws = w.abs().amax(1, keepdim=True) / 448
    w8 = [(w / ws).to(torch.float8_e4m3fn)]
    w8 += [w8[0].clone() for _ in range(max(1, copies // 2) - 1)]
    w16 = w.bfloat16()
    wst, one = ws.t().contiguous(), torch.ones((), device="cuda")
    for m in map(int, args.tokens.split(",")):
        x8, ts = activations(m, k)
        x16 = (x8.float() * ts[:, None]).bfloat16()
        out = torch.empty(m, n, device="cuda", dtype=torch.bfloat16)
        flops = 2.0 * m * n * k
        count = max(2, min(40, int(4e-3 / (flops / 1.2e15 + 4e-6))))
        sample = torch.cat([torch.arange(0, min(m, 256)), torch.arange(max(0, m - 37), m)]).unique().cuda()
        ref = reference(x8[sample], ts[sample], codes, scale)
        graphs, errors = {}, {}
        for name, kernel in kernels:
            poison(out)
            launches = [kernel.prepare(x8, packed[bool(kernel.info.fullCodes)][i % copies], ts, out) for i in range(count)]
            graphs[name] = capture(launches)
            errors[name] = relative_error(out[sample], ref)
        rowwise = lambda i: torch._scaled_mm(x8, w8[i % len(w8)].t(), scale_a=ts[:, None], scale_b=wst,
                                             out_dtype=torch.bfloat16, use_fast_accum=True)
        tensorwise = lambda i: torch._scaled_mm(x8, w8[i % len(w8)].t(), scale_a=one, scale_b=one,
                                                out_dtype=torch.bfloat16, use_fast_accum=True)
        graphs["fp8 row"] = capture([lambda i=i: rowwise(i) for i in range(count)])
        graphs["fp8 tensor"] = capture([lambda i=i: tensorwise(i) for i in range(count)])
        errors["fp8 row"] = relative_error(rowwise(0)[sample], (x8[sample].double() * ts[sample, None].double()) @ (w8[0].double() * ws.double()).t())
        t = times(graphs, count)
        best = min(t["fp8 row"], t["fp8 tensor"])
        row = dict(N=n, K=k, M=m, us=t, error=errors)
        rows.append(row)
        print(f"{n}x{k} M={m}: fp8 row {t['fp8 row']:.1f} tensor {t['fp8 tensor']:.1f} err {errors['fp8 row']:.2e} | " + " | ".join(
            f"{name} {t[name]:.1f} ({best / t[name]:.3f}x, {flops / t[name] / 1e6:.0f} TF, {errors[name]:.2e})"
            for name, _ in kernels), flush=True)
        del graphs
    torch.cuda.empty_cache()
if args.json:
    json.dump(rows, open(args.json, "w"))
