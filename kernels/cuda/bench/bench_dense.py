"""The plain GEMM kernels (FP8 × FP8, BF16 × BF16): exactness against float64, and times of every tile and split beside
PyTorch's.

usage: bench_dense.py DIR [--check] [--json FILE]   DIR: holds gemm_dense.cubin
"""
import argparse
import json

import torch
from driver import Module
from gemm import poison, relative_error
from harness import capture, times
from plain import GemmDense

E4M3 = torch.float8_e4m3fn
TILES = {"e4m3_dense": (16, 64, 256), "e4m3_precise": (16, 128), "bf16_dense": (16, 64, 256)}
SHAPES = [(1, 16, 128), (3, 528, 256), (16, 512, 4096), (17, 144, 384), (63, 1040, 1152), (65, 256, 128), (255, 400, 2048),
          (257, 4096, 1024), (513, 272, 640)]


def problem(fp8, m, n, k, seed, extreme=False):
    g = torch.Generator(device="cuda").manual_seed(seed)
    rand = lambda *shape: torch.randn(*shape, device="cuda", generator=g)
    x, w = rand(m, k), rand(n, k)
    if extreme:
        x[::3], w[::2] = 448.0, -448.0
        x[1::3] = 2.0**-9
    kind = E4M3 if fp8 else torch.bfloat16
    scales = (torch.rand(m, device="cuda", generator=g) + 0.5, torch.rand(n, device="cuda", generator=g) - 0.5) if fp8 else (None, None)
    return x.to(kind), w.to(kind), *scales, rand(n).bfloat16(), rand(m, n).bfloat16()


def limit(kernel, exact, out):
    """Precise sums are FP32's, so rounding to BF16 is all there is; fast FP8 ones lose some bits (see time_all)."""
    if not kernel.precise:
        return 4e-3
    if out == torch.float32:
        return 5e-4 if kernel.fp8 else 1e-5
    return 1.05 * relative_error(exact.bfloat16(), exact)


def check(kernel, dtype):
    worst = 0.0
    for seed, (m, n, k) in enumerate(SHAPES):
        kernel.split = min(1 + seed % 4, k // 128)
        x, w, ts, cs, bias, residual = problem(kernel.fp8, m, n, k, seed, extreme=seed % 2 == 1)
        guarded = poison(torch.empty(m + 8, n, device="cuda", dtype=dtype))
        exact = x.double() @ w.double().t()
        if kernel.fp8:
            exact *= ts.double()[:, None] * cs.double()[None]
        with_extras = seed % 3 == 0
        if with_extras:
            exact += bias.double() + residual.double()
        extras = dict(bias=bias, residual=residual) if with_extras else {}
        kernel.prepare(x, w, guarded[:m], ts, cs, **extras)()
        torch.cuda.synchronize()
        error = relative_error(guarded[:m], exact)
        worst = max(worst, error)
        if not error < limit(kernel, exact, dtype) or not guarded[m:].isnan().all():
            print(f"WRONG {kernel.name}/{kernel.split}: M={m} N={n} K={k}: error {error:.3g}, beyond the end {guarded[m:].isnan().all()}", flush=True)
    return worst


def check_all(module):
    for kind, tiles in TILES.items():
        for tokens in tiles:
            for dtype in (torch.bfloat16, torch.float32):
                one = GemmDense(module, f"{kind}_f128_t{tokens}")
                print(f"{one.name} to {dtype}: error {check(one, dtype):.2e}", flush=True)


def fp8_errors(module, kind, x, w):
    """Ours beside cuBLASLt's with fast accumulation, without scales."""
    one, out = torch.ones((), device="cuda"), torch.empty(x.shape[0], w.shape[0], device="cuda", dtype=torch.bfloat16)
    GemmDense(module, f"{kind}_f128_t16").prepare(x, w, out)()
    theirs = torch._scaled_mm(x, w.t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16, use_fast_accum=True)
    rows = torch.arange(0, w.shape[0], max(1, w.shape[0] // 4096), device="cuda")
    exact = x.double() @ w[rows].double().t()
    return f"{relative_error(out[:, rows], exact):.2e}, cuBLASLt's {relative_error(theirs[:, rows], exact):.2e}"


def time_all(module):
    found = []
    for n, k in ((128256, 4096), (4096, 4096), (28672, 4096), (4096, 14336)):
        for m in (1, 16, 64, 256, 1024, 4096):
            if n == 128256 and m > 64:
                continue
            for kind, tiles in TILES.items():
                fp8 = kind != "bf16_dense"
                x, w, ts, cs, _, _ = problem(fp8, m, n, k, 1)
                copies = [w] + [w.clone() for _ in range(max(2, min(8, int(300e6 / w.nbytes))))]
                out = torch.empty(m, n, device="cuda", dtype=torch.bfloat16)
                graphs = {}
                for tokens in tiles:
                    blocks = -(-m // tokens) * -(-n // 128)
                    if (m > 64 and tokens == 16) or (m <= 16 and tokens == 256):
                        continue
                    for split in [s for s in (1, 2, 3, 4, 6, 8) if s == 1 or blocks * s <= 264]:
                        kernel = GemmDense(module, f"{kind}_f128_t{tokens}", split)
                        graphs[f"t{tokens}/{split}"] = capture([kernel.prepare(x, c, out, ts, cs) for c in copies])
                row, column = (ts[:, None], cs[None].abs().contiguous()) if fp8 else (None, None)
                graphs["PyTorch"] = capture([lambda c=c: torch._scaled_mm(x, c.t(), scale_a=row, scale_b=column, out_dtype=torch.bfloat16, use_fast_accum=True)
                                             if fp8 else torch.matmul(x, c.t()) for c in copies])
                t = times(graphs, len(copies), 3)
                found.append(dict(kind=kind, n=n, k=k, m=m, us=t))
                print(f"{kind:12} {n:6}x{k:5} M={m:4}: " + ", ".join(f"{name} {us:.1f}" for name, us in t.items())
                      + (f"; error {fp8_errors(module, kind, x, w)}" if fp8 and m == 64 else ""), flush=True)
    return found


args = argparse.ArgumentParser()
args.add_argument("dir")
args.add_argument("--check", action="store_true", help="no times")
args.add_argument("--json")
args = args.parse_args()
module = Module(f"{args.dir}/gemm_dense.cubin")
check_all(module)
if not args.check:
    found = time_all(module)
    if args.json:
        json.dump(found, open(args.json, "w"))
