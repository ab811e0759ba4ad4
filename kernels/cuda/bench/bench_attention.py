"""Decode attention over the paged cache: exactness against float64 attention on the same codes, and times.

usage: bench_attention.py DIR [--check] [--formats sym,asym,e4m3,bf16] [--dims 128,64] [--seconds N] [--json FILE]
DIR: holds attention_decode.cubin
"""
import argparse
import ctypes
import json
import struct
import time

import torch
from decode_plan import plan
from driver import LaunchAttribute, LaunchConfig, Module, check, cuda
from gemm import pointer, relative_error
from harness import times
from kv_layout import FORMATS, pack, page_bytes

D, PAGE = 128, 64
E4M3 = torch.float8_e4m3fn


class Kernel:
    """One of attention_decode, with what attention_info.h says of it."""

    def __init__(self, module, name):
        self.function, self.name = ctypes.c_void_p(), name
        check(cuda.cuModuleGetFunction(ctypes.byref(self.function), module.handle, name.encode()), name)
        address, size, info = ctypes.c_void_p(), ctypes.c_size_t(), (ctypes.c_int32 * 5)()
        check(cuda.cuModuleGetGlobal_v2(ctypes.byref(address), ctypes.byref(size), module.handle, f"{name}_info".encode()), name)
        check(cuda.cuMemcpyDtoH_v2(ctypes.byref(info), address, 20), name)
        self.threads, self.shared, _, self.queries, self.partial_bytes = info
        check(cuda.cuFuncSetAttribute(self.function, 8, self.shared), f"{name}: shared memory")

    def launch(self, blocks, params, dependent):
        buffer = ctypes.create_string_buffer(params, len(params))
        pointers = (ctypes.c_void_p * 1)(ctypes.addressof(buffer))
        attributes = (LaunchAttribute * 1)()
        attributes[0].id, attributes[0].value[0] = 6, 1
        config = LaunchConfig((blocks, 1, 1), (self.threads, 1, 1), self.shared, torch.cuda.current_stream().cuda_stream,
                              ctypes.addressof(attributes), int(dependent))
        check(cuda.cuLaunchKernelEx(ctypes.byref(config), self.function, pointers, None), self.name)


def kernels_of(module):
    names = {n.decode() for n in module.image.split(b"\0") if n.startswith(b"attention_decode_q") and n.endswith(b"_info")}
    return {n[17:-5]: Kernel(module, n[:-5]) for n in names}


class Decode:
    """A launch's plan and memory, for sequences of these lengths in these pages (lists)."""

    def __init__(self, kernel, lengths, pages, heads, key_heads, width=1, blocks=None):
        self.kernel, self.blocks = kernel, blocks or torch.cuda.get_device_properties(0).multi_processor_count
        self.sizes = heads, key_heads, width
        parts = -(-(heads // key_heads * width) // kernel.queries)
        self.runs, self.merges, self.pieces = (t.cuda() for t in plan(lengths, pages, key_heads, parts, self.blocks, kernel.threads // 32))
        self.partial = torch.full((2 * self.blocks * kernel.partial_bytes // 4,), float("nan"), device="cuda")
        self.arrived = torch.zeros(self.blocks * kernel.queries, dtype=torch.int32, device="cuda")

    def launch(self, q, q_scale, cache, table, out, dependent=False):
        heads, key_heads, width = self.sizes
        params = b"".join(map(pointer, (q, q_scale, cache, table, self.runs, self.pieces, self.merges, out, self.partial, self.arrived)))
        params += struct.pack("<5if", heads, key_heads, heads // key_heads, width, table.shape[1], q.shape[-1]**-0.5)
        self.kernel.launch(self.blocks, params, dependent)


class Problem:
    def __init__(self, lengths, heads=32, key_heads=8, width=1, asymmetric=False, seed=0, kind="random", spare=3, form=None, d=D):
        g = torch.Generator(device="cuda").manual_seed(seed)
        self.form, self.d = form or ("asym" if asymmetric else "sym"), d
        self.lengths, self.heads, self.key_heads, self.width, self.asymmetric = lengths, heads, key_heads, width, self.form == "asym"
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
        self.make(shape, kind, g)
        q = torch.randn(len(lengths) * width, heads, d, device="cuda", generator=g)
        self.q_scale = (q.abs().amax(-1) / 448).contiguous()
        self.q = (q / self.q_scale[..., None]).clamp(-448, 448).to(E4M3)
        self.cache = pack(self.form, self.k, self.v, self.ks, self.kz, self.vs, self.vz)
        self.poison()
        self.lengths_on_device = torch.tensor(lengths, dtype=torch.int32, device="cuda")

    def make(self, shape, kind, g):
        """Codes k, v, scales ks, vs and zero points kz, vz."""
        d, form = self.d, self.form
        scale = lambda: torch.rand(shape, device="cuda", generator=g) * 0.2 + 0.05
        if form in ("sym", "asym"):
            codes = lambda: torch.randint(0, 16, (*shape, d), device="cuda", dtype=torch.uint8, generator=g)
            top, equal = 15, 11
        else:
            kept = E4M3 if form == "e4m3" else torch.bfloat16
            codes = lambda: (torch.randn((*shape, d), device="cuda", generator=g) * (100 if form == "e4m3" else 0.6)).clamp(-448, 448).to(kept)
            top, equal = (448, 96) if form == "e4m3" else (8, 0.5)
        zero = lambda: torch.randint(5, 12, shape, device="cuda", dtype=torch.uint8, generator=g)
        self.k, self.v, self.ks, self.vs = codes(), codes(), scale(), scale()
        if form == "e4m3":
            self.ks, self.vs = self.ks / 16, self.vs / 16
        self.kz, self.vz = (zero(), zero()) if form == "asym" else (torch.full(shape, 8 if form == "sym" else 0, dtype=torch.uint8, device="cuda"),) * 2
        if kind == "equal-keys":
            self.k[:] = equal
        if kind == "huge-token":
            self.ks[:, :, 5] *= 200
            self.vs[:, :, 9] *= 200
            if form == "bf16":
                self.k[:, :, 5] *= 200
                self.v[:, :, 9] *= 200
        if kind == "huge-channel":
            self.k[..., 3], self.v[..., d - 58] = top, top
        rounded = E4M3 if form == "asym" else torch.bfloat16
        self.ks, self.vs = self.ks.to(rounded).float(), self.vs.to(rounded).float()
        if form == "bf16":
            self.ks, self.vs = torch.ones_like(self.ks), torch.ones_like(self.vs)

    def poison(self):
        """Tokens that no sequence has: scales that are NaN, zero points of 255; numbers that are NaN."""
        seen = torch.zeros(self.cache.shape[0], PAGE, dtype=torch.bool, device="cuda")
        for i, n in enumerate(self.lengths):
            for p in range(-(-n // PAGE)):
                seen[self.table[i, p], :min(PAGE, n - p * PAGE)] = True
        bits = {"sym": 4, "asym": 4, "e4m3": 8, "bf16": 16}[self.form]
        if bits > 4:  # all of such a token is NaN
            nan = lambda codes: codes.view(torch.uint8 if bits == 8 else torch.int16).masked_fill(~seen[:, None, :, None], 0x7F if bits == 8 else 0x7FFF)
            kept = self.k.dtype
            self.cache = pack(self.form, nan(self.k).view(kept), nan(self.v).view(kept), self.ks, self.kz, self.vs, self.vz)
        if self.form != "bf16":
            scales = self.cache.view(*self.cache.shape[:2], 2, -1)[..., 2 * 32 * self.d * bits // 8:].unflatten(-1, (32, 4))
            scales[~seen.unflatten(1, (2, 32))[:, None].expand(-1, self.key_heads, -1, -1)] = 0xFF

    def exact(self):
        out = torch.zeros(len(self.lengths) * self.width, self.heads, self.d, dtype=torch.float64, device="cuda")
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
                s = (k[:, :seen] @ q[row][:, :, None])[..., 0] * self.d**-0.5
                out[row] = (torch.softmax(s, -1)[:, None] @ v[:, :seen])[:, 0]
        return out

    def kernel(self, kernels):
        rows = self.heads // self.key_heads * self.width
        return kernels[f"q{8 if rows <= 8 else 16}_{self.form}_d{self.d}"]

    def prepare(self, kernels, blocks=None):
        pages = [row[:-(-n // PAGE)] for row, n in zip(self.table.tolist(), self.lengths)]
        return Decode(self.kernel(kernels), self.lengths, pages, self.heads, self.key_heads, self.width, blocks)

    def launch(self, decode, out, cache=None, dependent=False):
        decode.launch(self.q, self.q_scale, self.cache if cache is None else cache, self.table, out, dependent)


CASES = [dict(lengths=[1]), dict(lengths=[64, 65, 63, 0, 1, 130, 31, 32, 33]), dict(lengths=[1000, 17, 4097]), dict(lengths=[300, 5], width=2),
         dict(lengths=[777, 64, 4], width=4), dict(lengths=[300, 8, 0, 65], width=8), dict(lengths=[500, 80], heads=8, key_heads=8),
         dict(lengths=[500, 80], heads=64, key_heads=4), dict(lengths=[0, 0]), dict(lengths=[9000, 3], heads=4, key_heads=1),
         dict(lengths=[90 + 7 * i for i in range(100)]), dict(lengths=[1024] * 64), dict(lengths=[900, 40], kind="equal-keys"),
         dict(lengths=[900, 40], kind="huge-token"), dict(lengths=[900, 70], kind="huge-channel")]


def check_all(kernels, formats, dims):
    worst = {}
    for d in dims:
        for form in formats:
            for seed, case in enumerate(CASES):
                problem = Problem(**case, form=form, d=d, seed=seed)
                exact = problem.exact()
                for blocks in (None, 5):
                    decode = problem.prepare(kernels, blocks)
                    out = torch.full((len(problem.lengths) * problem.width, problem.heads, d), float("nan"), device="cuda", dtype=torch.bfloat16)
                    problem.launch(decode, out)
                    torch.cuda.synchronize()
                    first = out.clone()
                    problem.launch(decode, out, dependent=True)
                    torch.cuda.synchronize()
                    error = relative_error(out, exact) if exact.any() else out.abs().max().item()
                    name = f"{case.get('kind', 'random')} {form} d{d}"
                    worst[name] = max(worst.get(name, 0), error)
                    if not error < 0.004 or not torch.equal(first, out) or decode.arrived.any():
                        print(f"WRONG {case if len(case['lengths']) < 20 else len(case['lengths'])} {form} d{d} blocks={blocks}: error {error:.3g}, "
                              f"repeats {torch.equal(first, out)}", flush=True)
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


def mix(count, seed=1):
    """Lengths as served requests have them: most short, some very long."""
    g = torch.Generator().manual_seed(seed)
    return torch.exp(torch.randn(count, generator=g) * 1.1 + 7).clamp(20, 32000).int().tolist()


SHAPES = [([16384], 8), ([131072], 8), ([4096] * 16, 8), ([1024] * 64, 8), ([1024] * 128, 8), ([1024] * 256, 8), ([4096] * 64, 8),
          ([4096] * 128, 8), ([16384] * 64, 8), ([1024] * 64, 32), ([4096] * 32, 32), (mix(64), 8), (mix(128), 8)]


def time_shape(kernels, lengths, key_heads, form, d, heads=32, width=1):
    """→ median µs of launches after each other, alone and each begun early, over caches that pass the L2 between them."""
    problem = Problem(lengths, heads=heads, key_heads=key_heads, width=width, form=form, d=d, spare=0)
    del problem.k, problem.v
    bytes_ = sum(lengths) * key_heads * page_bytes(form, d) // PAGE
    caches = [problem.cache] + [problem.cache.clone() for _ in range(min(7, int(400e6 / bytes_)))]
    out = torch.empty(len(lengths) * width, heads, d, device="cuda", dtype=torch.bfloat16)
    decode = problem.prepare(kernels)
    state = [0]

    def run(dependent):
        state[0] += 1
        problem.launch(decode, out, caches[state[0] % len(caches)], dependent)

    t = times({"alone": capture(lambda: run(False), 16), "early": capture(lambda: run(True), 16)}, 16)
    return bytes_, t


def main():
    args = argparse.ArgumentParser()
    args.add_argument("dir")
    args.add_argument("--check", action="store_true")
    args.add_argument("--formats", default=",".join(FORMATS))
    args.add_argument("--dims", default="128,64")
    args.add_argument("--seconds", type=float, default=60)
    args.add_argument("--json")
    args = args.parse_args()
    start, formats, dims = time.time(), args.formats.split(","), [int(d) for d in args.dims.split(",")]
    kernels = kernels_of(Module(f"{args.dir}/attention_decode.cubin"))
    if args.check:
        check_all(kernels, formats, dims)
        print(f"checked after {time.time() - start:.1f} s")
    found = []
    for d in dims:
        for form in formats:
            for lengths, key_heads in SHAPES:
                if time.time() - start > args.seconds:
                    break
                bytes_, t = time_shape(kernels, lengths, key_heads, form, d)
                what = f"{len(lengths):4} × {lengths[0] if len(set(lengths)) == 1 else 'mixed'}"
                found.append(dict(sequences=len(lengths), length=lengths[0], mixed=len(set(lengths)) > 1, keyHeads=key_heads, headDim=d, format=form,
                                  microseconds=t, bytes=bytes_))
                print(f"{what:12}, 32/{key_heads} heads of {d}, {form}: {bytes_ / 1e6:7.1f} MB "
                      + ", ".join(f"{name} {v:8.1f} µs ({bytes_ / v / 1e3:.0f} GB/s)" for name, v in t.items()), flush=True)
    if args.json:
        json.dump(found, open(args.json, "w"), indent=1)


if __name__ == "__main__":
    main()
