"""Where the time of a feed-forward block goes beside its two GEMMs: SiLU(gate) · up, the rounding to FP8, the residual.

usage: build.sh <folder> && python3 bench_feed_forward.py <folder>[,<folder of a variant>…] [--models hidden:intermediate,…] [--tokens M,…] [--json file]

A variant's folder holds only what differs; the rest is the first one's.
"""
import argparse, ctypes, json, os, struct

import torch
from driver import LaunchAttribute, LaunchConfig, Module, PROGRAMMATIC_SERIALIZATION, check, cuda
from gemm import GemmLarge, GemmSmall, Launch
from harness import capture, times
from weights import activations, pack, problem

parser = argparse.ArgumentParser()
parser.add_argument("folders")
parser.add_argument("--models", default="4096:14336,4096:11008")
parser.add_argument("--tokens", default="1,8,16,32,64,128,256,512,1024,2048,4096")
parser.add_argument("--rounds", type=int, default=7)
parser.add_argument("--parts", default="gate_up,silu,down,residual,quantize,gemms,silu+down,gemms+residual,silu+quantize,block")
parser.add_argument("--json")
args = parser.parse_args()
folders, sms = args.folders.split(","), torch.cuda.get_device_properties(0).multi_processor_count


class Kernels:
    """A folder's kernels, launched as chooseGemm says."""

    def __init__(self, folder):
        at = lambda file: next(f"{f}/{file}" for f in (folder, folders[0]) if os.path.exists(f"{f}/{file}"))
        self.name = os.path.basename(folder.rstrip("/"))
        self.modules = {name: Module(at(f"gemm_{name}.cubin")) for name in ("small", "medium", "large")}
        self.heuristics = ctypes.CDLL(os.path.abspath(at("libheuristics.so")))
        self.quantizer, self.functions = Module(at("quantize.cubin")), {}

    def gemm(self, m, n, k, silu=False):
        picked = (ctypes.c_int * 7)()
        self.heuristics.fireqChooseGemm(m, n, k, sms, picked)
        family, features, tokens, split, sweep, clusters, cut = picked
        if family == 2:
            return GemmLarge(self.modules["large"], f"i4_large_f{features}_t{tokens}_sym_bf16", sweep, clusters=clusters, cut=cut, silu=silu)
        name = f"i4_small_f{features}_t{tokens}{'_silu' if silu else ''}_sym_bf16"
        return GemmSmall(self.modules["small" if tokens <= 32 or (features, tokens) == (256, 64) else "medium"], name, split)

    def quantize(self, x, out, scale):
        """As packages/kernels/src/cuda/quantize.ts launches it."""
        rows, columns = x.shape
        threads_for = lambda vectors: -(-columns // (8 * vectors * 32)) * 32
        wanted = 1024 if rows <= 2 * sms else 256  # as packages/kernels/src/cuda/quantize.ts
        vectors = next((v for v in (1, 2) if threads_for(v) <= wanted), 4)
        name, threads = f"quantize_tokens_{vectors}", threads_for(vectors)
        if name not in self.functions:
            self.functions[name] = ctypes.c_void_p()
            check(cuda.cuModuleGetFunction(ctypes.byref(self.functions[name]), self.quantizer.handle, name.encode()), name)
        values = [ctypes.c_uint64(x.data_ptr()), ctypes.c_uint64(out.data_ptr()), ctypes.c_uint64(scale.data_ptr()), ctypes.c_int32(columns)]
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(v) for v in values))
        attributes = (LaunchAttribute * 1)()
        attributes[0].id, attributes[0].value[0] = PROGRAMMATIC_SERIALIZATION, 1

        def run():
            config = LaunchConfig((rows, 1, 1), (threads, 1, 1), 0, torch.cuda.current_stream().cuda_stream, ctypes.addressof(attributes), 1)
            check(cuda.cuLaunchKernelEx(ctypes.byref(config), self.functions[name], pointers, None), name)

        return Launch(run, x, out, scale, values)


variants, rows = [Kernels(folder) for folder in folders], []
for model in args.models.split(","):
    hidden, intermediate = map(int, model.split(":"))

    def rotated(n, k):
        packed = pack(*problem(n, k, False), False, 2)
        return [packed] + [packed.clone() for _ in range(min(24, max(1, int(250e6 / packed.nbytes))))]

    gate_up, down = rotated(2 * intermediate, hidden), rotated(hidden, intermediate)
    for m in map(int, args.tokens.split(",")):
        x8, x_scale = activations(m, hidden)
        h8, h_scale = activations(m, intermediate, seed=3)
        half = lambda columns: torch.randn(m, columns, device="cuda").bfloat16()
        both, h, out, x = half(2 * intermediate), half(intermediate), half(hidden), half(hidden)
        count = round(min(32, max(2, 3e-3 / (6 * m * hidden * intermediate / 1.2e15 + 1e-5))))
        graphs = {}
        for v in variants:
            plain, silu = v.gemm(m, 2 * intermediate, hidden), v.gemm(m, 2 * intermediate, hidden, True)
            last = v.gemm(m, hidden, intermediate)
            one = {
                "gate_up": [plain.prepare(x8, w, x_scale, both) for w in gate_up],
                "silu": [silu.prepare(x8, w, x_scale, h) for w in gate_up],
                "down": [last.prepare(h8, w, h_scale, out) for w in down],
                "residual": [last.prepare(h8, w, h_scale, out, None, x) for w in down],
                "quantize": [v.quantize(h, h8, h_scale)],
            }
            rounds = {"gemms": "gate_up down", "silu+down": "silu down", "gemms+residual": "gate_up residual", "silu+quantize": "silu quantize",
                      "block": "silu quantize residual"}
            for part in args.parts.split(","):
                names = rounds.get(part, part).split()
                graphs[f"{part} {v.name}"] = capture([one[name][i % len(one[name])] for i in range(count) for name in names])
        t = times(graphs, count, args.rounds)
        rows.append(dict(hidden=hidden, intermediate=intermediate, M=m, kernels=[plain.name, last.name], us=t))
        for v in variants:
            print(f"{model} M={m} {v.name}: " + ", ".join(f"{part} {t[f'{part} {v.name}']:.2f}" for part in args.parts.split(","))
                  + f" | block / gemms {t[f'block {v.name}'] / t[f'gemms {v.name}']:.3f}" * ("block" in args.parts and "gemms" in args.parts)
                  + f" | {plain.name[3:]}/{getattr(plain, 'split', 1)} {last.name[3:]}/{getattr(last, 'split', 1)}", flush=True)
        del graphs, one
if args.json:
    json.dump(rows, open(args.json, "w"), indent=1)
