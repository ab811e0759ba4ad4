"""The INT4 × FP8 GEMM, as the tile choice picks its kernels, beside cuBLASLt FP8 and BF16 in one run.

usage: build.sh <folder> && python3 bench.py <folder> [--shapes NxK,…] [--tokens M,…] [--full] [--check [--quick]] [--json file]
"""
import argparse, ctypes, datetime, json, math, os, subprocess, sys

import torch
from driver import Module
from gemm import GemmLarge, GemmSmall, poison, reference, relative_error
from harness import QUICK, Weights, activations, capture, check, pack, problem, times

LLAMA = {"llama-2-7b": "12288x4096,4096x4096,22016x4096,4096x11008", "llama-3-8b": "6144x4096,4096x4096,28672x4096,4096x14336",
         "llama-2-13b": "15360x5120,5120x5120,27648x5120,5120x13824", "llama-3-70b": "10240x8192,8192x8192,57344x8192,8192x28672"}
SHAPES = "12288x4096,4096x4096,22016x4096,4096x11008,6144x4096,28672x4096,4096x14336"

parser = argparse.ArgumentParser()
parser.add_argument("folder")
parser.add_argument("--shapes", default=SHAPES, help="NxK,… or a model: " + ", ".join(LLAMA))
parser.add_argument("--tokens", default="1,8,16,32,64,128,256,512,1024,2048,4096,8192,16384")
parser.add_argument("--full", action="store_true", help="weights with codes −8…7")
parser.add_argument("--fp32", action="store_true", help="group scales in FP32")
parser.add_argument("--epilogues", action="store_true", help="time the residual and silu(gate) · up too")
parser.add_argument("--rounds", type=int, default=7)
parser.add_argument("--check", action="store_true")
parser.add_argument("--quick", action="store_true", help="check small cases only, for compute-sanitizer")
parser.add_argument("--json")
args = parser.parse_args()

modules = {name: Module(f"{args.folder}/gemm_{name}.cubin") for name in ("small", "medium", "large")}
heuristics = ctypes.CDLL(f"{args.folder}/libheuristics.so")
kind = ("full" if args.full else "sym") + ("_fp32" if args.fp32 else "_bf16")
sms = torch.cuda.get_device_properties(0).multi_processor_count


class Gemm:
    """Launches what chooseGemm picks."""

    def __init__(self):
        self.info = GemmSmall(modules["small"], f"i4_small_f128_t8_{kind}", 1).info

    def choose(self, m, n, k, epilogue=""):
        picked = (ctypes.c_int * 7)()
        heuristics.fireqChooseGemm(m, n, k, sms, picked)
        family, features, tokens, split, sweep, clusters, cut = picked
        if family == 2:
            return GemmLarge(modules["large"], f"i4_large_f{features}_t{tokens}_{kind}", sweep, clusters=clusters, cut=cut, silu=bool(epilogue))
        return GemmSmall(modules["small" if tokens <= 32 or (features, tokens) == (256, 64) else "medium"], f"i4_small_f{features}_t{tokens}{epilogue}_{kind}", split)

    def prepare(self, x8, packed, token_scale, out):
        return self.choose(*out.shape, x8.shape[1]).prepare(x8, packed, token_scale, out)


def check_epilogues():
    """Bias, residual (in place) and silu(gate) · up against float64, for every kernel that chooseGemm picks here."""
    worst = 0.0
    for m, n, k in [(1, 256, 512), (13, 528, 1024), (33, 1040, 384), (64, 512, 2048), (100, 4096, 4096), (129, 6144, 512),
                    (255, 4096, 640), (511, 4096, 1024), (700, 2064, 1152), (1025, 4096, 512), (130, 28672, 256)]:
        if m * n * k > most:
            continue
        codes, scale = problem(n, k, args.full)
        x8, token_scale = activations(m, k)
        packed, g = pack(codes, scale, args.full, 4 if args.fp32 else 2), torch.Generator(device="cuda").manual_seed(7)
        bias = torch.randn(n, device="cuda", generator=g).bfloat16()
        residual = torch.randn(m, n, device="cuda", generator=g).bfloat16() * 2
        exact = reference(x8, token_scale, codes, scale) + bias.double()
        for epilogue in ("", "_silu"):
            chosen = gemm.choose(m, n, k, epilogue)
            if epilogue:
                out = poison(torch.empty(m, n // 2, device="cuda", dtype=torch.bfloat16))
                gate, up = exact.view(m, n // 16, 2, 8).unbind(2)
                wanted = (gate / (1 + (-gate).exp()) * up).reshape(m, n // 2)
                chosen.prepare(x8, packed, token_scale, out, bias)()
            else:
                out, wanted = residual.clone(), exact + residual.double()
                chosen.prepare(x8, packed, token_scale, out, bias, out)()
            torch.cuda.synchronize()
            error = relative_error(out, wanted)
            worst = max(worst, error)
            if not error < 5e-3:
                print(f"WRONG {chosen.name} M={m} N={n} K={k}: error {error:.3g}", flush=True)
    return worst


gemm, most = Gemm(), QUICK if args.quick else 1 << 60
if args.check:
    print(f"checked epilogues, worst error {check_epilogues():.3g}", flush=True)
    print(f"checked, worst error {check('auto', gemm, most=most):.3g}", flush=True)
    for name in ("large_f128_t256", "large_f128_t128"):
        worst = max(check(f"{name}/{c}", GemmLarge(modules["large"], f"i4_{name}_{kind}", clusters=c), most=most) for c in (1, 3, 7, 30, 66))
        print(f"checked {name}, worst error {worst:.3g}", flush=True)
    for name in ("f128_t64", "f192_t64", "f128_t128", "f192_t128", "f256_t128"):
        worst = max(check(f"{name}/{s}", GemmSmall(modules["medium"], f"i4_small_{name}_{kind}", s), most=most) for s in (1, 2, 3, 4, 5, 6))
        print(f"checked small_{name}, worst error {worst:.3g}", flush=True)

rows = []
for shape in filter(None, LLAMA.get(args.shapes, args.shapes).split(",")):
    n, k = map(int, shape.split("x"))
    weights = Weights(n, k, {args.full}, 4 if args.fp32 else 2)
    packed = weights.packed[args.full]
    for m in map(int, args.tokens.split(",")):
        x8, token_scale = activations(m, k)
        out = poison(torch.empty(m, n, device="cuda", dtype=torch.bfloat16))
        flops, size = 2.0 * m * n * k, n * k * (0.5 + (4 if args.fp32 else 2) / 128)
        count = max(2, min(48, int(3e-3 / (flops / 1.2e15 + 5e-6))))
        sample = torch.cat([torch.arange(0, min(m, 256)), torch.arange(max(0, m - 37), m)]).unique().cuda()
        chosen = gemm.choose(m, n, k)
        graphs = {"ours": capture([chosen.prepare(x8, packed[i % len(packed)], token_scale, out) for i in range(count)])}
        error = relative_error(out[sample], reference(x8[sample], token_scale[sample], weights.codes, weights.scale))
        if args.epilogues:
            for name, columns in (("", n), ("_silu", n // 2)):
                variant, to = gemm.choose(m, n, k, name), torch.zeros(m, columns, device="cuda", dtype=torch.bfloat16)
                graphs["ours" + (name or " residual")] = capture(
                    [variant.prepare(x8, packed[i % len(packed)], token_scale, to, None, None if name else to) for i in range(count)])
        for name, run in weights.baselines(x8, token_scale, bf16=True).items():
            graphs[name] = capture([lambda i=i: run(i) for i in range(count)])
        t = times(graphs, count, args.rounds)
        fp8 = min(t["fp8 row"], t["fp8 tensor"])
        row = dict(N=n, K=k, M=m, kernel=chosen.name, split=getattr(chosen, "split", 1), us=t, ratio=fp8 / t["ours"], error=error,
                   fp8_error=weights.fp8_error(x8, token_scale, sample))
        rows.append(row)
        print(f"{n}x{k} M={m}: {chosen.name[3:]}/{row['split']} {t['ours']:.2f} us, {flops / t['ours'] / 1e6:.0f} TFLOP/s, "
              f"{size / t['ours'] / 1e3:.0f} GB/s, fp8 {fp8:.2f} ({row['ratio']:.3f}x), bf16 {t['bf16']:.2f} "
              f"({t['bf16'] / t['ours']:.2f}x), "
              + (f"residual {t['ours residual']:.2f}, silu {t['ours_silu']:.2f}, " if args.epilogues else "")
              + f"error {error:.2e} (fp8 {row['fp8_error']:.2e})", flush=True)
for m in sorted({r["M"] for r in rows}):
    ratios = [r["ratio"] for r in rows if r["M"] == m]
    print(f"M={m}: {math.exp(sum(map(math.log, ratios)) / len(ratios)):.3f}x the better cuBLASLt FP8 (least {min(ratios):.3f})")
if args.json:
    run = lambda *command: subprocess.run(command, capture_output=True, text=True).stdout.strip()
    json.dump(dict(gpu=torch.cuda.get_device_name(), driver=run("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
                   clocks=run("nvidia-smi", "--query-gpu=clocks.sm,clocks.mem", "--format=csv,noheader"),
                   date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
                   command=" ".join(sys.argv), commit=os.environ.get("FIREQ_COMMIT") or run("git", "rev-parse", "HEAD"), weights=kind, rows=rows), open(args.json, "w"), indent=1)
