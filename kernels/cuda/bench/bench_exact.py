"""The promoting INT4 kernels (groups of 32, 64 and 128, look-up rounding): exactness against float64, and times of every
tile and split.

usage: bench_exact.py DIR [--check] [--brief] [--json FILE]   DIR: holds gemm_exact.cubin
"""
import argparse
import json

import torch
from driver import Module
from gemm import poison, relative_error
from harness import capture, times
from plain import GemmExact
from weights import activations

NARROW, TALL, WIDE = "f128_t64", "f256_t64", "f128_t128"
KINDS = {"g32": (NARROW, TALL), "g64": (NARROW, TALL), "g128": (NARROW, TALL), "lookup": (NARROW, WIDE)}
SHAPES = [(16, 128, 1, False, "random"), (528, 384, 129, True, "random"), (400, 2048, 17, True, "extreme"),
          (1040, 1664, 64, False, "extreme"), (512, 4096, 300, False, "random"), (4096, 1024, 63, False, "random")]


def round_e4m3(x):
    return x.clamp(-448, 448).to(torch.float8_e4m3fn).double()


def exact(kernel, x8, token_scale, codes, scale, channel_scale):
    n, k = codes.shape
    w = codes.double().view(n, -1, kernel.group) * scale.double()[:, :, None]
    w = round_e4m3(w.float()) if kernel.lookup else w
    return (x8.double() * token_scale.double()[:, None]) @ (w.view(n, k) * channel_scale.double()[:, None]).t()


def check(kernel):
    worst, full = 0.0, bool(kernel.info.fullCodes)
    for seed, (n, k, m, wild, kind) in enumerate(SHAPES):
        kernel.split = min(1 + seed, k // 128)
        g = torch.Generator(device="cuda").manual_seed(seed)
        rand = lambda *shape: torch.rand(*shape, device="cuda", generator=g)
        codes = torch.randint(-8 if full else -7, 8, (n, k), device="cuda", dtype=torch.int8, generator=g)
        scale = torch.exp2(rand(n, k // kernel.group) * (9 if kernel.lookup else 30) - (8 if kernel.lookup else 20)) if wild else rand(n, k // kernel.group) + 0.5
        scale = (scale * torch.where(rand(n, k // kernel.group) < 0.5, -1.0, 1.0)).bfloat16().float()
        x8, token_scale = activations(m, k, kind)
        channel_scale = rand(n) + 0.5
        guarded = poison(torch.empty(m + 8, n, device="cuda", dtype=torch.bfloat16))
        kernel.prepare(x8, kernel.pack(codes, scale), token_scale, channel_scale, guarded[:m])()
        torch.cuda.synchronize()
        truth = exact(kernel, x8, token_scale, codes, scale, channel_scale)
        error, rounding = relative_error(guarded[:m], truth), relative_error(truth.bfloat16(), truth)
        worst = max(worst, error / rounding)
        if not error <= 1.05 * rounding or not guarded[m:].isnan().all():
            print(f"WRONG {kernel.name}/{kernel.split}: N={n} K={k} M={m} {kind}: error {error:.3g}, rounding to BF16 {rounding:.3g}", flush=True)
    return worst


def check_all(module, brief):
    formats = ("full_fp32",) if brief else ("sym_bf16", "sym_fp32", "full_bf16", "full_fp32")
    for kind, tiles in KINDS.items():
        for tile in tiles:
            for format in formats:
                one = GemmExact(module, f"i4_exact_{kind}_{tile}_{format}")
                print(f"{one.name}: at most {check(one):.3f} × the error of rounding to BF16", flush=True)


def time_all(module):
    found = []
    for n, k in ((4096, 4096), (28672, 4096), (4096, 14336)):
        codes = torch.randint(-7, 8, (n, k), device="cuda", dtype=torch.int8)
        for kind, tiles in KINDS.items():
            first = GemmExact(module, f"i4_exact_{kind}_{NARROW}_sym_bf16")
            packed = first.pack(codes, torch.full((n, k // first.group), 0.01, device="cuda"))
            copies = [packed] + [packed.clone() for _ in range(max(1, min(15, int(200e6 / packed.nbytes))))]
            one = torch.ones(n, device="cuda")
            for m in (1, 64, 256, 1024, 4096):
                x8, token_scale = activations(m, k)
                out = torch.empty(m, n, device="cuda", dtype=torch.bfloat16)
                graphs = {}
                for tile in tiles:
                    kernel = GemmExact(module, f"i4_exact_{kind}_{tile}_sym_bf16")
                    blocks = -(-m // kernel.info.tokens) * -(-n // kernel.info.features)
                    for split in [s for s in (1, 2, 3, 4, 6, 8) if s == 1 or blocks * s <= 180]:
                        kernel = GemmExact(module, f"i4_exact_{kind}_{tile}_sym_bf16", split)
                        graphs[f"{tile}/{split}"] = capture([kernel.prepare(x8, c, token_scale, one, out) for c in copies])
                t = times(graphs, len(copies), 3)
                found.append(dict(kind=kind, n=n, k=k, m=m, us=t))
                print(f"{kind:6} {n:5}x{k:5} M={m:4}: " + ", ".join(f"{name} {us:.1f}" for name, us in t.items()), flush=True)
    return found


args = argparse.ArgumentParser()
args.add_argument("dir")
args.add_argument("--check", action="store_true", help="no times")
args.add_argument("--brief", action="store_true", help="checks one format a tile")
args.add_argument("--json")
args = args.parse_args()
module = Module(f"{args.dir}/gemm_exact.cubin")
check_all(module, args.brief)
if not args.check:
    found = time_all(module)
    if args.json:
        json.dump(found, open(args.json, "w"))
