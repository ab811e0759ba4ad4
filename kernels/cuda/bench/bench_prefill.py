"""Prefill attention over the paged cache: errors against float64 attention on the same codes, and times beside PyTorch's.

usage: bench_prefill.py DIR [--json FILE] [--check] [--formats sym,asym,e4m3] [--dims 128,64] [--seconds N]
DIR: holds attention_prefill.cubin; with -DFIREQ_ALL_VARIANTS it has the ablations, too
"""
import argparse
import ctypes
import json
import struct
import time

import torch
from bench_attention import E4M3, PAGE
from bench_attention import Problem as Cache
from bench_store import SMS, provenance
from driver import LaunchAttribute, LaunchConfig, Module, check, cuda
from gemm import pointer, relative_error
from harness import capture, times
from torch.nn.attention import SDPBackend, sdpa_kernel

TILE, ITEM_COST = 128, 2  # tokens; of an item's beginning and end, in tiles


class Kernel:
    """One of attention_prefill.cu's, with what attention_info.h says of it."""

    def __init__(self, module, name):
        self.function, self.name = ctypes.c_void_p(), name
        check(cuda.cuModuleGetFunction(ctypes.byref(self.function), module.handle, name.encode()), name)
        address, size, info = ctypes.c_void_p(), ctypes.c_size_t(), (ctypes.c_int32 * 5)()
        check(cuda.cuModuleGetGlobal_v2(ctypes.byref(address), ctypes.byref(size), module.handle, f"{name}_info".encode()), name)
        check(cuda.cuMemcpyDtoH_v2(ctypes.byref(info), address, 20), name)
        self.threads, self.shared, _, _, self.tile_bytes = info
        check(cuda.cuFuncSetAttribute(self.function, 8, self.shared), f"{name}: shared memory")

    def launch(self, x, y, params, dependent=False):
        buffer = ctypes.create_string_buffer(params, len(params))
        pointers = (ctypes.c_void_p * 1)(ctypes.addressof(buffer))
        attributes = (LaunchAttribute * 1)()
        attributes[0].id, attributes[0].value[0] = 6, 1
        config = LaunchConfig((x, y, 1), (self.threads, 1, 1), self.shared, torch.cuda.current_stream().cuda_stream, ctypes.addressof(attributes),
                              int(dependent))
        check(cuda.cuLaunchKernelEx(ctypes.byref(config), self.function, pointers, None), self.name)


def kernels_of(module):
    """→ the kernels that make tiles, by format and head size, and those that attend, by head size and variant: all in the module."""
    names = sorted({n.decode()[:-5] for n in module.image.split(b"\0") if n.startswith(b"attention_") and n.endswith(b"_info")})
    of = lambda family: {n[len(family):]: Kernel(module, n) for n in names if n.startswith(family)}
    return of("attention_tiles_"), of("attention_prefill_")


def share(work, blocks):
    """work, by cost → its rows for as many blocks, each row's longest to those that have least; the last row filled up with nothing."""
    load, rows = torch.zeros(blocks), []
    for row in torch.nn.functional.pad(work, (0, 0, 0, -len(work) % blocks)).split(blocks):
        order = load.argsort(stable=True)
        shared = torch.empty_like(row)
        shared[order] = row
        load += ITEM_COST * (shared[:, 2] > 0) + (shared[:, 2] + shared[:, 3] + TILE - 2) // TILE
        rows.append(shared)
    return torch.cat(rows).contiguous()


class Problem(Cache):
    """sequences: (tokens of context, of which new)."""

    def __init__(self, sequences, heads=32, key_heads=8, seed=0, kind="random", spare=3, form="sym", d=128):
        super().__init__([n for n, _ in sequences], heads, key_heads, 1, False, seed, kind, spare, form, d)
        self.sequences, self.total = sequences, sum(new for _, new in sequences)
        g = torch.Generator(device="cuda").manual_seed(seed + 1)
        q = torch.randn(self.total, heads, d, device="cuda", generator=g)
        self.q_scale = (q.abs().amax(-1) / 448).contiguous()
        self.q = (q / self.q_scale[..., None]).clamp(-448, 448).to(E4M3)
        work, keys, start, first = [], [], 0, 0
        for s, (context, new) in enumerate(sequences):
            count = -(-context // TILE)
            keys += [(s, j, context, 0) for j in range(count)]
            at = 0
            while at < new:  # a piece ends where a tile does
                before = context - new + at
                queries = min(TILE - before % TILE, new - at)
                work.append((first, start + at, queries, before + 1))
                at += queries
            start, first = start + new, first + count
        work.sort(key=lambda r: -(r[3] + r[2]))
        work, rows = torch.tensor(work, dtype=torch.int32).repeat_interleave(heads, 0), len(work)
        work[:, 1] = work[:, 1] * heads + torch.arange(heads, dtype=torch.int32).repeat(rows)
        self.work, self.keys = share(work, min(SMS, len(work))).cuda(), torch.tensor(keys, dtype=torch.int32).cuda()

    def flops(self):
        return sum(4 * self.heads * self.d * sum(range(context - new + 1, context + 1)) for context, new in self.sequences)

    def exact(self, most=1 << 30):
        """Of at most `most` new tokens a sequence. → their rows, float64 [rows, heads, d]."""
        q, group, rows, found, start = self.q.double() * self.q_scale.double()[..., None], self.heads // self.key_heads, [], [], 0
        for i, (n, new) in enumerate(self.sequences):
            pages = self.table[i, :-(-n // PAGE)].long()
            take = lambda codes, s, z: ((codes[pages].double() - z[pages].double()[..., None]) * s[pages].double()[..., None]).transpose(0, 1).flatten(1, 2)[:, :n]
            k, v = take(self.k, self.ks, self.kz), take(self.v, self.vs, self.vz)
            mine = torch.arange(new, device="cuda") if new <= most else torch.randperm(new, device="cuda")[:most]
            for part in mine.split(64):
                x = q[start + part].view(len(part), self.key_heads, group, self.d)
                score = torch.einsum("rkgd,knd->rkgn", x, k) * self.d**-0.5
                score.masked_fill_(torch.arange(n, device="cuda") > (n - new + part)[:, None, None, None], float("-inf"))
                found.append(torch.einsum("rkgn,knd->rkgd", torch.softmax(score, -1), v).reshape(len(part), self.heads, self.d))
            rows.append(start + mine)
            start += new
        return torch.cat(rows), torch.cat(found)

    def prepare(self, tiles, kernel, dependent=False):
        """tiles makes tiles of the cache; kernel attends. → the output, a launch of both, a launch of the second."""
        decoded = torch.empty(len(self.keys), self.key_heads, tiles.tile_bytes, dtype=torch.uint8, device="cuda")
        out = torch.full((self.total, self.heads, self.d), float("nan"), device="cuda", dtype=torch.bfloat16)
        decode = b"".join(map(pointer, (self.cache, self.table, self.keys, decoded))) + struct.pack("<2i", self.key_heads, self.table.shape[1])
        params = b"".join(map(pointer, (self.q, self.q_scale, decoded, self.work, out)))
        params += struct.pack("<3if", len(self.work), self.heads, self.key_heads, self.d**-0.5)
        keep = (self, decoded, out)  # what the parameters point to

        def attend(keep=keep):
            kernel.launch(min(SMS, len(self.work)), 1, params, dependent)

        def run(keep=keep):
            tiles.launch(len(self.keys), self.key_heads, decode)
            attend()

        return out, run, attend


CASES = [dict(sequences=[(1, 1)]), dict(sequences=[(128, 128)]), dict(sequences=[(129, 129), (63, 63), (64, 64), (65, 65), (2, 2)]),
         dict(sequences=[(200, 200), (1, 1), (65, 3), (300, 128), (257, 100), (1000, 77)]), dict(sequences=[(700, 700)], heads=8),
         dict(sequences=[(500, 333)], heads=64, key_heads=4), dict(sequences=[(384, 300)], heads=32, key_heads=32), dict(sequences=[(2048, 2048), (3000, 900)]),
         dict(sequences=[(900, 900), (40, 40)], kind="equal-keys"), dict(sequences=[(900, 900), (40, 40)], kind="huge-token"),
         dict(sequences=[(900, 900), (70, 70)], kind="huge-channel")]


def check_all(tiles, kernels, forms, dims):
    for name, kernel in kernels.items():
        for form in forms:
            d = int(name.split("_")[0][1:])
            if d in dims:
                check_cases(f"{name} {form}", tiles[f"{form}_d{d}"], kernel, form, d)


def check_cases(name, tiles, kernel, form, d):
    worst = {}
    for seed, case in enumerate(CASES):
        problem = Problem(**case, form=form, d=d, seed=seed)
        out, run, _ = problem.prepare(tiles, kernel, dependent=seed % 2 == 1)
        run()
        torch.cuda.synchronize()
        first = out.clone()
        run()
        torch.cuda.synchronize()
        rows, exact = problem.exact()
        error = relative_error(out[rows], exact)
        kind = case.get("kind", f"{len(case['sequences'])} × {problem.total}")
        worst[kind] = max(worst.get(kind, 0), error)
        if not error < 0.024 or not torch.equal(first, out):
            bad = ((out[rows].double() - exact).norm(dim=-1) > 0.1 * exact.norm(dim=-1)).nonzero()
            print(f"WRONG {name} {case}: error {error:.3g}, repeats {torch.equal(first, out)}, NaN {int(out.isnan().any(-1).sum())}, rows and heads "
                  f"off: {len(bad)}, first {bad[:3].tolist()}", flush=True)
    print(f"{name}: relative errors " + ", ".join(f"{k}: {v:.4f}" for k, v in worst.items()), flush=True)


def baselines(batch, length, heads, key_heads, d=128):
    q = torch.randn(batch, heads, length, d, device="cuda", dtype=torch.bfloat16)
    k, v = (torch.randn(batch, key_heads, length, d, device="cuda", dtype=torch.bfloat16) for _ in range(2))
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
    args.add_argument("--formats", default="sym,asym,e4m3")
    args.add_argument("--dims", default="128,64", help="that are checked")
    args.add_argument("--seconds", type=float, default=60, help="no shape is begun after as many")
    args = args.parse_args()
    start, module = time.time(), Module(f"{args.dir}/attention_prefill.cubin")
    tiles, kernels = kernels_of(module)
    forms = args.formats.split(",")
    if args.check:
        check_all(tiles, kernels, forms, [int(d) for d in args.dims.split(",")])
        print(f"checked after {time.time() - start:.0f} s")
    found = []
    for batch, length, key_heads in ((16, 1024, 8), (8, 2048, 8), (4, 4096, 8), (1, 16384, 8), (4, 4096, 32), (16, 1024, 32), (1, 65536, 8)):
        if time.time() - start > args.seconds:
            print(f"out of time before {batch} × {length}")
            break
        errors, graphs, flops = {}, {}, 0
        for form in forms:
            problem = Problem([(length, length)] * batch, key_heads=key_heads, form=form, spare=0)
            flops = problem.flops()
            rows, exact = problem.exact(16)
            make = tiles[f"{form}_d128"]
            # Variants with the first format alone.
            for name in [n for n in kernels if n == "d128" or n.startswith("d128_") and form == forms[0]]:
                label = f"{form} {name}"
                out, run, attend = problem.prepare(make, kernels[name])
                graphs[label] = capture([run] * 3)
                if name == "d128" and form == forms[0]:
                    graphs[f"{label}, tiles at hand"] = capture([attend] * 3)
                    graphs[f"{label}, started early"] = capture([problem.prepare(make, kernels[name], dependent=True)[1]] * 3)
                graphs[label].replay()
                torch.cuda.synchronize()
                errors[label] = relative_error(out[rows], exact)
            del problem, out
        for name, run in baselines(batch, length, 32, key_heads).items():
            graphs[name] = capture([run] * 3)
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
