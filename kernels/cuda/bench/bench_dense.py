"""The plain GEMM kernels (FP8 × FP8, BF16 × BF16): exactness against float64, and times beside PyTorch's.

usage: bench_dense.py DIR [--json FILE]   DIR: holds gemm_dense.cubin
"""
import argparse
import json
import struct

import torch
from driver import BF16, UINT8, Module, tensor_map
from gemm import Launch, pointer, poison, relative_error
from harness import capture, times

E4M3 = torch.float8_e4m3fn


class GemmDense:
    """Launches <type>_dense_f128_t<tokens>_<out>."""

    def __init__(self, module, name):
        self.kernel, self.name, self.info = module.kernel(name), name, module.kernel(name).info
        self.fp8, self.f32 = name.startswith("e4m3"), name.endswith("f32")

    def prepare(self, x, w, out, token_scale=None, channel_scale=None, bias=None, residual=None, sweep=8):
        (m, k), n, size = x.shape, w.shape[0], x.element_size()
        dtype, slice_ = (UINT8, 128) if self.fp8 else (BF16, 64)
        params = tensor_map(w, dtype, [k, n], [k * size], [slice_, self.info.features])
        params += tensor_map(x, dtype, [k, m], [k * size], [slice_, self.info.tokens])
        params += b"".join(map(pointer, (token_scale, channel_scale, out, bias, residual)))
        params += struct.pack("<4i", m, n, k, sweep)
        params += b"\0" * (-len(params) % 64)
        grid = (-(-m // self.info.tokens) * -(-n // self.info.features), 1, 1)
        return Launch(lambda: self.kernel.launch(grid, params, dependent=True), x, w, out, token_scale, channel_scale, bias, residual)


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


def limit(kernel, x, w):
    """BF16 products are exact to FP32's sums; FP8 sums lose what cuBLASLt's with fast accumulation lose too."""
    if not kernel.fp8:
        return 1e-5 if kernel.f32 else 2e-3
    one = torch.ones((), device="cuda")
    theirs = torch._scaled_mm(x, w.t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16, use_fast_accum=True)
    return max(3e-3, 1.05 * relative_error(theirs, x.double() @ w.double().t()) + 2e-3)


def check(kernel):
    worst = 0.0
    for seed, (m, n, k) in enumerate([(1, 16, 128), (3, 528, 256), (16, 512, 4096), (17, 144, 384), (63, 1040, 1152), (65, 256, 128),
                                      (255, 400, 2048), (257, 4096, 1024), (513, 272, 640)]):
        x, w, ts, cs, bias, residual = problem(kernel.fp8, m, n, k, seed, extreme=seed % 2 == 1)
        guarded = poison(torch.empty(m + 8, n, device="cuda", dtype=torch.float32 if kernel.f32 else torch.bfloat16))
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
        if not error < limit(kernel, x, w) or not guarded[m:].isnan().all():
            print(f"WRONG {kernel.name}: M={m} N={n} K={k}: error {error:.3g}, beyond the end {guarded[m:].isnan().all()}", flush=True)
    return worst


def tokens_of(m):
    return 16 if m <= 16 else 64 if m <= 64 else 256


def main():
    args = argparse.ArgumentParser()
    args.add_argument("dir")
    args.add_argument("--json")
    args = args.parse_args()
    module = Module(f"{args.dir}/gemm_dense.cubin")
    kernel = lambda kind, m, out: GemmDense(module, f"{kind}_dense_f128_t{tokens_of(m)}_{out}")
    for kind in ("e4m3", "bf16"):
        for tokens in (16, 64, 256):
            for out in ("bf16", "f32"):
                one = GemmDense(module, f"{kind}_dense_f128_t{tokens}_{out}")
                print(f"{one.name}: error {check(one):.2e}", flush=True)
    found = []
    for n, k in ((128256, 4096), (6144, 4096), (28672, 4096), (4096, 14336)):
        for m in (1, 16, 64, 256, 1024, 4096):
            if n == 128256 and m > 256:
                continue
            for kind in ("e4m3", "bf16"):
                fp8 = kind == "e4m3"
                x, w, ts, cs, _, _ = problem(fp8, m, n, k, 1)
                copies = [w] + [w.clone() for _ in range(max(2, min(8, int(300e6 / w.nbytes))))]
                ours, out = kernel(kind, m, "bf16"), torch.empty(m, n, device="cuda", dtype=torch.bfloat16)
                mine = [ours.prepare(x, c, out, ts, cs) for c in copies]
                row, column = (ts[:, None], cs[None].abs().contiguous()) if fp8 else (None, None)
                theirs = [lambda c=c: torch._scaled_mm(x, c.t(), scale_a=row, scale_b=column, out_dtype=torch.bfloat16, use_fast_accum=True)
                          if fp8 else torch.matmul(x, c.t()) for c in copies]
                t = times({"ours": capture(mine), "torch": capture(theirs)}, len(copies))
                found.append(dict(kind=kind, n=n, k=k, m=m, **t))
                print(f"{kind} {n:6}x{k:5} M={m:5} ours {t['ours']:8.1f} µs  PyTorch {t['torch']:8.1f} µs  {t['torch'] / t['ours']:.2f}x", flush=True)
    if args.json:
        json.dump(found, open(args.json, "w"))


main()
