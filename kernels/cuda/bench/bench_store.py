"""The store kernel (RoPE, post-RoPE scaling, queries to E4M3, keys and values into the cache): equality with an emulation, decode
attention on what it wrote, and its bandwidth beside a copy's.

usage: bench_store.py DIR [--json FILE] [--small]   DIR: holds attention_store.cubin and attention_decode.cubin
--small: few tokens, no times; for compute-sanitizer --kernel-name kns=attention_store
"""
import argparse
import ctypes
import datetime
import json
import math
import os
import statistics
import struct
import subprocess
import sys

import torch
from bench_attention import D, E4M3, PAGE, Decode, Kernel, capture
from driver import Module, check, cuda
from gemm import pointer, relative_error
from harness import times
from kv_layout import FORMATS, page_bytes, unpack

HEADS, TOKENS, WARPS, SMS = 8, 4, 4, 132  # of a warp's step, of a block; kernels/cuda/attention_store.cuh


class Function:
    """A kernel that takes one struct."""

    def __init__(self, module, name, threads, shared=0):
        self.handle, self.name, self.threads, self.shared = ctypes.c_void_p(), name, threads, shared
        check(cuda.cuModuleGetFunction(ctypes.byref(self.handle), module.handle, name.encode()), name)
        if shared:
            check(cuda.cuFuncSetAttribute(self.handle, 8, shared), f"{name}: shared memory")

    def launch(self, x, y, params):
        buffer = ctypes.create_string_buffer(params, len(params))
        pointers = (ctypes.c_void_p * 1)(ctypes.addressof(buffer))
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        check(cuda.cuLaunchKernel(self.handle, x, y, 1, self.threads, 1, 1, self.shared, stream, pointers, None), self.name)


def provenance():
    ask = lambda *command: subprocess.run(command, capture_output=True, text=True).stdout.strip()
    return dict(gpu=torch.cuda.get_device_name(), driver=ask("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
                clocks=ask("nvidia-smi", "--query-gpu=clocks.sm,clocks.mem,power.draw", "--format=csv,noheader"), torch=torch.__version__,
                date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), command=" ".join(sys.argv),
                commit=os.environ.get("FIREQ_COMMIT") or ask("git", "rev-parse", "HEAD"))


def frequencies(d=D, theta=500000.0, llama31=False):
    """Llama's inverse frequencies [d / 2], FP32; with Llama 3.1's scaling (factor 8, low 1, high 4, 8192 tokens)."""
    f = 1.0 / theta ** (torch.arange(0, d, 2, dtype=torch.float64) / d)
    if llama31:
        length = 2 * math.pi / f
        smooth = (8192 / length - 1) / 3
        f = torch.where(length > 8192, f / 8, torch.where(length < 8192 / 4, f, (1 - smooth) * f / 8 + smooth * f))
    return f.float()


def fma(a, b, c):
    """To the bit but for a double rounding's odds of 2⁻²⁹."""
    return (a.double() * b.double() + c.double()).float()


def divide(a, b):
    return (a.double() / b.double()).float()


def emulate(qkv, positions, inverse_frequencies, heads, key_heads, key_scale=None, query_scale=None, form="sym"):
    """→ q E4M3 [T, H, d], its scales, and of keys and values: raw codes [T, Hkv, d], scale bytes uint8 [T, Hkv, 2] (none in BF16), which are
    finite."""
    half = inverse_frequencies.numel()
    x = qkv.float().view(qkv.shape[0], heads + 2 * key_heads, 2 * half)
    angle = positions.float()[:, None] * inverse_frequencies
    c, s = (f(angle.double()).float()[:, None] for f in (torch.cos, torch.sin))
    a, b = x[:, :heads + key_heads, :half], x[:, :heads + key_heads, half:]
    turned = torch.cat([fma(a, c, -(b * s)), fma(b, c, a * s)], -1)
    q, k, v = turned[:, :heads], turned[:, heads:], x[:, heads + key_heads:]
    if key_scale is not None:
        q, k = q * query_scale.repeat_interleave(heads // key_heads, 0), k * key_scale
    most = torch.where(q.isnan(), 0, q.abs()).amax(-1)
    q_scale = torch.where(most == 0, 1.0, divide(most, torch.tensor(448.0)).clamp(min=2.0**-126))
    q8 = divide(q, q_scale[..., None]).clamp(-448, 448).to(E4M3)
    return q8, q_scale, round_kv(k, form), round_kv(v, form)


def bf16_scale(x, most):
    """BF16(max|x| / most), and NaN beside a NaN or an infinity; its bytes."""
    scale = divide(x.abs().amax(-1, keepdim=True), torch.tensor(most)).bfloat16().float().clamp(min=2.0**-126)
    bits = torch.where(x.isfinite().all(-1, keepdim=True), scale.bfloat16().view(torch.int16), 0x7FC0).to(torch.int16)
    return scale, bits.view(torch.uint8)


def round_kv(x, form):
    finite = x.isfinite().all(-1, keepdim=True)
    if form == "bf16":
        return x.bfloat16().view(torch.int16), None, ~x.isnan().any(-1, keepdim=True)
    if form == "asym":
        low, high = x.clamp(max=0).amin(-1, keepdim=True), x.clamp(min=0).amax(-1, keepdim=True)
        scale = divide(high - low, torch.tensor(15.0)).nan_to_num(0).clamp(max=448).to(E4M3).float().clamp(min=2.0**-9)
        zero = divide(-low, scale).nan_to_num(0).round().clamp(0, 15)
        codes = (divide(x, scale).round() + zero).clamp(0, 15)
        parts = torch.cat([torch.where(finite, scale.to(E4M3).view(torch.uint8), 0x7F).to(torch.uint8), torch.where(finite, zero, 0).to(torch.uint8)], -1)
    elif form == "sym":
        scale, parts = bf16_scale(x, 7.0)
        codes = divide(x, scale).round().clamp(-8, 7) + 8
    else:
        scale, parts = bf16_scale(x, 448.0)
        return divide(x, scale).clamp(-448, 448).to(E4M3).view(torch.uint8), parts, finite
    return torch.where(finite, codes, 0).to(torch.uint8), parts, finite


class Store:
    def __init__(self, tokens, heads=32, key_heads=8, form="sym", d=D, seed=0, scaled=False, llama31=True, pages=None, slots=None, positions=None,
                 kind="random"):
        g = torch.Generator(device="cuda").manual_seed(seed)
        self.tokens, self.heads, self.key_heads, self.form, self.d = tokens, heads, key_heads, form, d
        self.qkv = torch.randn(tokens, (heads + 2 * key_heads) * d, device="cuda", generator=g).bfloat16()
        if kind == "adversarial":
            rows = self.qkv.view(tokens, -1, d)
            rows[0] = 0
            rows[1, :, 17] = 3e4
            rows[2, ::2] = 1e-39
            rows[3] *= 1e-37
            rows[4] = 1
            rows[5, ::3, 5] = float("inf")
            rows[6, 1::3, 50] = float("nan")
            rows[7] *= 1e37
            rows[8, :, ::5] = -0.0
        pages = pages or -(-tokens // PAGE) + 2
        self.pages = pages
        self.slots = torch.randperm(pages * PAGE, device="cuda", generator=g)[:tokens].int() if slots is None else slots
        self.positions = torch.randint(0, 131072, (tokens,), device="cuda", dtype=torch.int32, generator=g) if positions is None else positions
        self.frequencies = frequencies(d, llama31=llama31).cuda()
        self.key_scale = torch.exp2(torch.rand(key_heads, d, device="cuda", generator=g) * 4 - 2) if scaled else None
        self.query_scale = 1 / self.key_scale if scaled else None
        self.q = torch.full((tokens, heads, d), 0x7F, dtype=torch.uint8, device="cuda")
        self.q_scale = torch.full((tokens, heads), float("nan"), device="cuda")
        self.cache = torch.full((pages, key_heads, page_bytes(form, d)), 0xA5, dtype=torch.uint8, device="cuda")

    def prepare(self, functions):
        params = b"".join(map(pointer, (self.qkv, self.positions, self.slots, self.frequencies, self.key_scale, self.query_scale, self.q, self.q_scale,
                                        self.cache))) + struct.pack("<3i", self.tokens, self.heads, self.key_heads)
        blocks, steps = -(-self.tokens // TOKENS), TOKENS // 2 * (-(-self.heads // HEADS) + 2 * -(-self.key_heads // HEADS))
        parts, function = min(-(-4 * SMS // blocks), -(-steps // WARPS)), functions[self.form, self.d]
        return lambda keep=self: function.launch(blocks, parts, params)

    def bytes(self):
        kv = page_bytes(self.form, self.d) // PAGE
        return self.tokens * ((self.heads + 2 * self.key_heads) * self.d * 2 + self.heads * (self.d + 4) + self.key_heads * kv + 8)

    def compare(self, name):
        """Names the first difference. A code may differ by one where the emulation rounds twice (odds of 2⁻²⁹ a step). → differing codes."""
        q8, q_scale, key, value = emulate(self.qkv, self.positions, self.frequencies, self.heads, self.key_heads, self.key_scale, self.query_scale,
                                          self.form)
        k, v, scales = unpack(self.form, self.d, self.cache)
        if self.form in ("e4m3", "bf16"):
            k, v = (codes.view(torch.uint8 if self.form == "e4m3" else torch.int16) for codes in (k, v))
        stored = self.slots >= 0
        page, place = (self.slots[stored] // PAGE).long(), (self.slots[stored] % PAGE).long()
        different = 0

        def same(what, got, expected, apart=0):
            nonlocal different
            wrong = got != expected
            if got.dtype.is_floating_point:
                wrong &= ~(got.isnan() & expected.isnan())
            different += int(wrong.sum())
            far = wrong & ((got.int() - expected.int()).abs() > apart) if apart else wrong
            if far.any() or int(wrong.sum()) > 1 + 1e-5 * wrong.numel():
                at = tuple((far if far.any() else wrong).nonzero()[0].tolist())
                print(f"WRONG {name}: {what}: {int(wrong.sum())} differ, first at {at}: {got[at].item()} for {expected[at].item()}", flush=True)

        finite = ~q_scale.isinf()  # beside an infinity all is NaN once it is scaled back: codes don't matter
        broken = self.q.view(E4M3).float().isnan()
        same("NaN of q", broken[finite], q8.float().isnan()[finite])
        usable = finite[..., None] & ~broken
        same("codes of q", self.q[usable], q8.view(torch.uint8)[usable], 1)
        same("scales of q", self.q_scale, q_scale)
        for what, codes, part, (expected, parts, good) in (("keys", k, 0, key), ("values", v, 2, value)):
            good = good[stored].expand(-1, -1, self.d)
            same(f"codes of {what}", codes[page, :, place][good], expected[stored][good], 1)
            if scales is not None:
                same(f"scales of {what}", scales[page, :, place][..., part:part + 2], parts[stored])
        untouched = torch.ones(self.pages, PAGE, dtype=torch.bool, device="cuda")
        untouched[page, place] = False
        where = untouched[:, None].expand(-1, self.key_heads, -1)
        left = {"e4m3": (0xA5,), "bf16": (0xA5A5 - 0x10000,)}.get(self.form, (5, 10))
        for what, found, kept in (("keys", k, left), ("values", v, left), ("scales", scales, (0xA5,))):
            if found is not None and not torch.isin(found[where], torch.tensor(kept, dtype=found.dtype, device="cuda")).all():
                print(f"WRONG {name}: {what} of other tokens were written", flush=True)
        return different


def check_store(functions, most=1 << 30):
    following = lambda start: lambda tokens: torch.arange(start, start + tokens, device="cuda", dtype=torch.int32)
    for form, d in functions:
        cases = [dict(tokens=1), dict(tokens=333), dict(tokens=700, scaled=True, llama31=False), dict(tokens=64, heads=32, key_heads=32, scaled=True),
                 dict(tokens=50, heads=6, key_heads=2), dict(tokens=90, heads=7, key_heads=1, slots=following(63)),
                 dict(tokens=64, kind="adversarial"), dict(tokens=64, kind="adversarial", scaled=True, slots=following(0)), dict(tokens=4096),
                 dict(tokens=4095, slots=following(64))]
        found = []
        for seed, case in enumerate(case for case in cases if case["tokens"] <= most):
            slots = case["slots"](case["tokens"]) if "slots" in case else None
            problem = Store(**{**case, "slots": slots}, form=form, d=d, seed=seed)
            if case["tokens"] == 333:
                problem.slots[::7] = -1
            problem.prepare(functions)()
            torch.cuda.synchronize()
            found.append(problem.compare(f"{case} {form} d{d}"))
        print(f"store, {form}, heads of {d}: codes that differ from the emulation, a case each: {found}", flush=True)


def check_decode(functions, decode):
    """Sequences stored token by token, then attended to with the queries that were stored with them."""
    for form in decode:
        lengths, heads, key_heads = [1, 100, 777, 64], 32, 8
        per, total = -(-max(lengths) // PAGE), sum(lengths)
        order = torch.randperm(len(lengths) * per, device="cuda").int().view(len(lengths), per)
        positions = torch.cat([torch.arange(n, device="cuda", dtype=torch.int32) for n in lengths])
        sequence = torch.repeat_interleave(torch.arange(len(lengths), device="cuda"), torch.tensor(lengths, device="cuda"))
        slots = order[sequence, (positions // PAGE).long()] * PAGE + positions % PAGE
        store = Store(total, form=form, pages=order.numel(), slots=slots.int().contiguous(), positions=positions, seed=5, scaled=True)
        store.prepare(functions)()
        last = torch.tensor(lengths, device="cuda").cumsum(0) - 1
        q, q_scale = store.q[last].contiguous(), store.q_scale[last].contiguous()
        out = torch.full((len(lengths), heads, D), float("nan"), device="cuda", dtype=torch.bfloat16)
        Decode(decode[form], lengths, order.tolist(), heads, key_heads).launch(q, q_scale, store.cache, order, out)
        torch.cuda.synchronize()
        q8, s8, key, value = emulate(store.qkv, positions, store.frequencies, heads, key_heads, store.key_scale, store.query_scale, form)

        def real(codes, parts, _):
            if form == "asym":
                return (codes.double() - parts[..., 1:].double()) * parts[..., :1].contiguous().view(E4M3).double()
            return (codes.double() - 8) * parts.contiguous().view(torch.bfloat16).double()

        def attend(queries, keys, values):
            result, start = torch.empty(len(lengths), heads, D, dtype=torch.float64, device="cuda"), 0
            for i, n in enumerate(lengths):
                k, v = (t[start:start + n].transpose(0, 1).repeat_interleave(heads // key_heads, 0) for t in (keys, values))
                score = (k @ queries[start + n - 1][:, :, None])[..., 0] * D**-0.5
                result[i] = (torch.softmax(score, -1)[:, None] @ v)[:, 0]
                start += n
            return result

        exact = attend(q8.double() * s8.double()[..., None], real(*key), real(*value))
        x = store.qkv.double().view(total, -1, D)
        angle = (positions.double()[:, None] * store.frequencies.double())[:, None]
        a, b = x[:, :heads + key_heads, :D // 2], x[:, :heads + key_heads, D // 2:]
        turned = torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)
        unquantized = attend(turned[:, :heads], turned[:, heads:], x[:, heads + key_heads:])
        error = relative_error(out, exact)
        print(f"decode on stored tokens, {form}: error {error:.4f} against the same codes, "
              f"{relative_error(out, unquantized):.3f} against unquantized attention" + ("" if error < 0.003 else "  WRONG"), flush=True)


def copy_bandwidth():
    a, b = (torch.empty(1 << 30, dtype=torch.uint8, device="cuda") for _ in range(2))
    found = []
    for _ in range(12):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record(); b.copy_(a); stop.record(); stop.synchronize()
        found.append(2 * a.numel() / start.elapsed_time(stop) / 1e6)
    return statistics.median(found[2:])


def time_store(functions):
    copy, found = copy_bandwidth(), []
    print(f"copy: {copy:.0f} GB/s")
    cases = [(heads, tokens, form, scaled, D) for heads in ((32, 8), (32, 32)) for tokens in (1, 16, 128, 1024, 4096, 16384)
             for form, scaled in (("sym", False), ("sym", True), ("asym", True))]
    cases += [((32, 8), 16384, form, True, d) for form, d in functions if (form, d) not in (("sym", D), ("asym", D))]
    for (heads, key_heads), tokens, form, scaled, d in cases:
        count = max(1, min(32, 16384 // tokens))
        problems = [Store(tokens, heads, key_heads, form=form, d=d, scaled=scaled, seed=i, slots=torch.arange(64, 64 + tokens, device="cuda", dtype=torch.int32))
                    for i in range(count)]
        runs = [p.prepare(functions) for p in problems]
        t = times({"store": capture(lambda: [run() for run in runs], 1)}, count)["store"]
        rate = problems[0].bytes() / t / 1e3
        found.append(dict(tokens=tokens, heads=heads, keyHeads=key_heads, headDim=d, format=form, scaled=scaled, microseconds=t, bytes=problems[0].bytes()))
        print(f"{tokens:6} tokens, {heads}/{key_heads} heads of {d}, {form}{', scaled' if scaled else ''}: {t:8.2f} µs, {rate:.0f} GB/s, "
              f"{rate / copy:.2f} of a copy", flush=True)
        del problems, runs
    return dict(copyGBs=copy, rows=found)


def main():
    args = argparse.ArgumentParser()
    args.add_argument("dir")
    args.add_argument("--json")
    args.add_argument("--small", action="store_true")
    args = args.parse_args()
    module = Module(f"{args.dir}/attention_store.cubin")
    functions = {(form, d): Function(module, f"attention_store_{form}_d{d}", 32 * WARPS, WARPS * 2 * HEADS * d * 2) for form in FORMATS for d in (128, 64)}
    if args.small:
        return check_store(functions, 64)
    check_store(functions)
    module_decode = Module(f"{args.dir}/attention_decode.cubin")
    check_decode(functions, {form: Kernel(module_decode, f"attention_decode_q8_{form}_d128") for form in ("sym", "asym")})
    found = time_store(functions)
    if args.json:
        json.dump(dict(provenance(), **found), open(args.json, "w"), indent=1)


if __name__ == "__main__":
    main()
