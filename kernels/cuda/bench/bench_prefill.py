"""Prefill attention over the paged INT4 cache: errors against float64 attention on the same codes, and times beside PyTorch's.

usage: bench_prefill.py DIR [--json FILE] [--check] [--seconds N]   DIR: holds attention_prefill.cubin
"""
import argparse
import ctypes
import json
import struct
import time

import torch
from bench_attention import D, E4M3, PAGE, capture
from bench_attention import Problem as Cache
from bench_store import SMS, THREADS, Function, provenance
from driver import Module, check, cuda
from gemm import pointer, relative_error
from harness import times
from torch.nn.attention import SDPBackend, sdpa_kernel

QUERIES, TILE_BYTES = 128, 2 * 128 * 128 + 2 * 512


def constant(module, name):
    address, size, value = ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_int32()
    check(cuda.cuModuleGetGlobal_v2(ctypes.byref(address), ctypes.byref(size), module.handle, name.encode()), name)
    check(cuda.cuMemcpyDtoH_v2(ctypes.byref(value), address, 4), name)
    return value.value


def kernels_of(module):
    """→ the kernels that decode tiles, by scale format, and those that attend, by name: all in the module."""
    tiles = {name: Function(module, f"attention_tiles_{name}", 128, constant(module, "attention_tiles_shared")) for name in ("sym_d128", "asym_d128")}
    names = sorted({n.decode() for n in module.image.split(b"\0") if n.startswith(b"attention_prefill_") and n.endswith(b"_shared")})
    kernels = {n[18:-7]: Function(module, n[:-7], THREADS, constant(module, n)) for n in names}
    return tiles, kernels


class Problem(Cache):
    """sequences: (tokens of context, of which new)."""

    def __init__(self, sequences, heads=32, key_heads=8, asymmetric=False, seed=0, kind="random", spare=3):
        super().__init__([n for n, _ in sequences], heads, key_heads, 1, asymmetric, seed, kind, spare)
        self.sequences, self.total = sequences, sum(new for _, new in sequences)
        g = torch.Generator(device="cuda").manual_seed(seed + 1)
        q = torch.randn(self.total, heads, D, device="cuda", generator=g)
        self.q_scale = (q.abs().amax(-1) / 448).contiguous()
        self.q = (q / self.q_scale[..., None]).clamp(-448, 448).to(E4M3)
        work, keys, start, first = [], [], 0, 0
        for s, (context, new) in enumerate(sequences):
            count = -(-context // QUERIES)
            keys += [(s, j, context, 0) for j in range(count)]
            for at in range(0, new, QUERIES):
                work.append((first, start + at, min(QUERIES, new - at), context - new + at + 1))
            start, first = start + new, first + count
        work.sort(key=lambda r: -(r[3] + r[2]))
        work, rows = torch.tensor(work, dtype=torch.int32).repeat_interleave(heads, 0), len(work)
        work[:, 1] = work[:, 1] * heads + torch.arange(heads, dtype=torch.int32).repeat(rows)
        self.work, self.keys = work.cuda().contiguous(), torch.tensor(keys, dtype=torch.int32).cuda()
        self.decoded = torch.empty(len(keys), key_heads, TILE_BYTES, dtype=torch.uint8, device="cuda")

    def flops(self):
        return sum(4 * self.heads * D * sum(range(context - new + 1, context + 1)) for context, new in self.sequences)

    def exact(self, most=1 << 30):
        """Of at most `most` new tokens a sequence. → their rows, float64 [rows, heads, 128]."""
        q, group, rows, found, start = self.q.double() * self.q_scale.double()[..., None], self.heads // self.key_heads, [], [], 0
        for i, (n, new) in enumerate(self.sequences):
            pages = self.table[i, :-(-n // PAGE)].long()
            take = lambda codes, s, z: ((codes[pages].double() - z[pages].double()[..., None]) * s[pages].double()[..., None]).transpose(0, 1).flatten(1, 2)[:, :n]
            k, v = take(self.k, self.ks, self.kz), take(self.v, self.vs, self.vz)
            mine = torch.arange(new, device="cuda") if new <= most else torch.randperm(new, device="cuda")[:most]
            for part in mine.split(64):
                x = q[start + part].view(len(part), self.key_heads, group, D)
                score = torch.einsum("rkgd,knd->rkgn", x, k) * D**-0.5
                score.masked_fill_(torch.arange(n, device="cuda") > (n - new + part)[:, None, None, None], float("-inf"))
                found.append(torch.einsum("rkgn,knd->rkgd", torch.softmax(score, -1), v).reshape(len(part), self.heads, D))
            rows.append(start + mine)
            start += new
        return torch.cat(rows), torch.cat(found)

    def prepare(self, tiles, kernel):
        """tiles decodes the cache; kernel attends. → the output, a launch of both, a launch of the second."""
        out = torch.full((self.total, self.heads, D), float("nan"), device="cuda", dtype=torch.bfloat16)
        decode = b"".join(map(pointer, (self.cache, self.table, self.keys, self.decoded))) + struct.pack("<2i", self.key_heads, self.table.shape[1])
        params = b"".join(map(pointer, (self.q, self.q_scale, self.decoded, self.work, out)))
        params += struct.pack("<3if", len(self.work), self.heads, self.key_heads, D**-0.5)
        keep = (self, out)  # what the parameters point to

        def attend(keep=keep):
            kernel.launch(min(SMS, len(self.work)), 1, params)

        def run(keep=keep):
            tiles.launch(len(self.keys), self.key_heads, decode)
            attend()

        return out, run, attend


CASES = [dict(sequences=[(1, 1)]), dict(sequences=[(128, 128)]), dict(sequences=[(129, 129), (63, 63), (64, 64), (65, 65), (2, 2)]),
         dict(sequences=[(200, 200), (1, 1), (65, 3), (300, 128), (257, 100), (1000, 77)]), dict(sequences=[(700, 700)], heads=8),
         dict(sequences=[(500, 333)], heads=64, key_heads=4), dict(sequences=[(384, 300)], heads=32, key_heads=32), dict(sequences=[(2048, 2048), (3000, 900)]),
         dict(sequences=[(900, 900), (40, 40)], kind="equal-keys"), dict(sequences=[(900, 900), (40, 40)], kind="huge-token"),
         dict(sequences=[(900, 900), (70, 70)], kind="huge-channel")]


def check_all(tiles, kernels):
    for name, kernel in kernels.items():
        worst = {}
        for seed, case in enumerate(CASES):
            problem = Problem(**case, asymmetric="asym" in name, seed=seed)
            out, run, _ = problem.prepare(tiles[name[:name.index("_d") + 5]], kernel)
            run()
            torch.cuda.synchronize()
            first = out.clone()
            run()
            torch.cuda.synchronize()
            rows, exact = problem.exact()
            error = relative_error(out[rows], exact)
            kind = case.get("kind", f"{len(case['sequences'])} × {problem.total}")
            worst[kind] = max(worst.get(kind, 0), error)
            if not error < 0.04 or not torch.equal(first, out):
                bad = ((out[rows].double() - exact).norm(dim=-1) > 0.1 * exact.norm(dim=-1)).nonzero()
                print(f"WRONG {name} {case}: error {error:.3g}, repeats {torch.equal(first, out)}, NaN {int(out.isnan().any(-1).sum())}, rows and heads "
                      f"off: {len(bad)}, first {bad[:3].tolist()}", flush=True)
        print(f"{name}: relative errors " + ", ".join(f"{k}: {v:.4f}" for k, v in worst.items()), flush=True)


def baselines(batch, length, heads, key_heads):
    q = torch.randn(batch, heads, length, D, device="cuda", dtype=torch.bfloat16)
    k, v = (torch.randn(batch, key_heads, length, D, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    found = {}
    for name, backend in (("cudnn bf16", SDPBackend.CUDNN_ATTENTION), ("flash bf16", SDPBackend.FLASH_ATTENTION)):
        def run(backend=backend):
            with sdpa_kernel(backend):
                return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=heads != key_heads)

        try:
            run()
            found[name] = run
        except RuntimeError as e:
            print(f"{name}: {str(e).splitlines()[0]}")
    return found


def main():
    args = argparse.ArgumentParser()
    args.add_argument("dir")
    args.add_argument("--json")
    args.add_argument("--check", action="store_true")
    args.add_argument("--seconds", type=float, default=60, help="no shape is begun after as many")
    args = args.parse_args()
    start, module = time.time(), Module(f"{args.dir}/attention_prefill.cubin")
    tiles, kernels = kernels_of(module)
    if args.check:
        check_all(tiles, kernels)
        print(f"checked after {time.time() - start:.0f} s")
    found = []
    for batch, length, key_heads in ((16, 1024, 8), (8, 2048, 8), (4, 4096, 8), (1, 16384, 8), (4, 4096, 32), (16, 1024, 32), (1, 65536, 8)):
        if time.time() - start > args.seconds:
            print(f"out of time before {batch} × {length}")
            break
        errors, graphs, flops = {}, {}, 0
        for asymmetric in (False, True):
            mine = {name: kernel for name, kernel in kernels.items() if ("asym" in name) == asymmetric}
            if not mine:
                continue
            problem = Problem([(length, length)] * batch, key_heads=key_heads, asymmetric=asymmetric, spare=0)
            flops = problem.flops()
            rows = None
            for name, kernel in mine.items():
                out, run, attend = problem.prepare(tiles[name[:name.index("_d") + 5]], kernel)
                graphs[name] = capture(run, 3)
                if name == "sym_d128":
                    graphs["sym_d128, tiles at hand"] = capture(attend, 3)
                graphs[name].replay()
                torch.cuda.synchronize()
                if rows is None:
                    rows, exact = problem.exact(16)
                errors[name] = relative_error(out[rows], exact)
            del problem, out
        for name, run in baselines(batch, length, 32, key_heads).items():
            graphs[name] = capture(run, 3)
        t = times(graphs, 3)
        for name, microseconds in t.items():
            found.append(dict(kernel=name, batch=batch, length=length, keyHeads=key_heads, microseconds=microseconds, flops=flops, error=errors.get(name)))
        print(f"{batch} × {length}, 32/{key_heads} heads, µs (TFLOP/s, error): " + ", ".join(
            f"{name} {v:.0f} ({flops / v / 1e6:.0f}{f', {errors[name]:.4f}' if name in errors else ''})" for name, v in t.items()), flush=True)
        del graphs
        torch.cuda.empty_cache()
    if args.json:
        json.dump(dict(provenance(), rows=found), open(args.json, "w"), indent=1)


if __name__ == "__main__":
    main()
