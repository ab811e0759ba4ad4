"""Decode attention over the paged INT4 cache: exactness against float64 attention on the same codes, and times.

usage: bench_attention.py DIR [--json FILE]   DIR: holds attention_decode.cubin
"""
import argparse
import ctypes
import json
import struct

import torch
from driver import Module, check, cuda
from gemm import pointer, relative_error
from harness import times

D, PAGE, WARPS_SHARED = 128, 64, 4 * 2 * 8448
PAGE_BYTES = PAGE * (64 + 64 + 4)
E4M3 = torch.float8_e4m3fn


class Kernel:
    def __init__(self, module, name):
        self.function, self.name = ctypes.c_void_p(), name
        check(cuda.cuModuleGetFunction(ctypes.byref(self.function), module.handle, name.encode()), name)
        check(cuda.cuFuncSetAttribute(self.function, 8, WARPS_SHARED), f"{name}: shared memory")

    def launch(self, grid, params):
        buffer = ctypes.create_string_buffer(params, len(params))
        pointers = (ctypes.c_void_p * 1)(ctypes.addressof(buffer))
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        check(cuda.cuLaunchKernel(self.function, *grid, 128, 1, 1, WARPS_SHARED, stream, pointers, None), self.name)


def nibbles(parts):
    """uint8 [..., 8] nibbles of words, lowest first → uint8 [..., 4] bytes."""
    return parts[..., ::2] | parts[..., 1::2] << 4


def key_channels():
    """[l 4][s 4][e 2][j 4] → channel."""
    l, s, e, j = torch.meshgrid(*(torch.arange(n, device="cuda") for n in (4, 4, 2, 4)), indexing="ij")
    return (32 * s + 16 * (j // 2) + 8 * (j % 2) + 2 * l + e).reshape(16, 8)


def value_places():
    """[l 4][n ^ 2l 8][c 4][e 2][j 4] → token of 8, channel."""
    l, n, c, e, j = torch.meshgrid(*(torch.arange(n, device="cuda") for n in (4, 8, 4, 2, 4)), indexing="ij")
    n = n ^ 2 * l
    return (2 * l + e).reshape(-1), (8 * (c + 4 * j) + n).reshape(-1)


def pack(k, v, ks, kz, vs, vz, asymmetric):
    """codes uint8 [pages, heads, 64, 128], scales float and zeros uint8 [pages, heads, 64] → uint8 [pages, heads, PAGE_BYTES]."""
    keys = nibbles(k[..., key_channels()]).unflatten(2, (2, 32)).flatten(3)
    tokens, channels = value_places()
    values = nibbles(v.unflatten(2, (2, 4, 8))[..., tokens, channels].unflatten(-1, (-1, 8))).flatten(3)
    if asymmetric:
        scales = torch.stack([ks.to(E4M3).view(torch.uint8), kz, vs.to(E4M3).view(torch.uint8), vz], -1)
    else:
        scales = torch.stack([ks.bfloat16(), vs.bfloat16()], -1).view(torch.uint8)
    return torch.cat([keys, values, scales.flatten(2).unflatten(2, (2, 128))], -1).flatten(2).contiguous()


class Problem:
    def __init__(self, lengths, heads=32, key_heads=8, width=1, asymmetric=False, seed=0, kind="random", spare=3):
        g = torch.Generator(device="cuda").manual_seed(seed)
        self.lengths, self.heads, self.key_heads, self.width, self.asymmetric = lengths, heads, key_heads, width, asymmetric
        per = max(1, -(-max(lengths) // PAGE))
        count = sum(-(-n // PAGE) for n in lengths) + spare
        order = torch.randperm(count, device="cuda", generator=g).int()
        self.table = torch.full((len(lengths), per), -1, dtype=torch.int32, device="cuda")
        at = 0
        for i, n in enumerate(lengths):
            used = -(-n // PAGE)
            self.table[i, :used] = order[at:at + used]
            at += used
        shape = (count, key_heads, PAGE)
        codes = lambda: torch.randint(0, 16, (*shape, D), device="cuda", dtype=torch.uint8, generator=g)
        scale = lambda: torch.rand(shape, device="cuda", generator=g) * 0.2 + 0.05
        zero = lambda: torch.randint(5, 12, shape, device="cuda", dtype=torch.uint8, generator=g)
        self.k, self.v, self.ks, self.vs = codes(), codes(), scale(), scale()
        self.kz, self.vz = (zero(), zero()) if asymmetric else (torch.full(shape, 8, dtype=torch.uint8, device="cuda"),) * 2
        if kind == "equal-keys":
            self.k[:] = 11
        if kind == "huge-token":
            self.ks[:, :, 5] *= 200
            self.vs[:, :, 9] *= 200
        if kind == "huge-channel":
            self.k[..., 3], self.v[..., 70] = 15, 15
        kind_ = E4M3 if asymmetric else torch.bfloat16
        self.ks, self.vs = self.ks.to(kind_).float(), self.vs.to(kind_).float()
        q = torch.randn(len(lengths) * width, heads, D, device="cuda", generator=g)
        self.q_scale = (q.abs().amax(-1) / 448).contiguous()
        self.q = (q / self.q_scale[..., None]).clamp(-448, 448).to(E4M3)
        self.cache = pack(self.k, self.v, self.ks, self.kz, self.vs, self.vz, asymmetric)
        self.poison()
        self.lengths_on_device = torch.tensor(lengths, dtype=torch.int32, device="cuda")

    def poison(self):
        """Scales and zero points of tokens that no sequence has: NaN and 255."""
        seen = torch.zeros(self.cache.shape[0], PAGE, dtype=torch.bool, device="cuda")
        for i, n in enumerate(self.lengths):
            for p in range(-(-n // PAGE)):
                seen[self.table[i, p], :min(PAGE, n - p * PAGE)] = True
        scales = self.cache.view(*self.cache.shape[:2], 2, 32 * 132)[..., 4096:].unflatten(-1, (32, 4))
        scales[~seen.unflatten(1, (2, 32))[:, None].expand(-1, self.key_heads, -1, -1)] = 0xFF

    def exact(self):
        out = torch.zeros(len(self.lengths) * self.width, self.heads, D, dtype=torch.float64, device="cuda")
        q = self.q.double() * self.q_scale.double()[..., None]
        group = self.heads // self.key_heads
        for i, n in enumerate(self.lengths):
            if n == 0:
                continue
            pages = self.table[i, :-(-n // PAGE)].long()
            take = lambda codes, s, z: ((codes[pages].double() - z[pages].double()[..., None]) * s[pages].double()[..., None]).transpose(0, 1).flatten(1, 2)[:, :n]
            k, v = (take(*x).repeat_interleave(group, 0) for x in ((self.k, self.ks, self.kz), (self.v, self.vs, self.vz)))
            for w in range(self.width):
                row, seen = i * self.width + w, n - (self.width - 1 - w)
                s = (k[:, :seen] @ q[row][:, :, None])[..., 0] * D**-0.5
                out[row] = (torch.softmax(s, -1)[:, None] @ v[:, :seen])[:, 0]
        return out

    def launch(self, kernels, chunk, out):
        rows = self.heads // self.key_heads * self.width
        kernel = kernels[f"attention_decode_q{8 if rows <= 8 else 16}_{'asym' if self.asymmetric else 'sym'}_d128"]
        chunks = max(1, -(-max(self.lengths) // chunk))
        batch = len(self.lengths)
        partial = torch.full((batch * self.key_heads * chunks * 16 * (D + 2),), float("nan"), device="cuda")
        self.arrived = torch.zeros(batch * self.key_heads, dtype=torch.int32, device="cuda")
        params = b"".join(map(pointer, (self.q, self.q_scale, self.cache, self.table, self.lengths_on_device, out, partial, self.arrived)))
        params += struct.pack("<5if", self.heads, self.key_heads, self.width, self.table.shape[1], chunk, D**-0.5)
        keep = (out, partial, self.arrived)  # what the parameters point to
        return lambda keep=keep: kernel.launch((chunks, self.key_heads, batch), params)


def check_all(kernels):
    worst = {}
    cases = [dict(lengths=[1]), dict(lengths=[64, 65, 63, 0, 1, 130, 31, 32, 33]), dict(lengths=[1000, 17, 4097]), dict(lengths=[300, 5], width=2),
             dict(lengths=[777, 64, 4], width=4), dict(lengths=[500, 80], heads=8, key_heads=8), dict(lengths=[500, 80], heads=64, key_heads=4),
             dict(lengths=[900, 40], kind="equal-keys"), dict(lengths=[900, 40], kind="huge-token"), dict(lengths=[900, 70], kind="huge-channel")]
    for asymmetric in (False, True):
        for chunk in (128, 512):
            for seed, case in enumerate(cases):
                problem = Problem(**case, asymmetric=asymmetric, seed=seed)
                out = torch.full((len(problem.lengths) * problem.width, problem.heads, D), float("nan"), device="cuda", dtype=torch.bfloat16)
                run = problem.launch(kernels, chunk, out)
                run()
                torch.cuda.synchronize()
                first = out.clone()
                run()
                torch.cuda.synchronize()
                exact = problem.exact()
                error = relative_error(out, exact)
                name = case.get("kind", "random")
                worst[name] = max(worst.get(name, 0), error)
                if not error < 0.04 or not torch.equal(first, out) or problem.arrived.any():
                    print(f"WRONG {case} asymmetric={asymmetric} chunk={chunk}: error {error:.3g}, repeats {torch.equal(first, out)}", flush=True)
    print("worst relative error:", {k: f"{v:.4f}" for k, v in worst.items()}, flush=True)


def capture(run, count):
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run()
        with torch.cuda.graph(graph, stream=stream):
            for _ in range(count):
                run()
    torch.cuda.synchronize()
    graph.run = run
    return graph


def main():
    args = argparse.ArgumentParser()
    args.add_argument("dir")
    args.add_argument("--json")
    args = args.parse_args()
    module = Module(f"{args.dir}/attention_decode.cubin")
    kernels = {name: Kernel(module, name) for name in (f"attention_decode_q{r}_{f}" for r in (8, 16) for f in ("sym_d128", "asym_d128"))}
    check_all(kernels)
    found = []
    for batch, length, key_heads in ((1, 16384, 8), (1, 131072, 8), (16, 4096, 8), (64, 1024, 8), (128, 1024, 8), (256, 1024, 8), (64, 4096, 8),
                                     (128, 4096, 8), (64, 16384, 8), (64, 1024, 32), (32, 4096, 32)):
        for asymmetric in (False, True):
            problem = Problem([length] * batch, key_heads=key_heads, asymmetric=asymmetric, spare=0)
            out = torch.empty(batch, 32, D, device="cuda", dtype=torch.bfloat16)
            del problem.k, problem.v
            graphs = {chunk: capture(problem.launch(kernels, chunk, out), 10) for chunk in (256, 512, 1024, 2048, 4096) if chunk <= max(length, 256)}
            t = times(graphs, 10)
            bytes_ = batch * length * key_heads * 132
            best = min(t, key=t.get)
            found.append(dict(batch=batch, length=length, keyHeads=key_heads, asymmetric=asymmetric, microseconds=t, bytes=bytes_))
            print(f"{batch:4} × {length:6}, 32/{key_heads} heads, {'asym' if asymmetric else 'bf16'}: {t[best]:8.1f} µs (chunks of {best}), "
                  f"{bytes_ / t[best] / 1e3:.0f} GB/s; " + ", ".join(f"{c}: {v:.1f}" for c, v in t.items()), flush=True)
            del problem, graphs
            torch.cuda.empty_cache()
    if args.json:
        json.dump(found, open(args.json, "w"))


if __name__ == "__main__":
    main()
