"""The promoting INT4 kernels (groups of 32 and 64, look-up rounding): exactness against float64, and times.

usage: bench_exact.py DIR   DIR: holds gemm_exact.cubin
"""
import struct
import sys

import torch
from driver import UINT8, Module, tensor_map
from gemm import Launch, pointer, poison, relative_error
from harness import capture, times
from weights import activations, pack

BLOCK = 128


class GemmExact:
    def __init__(self, module, name):
        self.kernel, self.name = module.kernel(name), name
        self.info = self.kernel.info
        self.lookup = "_lookup_" in name
        self.group = 128 if self.lookup else int(name.split("_g")[1].split("_")[0])

    def pack(self, codes, scale):
        """codes int8 [N, K], scale float32 [N, K / group]."""
        n, k = codes.shape
        padded = -(-n // 64) * 64
        blocks = pack(codes, torch.ones(n, k // BLOCK, device="cuda"), bool(self.info.fullCodes), 2)[:, :, :4096]
        scale = torch.cat([scale, scale.new_ones(padded - n, k // self.group)])
        dtype = {2: torch.bfloat16, 4: torch.float32}[self.info.scaleBytes]
        scales = scale.view(padded // 64, 64, k // BLOCK, BLOCK // self.group).permute(0, 2, 3, 1).to(dtype).contiguous()
        return torch.cat([blocks, scales.view(torch.uint8).flatten(2)], dim=2).contiguous()

    def prepare(self, x8, packed, token_scale, channel_scale, out, bias=None, residual=None):
        (m, k), n = x8.shape, out.shape[1]
        params = tensor_map(x8, UINT8, [k, m], [k], [128, self.info.tokens])
        params += b"".join(map(pointer, (packed, token_scale, channel_scale, out, bias, residual)))
        params += struct.pack("<3i", m, n, k)
        params += b"\0" * (-len(params) % 64)
        grid = (-(-n // self.info.features), -(-m // self.info.tokens), 1)
        return Launch(lambda: self.kernel.launch(grid, params, dependent=True), x8, packed, token_scale, channel_scale, out, bias, residual)


def round_e4m3(x):
    return x.clamp(-448, 448).to(torch.float8_e4m3fn).double()


def exact(kernel, x8, token_scale, codes, scale, channel_scale):
    n, k = codes.shape
    w = codes.double().view(n, -1, kernel.group) * scale.double()[:, :, None]
    w = round_e4m3(w.float()) if kernel.lookup else w
    return (x8.double() * token_scale.double()[:, None]) @ (w.view(n, k) * channel_scale.double()[:, None]).t()


def check(kernel):
    worst, full = 0.0, bool(kernel.info.fullCodes)
    for seed, (n, k, m, wild, kind) in enumerate([(16, 128, 1, False, "random"), (528, 384, 129, True, "random"), (400, 2048, 17, True, "extreme"),
                                                 (1040, 1664, 64, False, "extreme"), (512, 4096, 300, False, "random"), (4096, 1024, 63, False, "random")]):
        g = torch.Generator(device="cuda").manual_seed(seed)
        rand = lambda *shape: torch.rand(*shape, device="cuda", generator=g)
        codes = torch.randint(-8 if full else -7, 8, (n, k), device="cuda", dtype=torch.int8, generator=g)
        scale = torch.exp2(rand(n, k // kernel.group) * (9 if kernel.lookup else 30) - (8 if kernel.lookup else 20)) if wild else rand(n, k // kernel.group) + 0.5
        scale = (scale * torch.where(rand(n, k // kernel.group) < 0.5, -1.0, 1.0)).bfloat16().float()
        if kernel.lookup:
            scale = scale.clamp(-448, 448).to(torch.float8_e4m3fn).float()
        x8, token_scale = activations(m, k, kind)
        channel_scale = rand(n) + 0.5
        guarded = poison(torch.empty(m + 8, n, device="cuda", dtype=torch.bfloat16))
        kernel.prepare(x8, kernel.pack(codes, scale), token_scale, channel_scale, guarded[:m])()
        torch.cuda.synchronize()
        truth = exact(kernel, x8, token_scale, codes, scale, channel_scale)
        error, rounding = relative_error(guarded[:m], truth), relative_error(truth.bfloat16(), truth)
        worst = max(worst, error / rounding)
        if not error <= 1.05 * rounding or not guarded[m:].isnan().all():
            print(f"WRONG {kernel.name}: N={n} K={k} M={m} {kind}: error {error:.3g}, rounding to BF16 {rounding:.3g}", flush=True)
    return worst


module = Module(f"{sys.argv[1]}/gemm_exact.cubin")
for what in ("g32", "g64", "lookup"):
    for codes in ("sym", "full"):
        for scale in ("bf16", "fp32"):
            one = GemmExact(module, f"i4_exact_{what}_t64_{codes}_{scale}")
            print(f"{one.name}: at most {check(one):.3f} × the error of rounding to BF16", flush=True)
for what in ("g32", "g64", "lookup"):
    kernel = GemmExact(module, f"i4_exact_{what}_t64_full_bf16")
    for m in (1, 64, 1024):
        n, k = 6144, 4096
        codes = torch.randint(-8, 8, (n, k), device="cuda", dtype=torch.int8)
        packed = kernel.pack(codes, torch.full((n, k // kernel.group), 0.01, device="cuda"))
        copies = [packed] + [packed.clone() for _ in range(15)]
        x8, token_scale = activations(m, k)
        out, one = torch.empty(m, n, device="cuda", dtype=torch.bfloat16), torch.ones(n, device="cuda")
        t = times({"ours": capture([kernel.prepare(x8, c, token_scale, one, out) for c in copies])}, len(copies))
        print(f"{kernel.name} {n}x{k} M={m}: {t['ours']:.1f} µs", flush=True)
