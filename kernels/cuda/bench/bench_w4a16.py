"""INT4 weights × BF16 activations: exactness against float64, and times beside PyTorch's BF16 (cuBLASLt) in one run.

usage: build.sh <folder> && python3 bench_w4a16.py <folder> [--check] [--sweep] [--shapes NxK,…] [--tokens M,…] [--fp32] [--json file]
"""
import argparse, datetime, json, math, os, subprocess, sys

import torch
from driver import Module
from gemm import poison, relative_error
from harness import capture, times
from w4a16 import Chooser, W4a16, pack
from weights import dequantize, problem

SHAPES = "12288x4096,4096x4096,22016x4096,4096x11008,6144x4096,28672x4096,4096x14336"
TILES = {"small_f128_t8": 8, "small_f128_t16": 16, "small_f128_t32": 32, "small_f192_t32": 32, "small_f128_t64": 64,
         "small_f192_t64": 64, "small_f128_t128": 128, "small_f192_t128": 128, "large_f128_t256": 256}
CASES = [  # N, K, tokens beside whole tiles, split, weights, activations
    (16, 128, -1, 1, "random", "random"), (528, 384, 1, 2, "wild", "random"), (400, 2048, -3, 4, "wild", "extreme"),
    (1040, 1664, 0, 3, "huge-group", "random"), (2064, 1152, 5, 1, "random", "extreme"), (4096, 4096, 0, 6, "all-minus-8", "random"),
    (256, 14336, 2, 5, "random", "one-channel")]


def activations(m, k, kind="random", seed=0):
    """→ BF16 [M, K]."""
    g = torch.Generator(device="cuda").manual_seed(seed + 1)
    x = torch.randn(m, k, device="cuda", generator=g)
    if kind == "extreme":  # 2⁻⁴⁰…2⁴⁰, a row subnormal, a row zero
        x *= torch.exp2(torch.randint(-40, 41, (m, 1), device="cuda", generator=g).float())
        x[::5] = 0
        x[1::7] *= 2.0**-90
    if kind == "one-channel":
        x[:, k // 3] *= 1e4
    return x.bfloat16()


def check_case(kernel, m, n, k, kind, x_kind, seed):
    """bias and residual (in place) in every other case. → (error against float64, that of rounding to BF16)."""
    g = torch.Generator(device="cuda").manual_seed(seed)
    codes, scale = problem(n, k, True, seed, kind)
    x, packed = activations(m, k, x_kind, seed), pack(codes, scale, kernel.info.scaleBytes)
    exact = x.double() @ dequantize(codes, scale).t()
    size = exact.abs().mean().item()
    columns, bias, residual = n // 2 if kernel.silu else n, None, None
    if seed % 2:
        bias = (torch.randn(n, device="cuda", generator=g) * size).bfloat16()
        exact += bias.double()
    if kernel.silu:
        exact = exact.view(m, n // 16, 2, 8)
        exact = (torch.nn.functional.silu(exact[:, :, 0]) * exact[:, :, 1]).reshape(m, columns)
    guarded = poison(torch.empty(m + 8, columns, device="cuda", dtype=torch.bfloat16))
    out = guarded[:m]
    if seed % 2 and not kernel.silu:
        residual = out
        old = (torch.randn(m, n, device="cuda", generator=g) * size).bfloat16()
        exact += old.double()
    seen = []
    for _ in range(2):
        if residual is not None:
            residual.copy_(old)
        kernel.prepare(x, packed, out, bias, residual)()
        torch.cuda.synchronize()
        seen.append(guarded.clone())
    # Row by row, so that a huge row hides no other; those beyond BF16's range are left out.
    rows = (exact.abs().amax(1) < 3e38) & (exact.norm(dim=1) > 1e-30)
    error = relative_error(out[rows], exact[rows])
    each = (out[rows].double() - exact[rows]).norm(dim=1) / exact[rows].norm(dim=1)
    rounding = relative_error(exact[rows].bfloat16(), exact[rows])
    what = f"{kernel.name} split {kernel.split}: N={n} K={k} M={m} {kind} {x_kind}{' bias' if seed % 2 else ''}"
    if not error <= 1.05 * rounding or each.max() > 4e-3:
        bad = ((out.double() - exact).abs() > 1e-2 * exact.abs() + 1e-2 * size).nonzero()
        at = tuple(bad[0].tolist()) if len(bad) else None
        print(f"WRONG {what}: error {error:.3g}, worst row {each.max():.3g}, rounding {rounding:.3g}, {len(bad)} bad"
              + (f", first {at}: {out[at].item()} for {exact[at].item()}" if at else ""), flush=True)
    if not guarded[m:].isnan().all():
        print(f"WRONG {what}: written beyond the end", flush=True)
    if not torch.equal(seen[0].view(torch.int16), seen[1].view(torch.int16)):
        print(f"WRONG {what}: two runs differ", flush=True)
    return error / rounding


def check(module):
    for tile, tokens in TILES.items():
        for kind in ("bf16", "fp32", "silu_bf16", "silu_fp32"):
            worst = 0.0
            for seed, (n, k, beside, split, weights, x) in enumerate(CASES):
                kernel = W4a16(module, f"w4a16_{tile}_{kind}", 1 if "large" in tile else split)
                for tiles in ((1, 2) if kind == "bf16" else (1,)):
                    worst = max(worst, check_case(kernel, max(1, tiles * tokens + beside), n, k, weights, x, seed))
            print(f"w4a16_{tile}_{kind}: at most {worst:.4f} × the error of rounding to BF16", flush=True)


def candidates(m, n, k):
    """(tile, split) worth timing."""
    found = []
    for tile, tokens in TILES.items():
        if tokens >= 2 * m and tokens > 8 or (m > 8 * tokens and tokens < 256):
            continue
        features = int(tile.split("_f")[1].split("_")[0])
        tiles = -(-n // features) * -(-m // tokens)
        splits = [1] if "large" in tile or tiles > 264 else [s for s in (1, 2, 3, 4, 5, 6, 8) if tiles * s <= 320 and s <= k // 128]
        found += [(tile, s) for s in splits]
    return found


parser = argparse.ArgumentParser()
parser.add_argument("folder")
parser.add_argument("--shapes", default=SHAPES)
parser.add_argument("--tokens", default="1,8,16,32,64,128,256,512,1024,4096")
parser.add_argument("--fp32", action="store_true", help="group scales in FP32")
parser.add_argument("--check", action="store_true")
parser.add_argument("--sweep", action="store_true", help="time every tile and split")
parser.add_argument("--epilogues", action="store_true", help="time the residual and silu(gate) · up too")
parser.add_argument("--rounds", type=int, default=7)
parser.add_argument("--json")
args = parser.parse_args()

module = Module(f"{args.folder}/gemm_w4a16.cubin")
scale_bytes = 4 if args.fp32 else 2
chooser = Chooser(module, f"{args.folder}/libheuristics_w4a16.so", scale_bytes)
if args.check:
    check(module)

rows = []
for shape in filter(None, args.shapes.split(",")):
    n, k = map(int, shape.split("x"))
    codes, scale = problem(n, k, True)
    packed = [pack(codes, scale, scale_bytes)]
    packed += [packed[0].clone() for _ in range(min(24, max(2, int(200e6 / packed[0].nbytes))) - 1)]
    w = dequantize(codes, scale).bfloat16()
    dense = [w] + [w.clone() for _ in range(max(2, int(200e6 / w.nbytes)) - 1)]
    for m in map(int, args.tokens.split(",")):
        x, out = activations(m, k), torch.empty(m, n, device="cuda", dtype=torch.bfloat16)
        flops, size = 2.0 * m * n * k, packed[0].nbytes
        count = max(2, min(48, int(3e-3 / (flops / 7e14 + 5e-6))))
        run = lambda kernel, to=out, residual=None: capture([kernel.prepare(x, packed[i % len(packed)], to, None, residual) for i in range(count)])
        chosen = chooser.choose(m, n, k)
        graphs = {"ours": run(chosen), "bf16": capture([lambda i=i: torch.matmul(x, dense[i % len(dense)].t()) for i in range(count)])}
        if args.sweep:
            for tile, split in candidates(m, n, k):
                graphs[f"{tile}/{split}"] = run(W4a16(module, f"w4a16_{tile}_{chooser.kind}", split))
        if args.epilogues:
            half = torch.empty(m, n // 2, device="cuda", dtype=torch.bfloat16)
            graphs["residual"], graphs["silu"] = run(chosen, out.zero_(), out), run(chooser.choose(m, n, k, True), half)
        t = times(graphs, count, args.rounds)
        row = dict(N=n, K=k, M=m, kernel=chosen.name, split=chosen.split, us=t, ratio=t["bf16"] / t["ours"])
        rows.append(row)
        print(f"{n}x{k} M={m}: {chosen.name[6:]}/{chosen.split} {t['ours']:.2f} us, {flops / t['ours'] / 1e6:.0f} TFLOP/s, "
              f"{size / t['ours'] / 1e3:.0f} GB/s, bf16 {t['bf16']:.2f} ({row['ratio']:.2f}x)"
              + (f", residual {t['residual']:.2f}, silu {t['silu']:.2f}" if args.epilogues else "")
              + ("; best " + ", ".join(f"{name} {us:.2f}" for name, us in sorted(t.items(), key=lambda e: e[1])[:4]) if args.sweep else ""), flush=True)
for m in sorted({r["M"] for r in rows}):
    ratios = [r["ratio"] for r in rows if r["M"] == m]
    print(f"M={m}: {math.exp(sum(map(math.log, ratios)) / len(ratios)):.3f}x cuBLASLt BF16 (least {min(ratios):.3f})")
if args.json:
    ask = lambda *command: subprocess.run(command, capture_output=True, text=True).stdout.strip()
    json.dump(dict(gpu=torch.cuda.get_device_name(), driver=ask("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
                   clocks=ask("nvidia-smi", "--query-gpu=clocks.sm,clocks.mem", "--format=csv,noheader"),
                   date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), command=" ".join(sys.argv),
                   commit=os.environ.get("FIREQ_COMMIT") or ask("git", "rev-parse", "HEAD"), scales=chooser.kind, rows=rows),
              open(args.json, "w"), indent=1)
