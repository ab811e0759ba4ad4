"""What the benchmarks share: graphs, round-robin timing, problems with rotated weights, the cuBLASLt baselines."""
import statistics

import torch
from gemm import poison, reference, relative_error
from weights import activations, pack, problem


def capture(launches):
    """A CUDA graph of the launches, each run once before."""
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        launches[0]()
        with torch.cuda.graph(graph, stream=stream):
            for launch in launches:
                launch()
    torch.cuda.synchronize()
    graph.launches = launches  # the memory that it replays on must live as long
    return graph


def times(graphs, count, rounds=7):
    """graphs: name → graph of `count` launches; round robin, so that all meet the same clocks. → name → median µs."""
    found = {name: [] for name in graphs}
    for r in range(rounds + 1):
        for name, graph in graphs.items():
            a, b = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            a.record(); graph.replay(); b.record(); b.synchronize()
            if r:
                found[name].append(a.elapsed_time(b) / count * 1e3)
    return {name: statistics.median(v) for name, v in found.items()}


def sustained(graphs, count, seconds=0.4):
    """Replays each graph for a while. → name → (mean µs, SM MHz, watt) near the end."""
    import time

    import pynvml

    pynvml.nvmlInit()
    device, found = pynvml.nvmlDeviceGetHandleByIndex(torch.cuda.current_device()), {}
    for name, graph in graphs.items():
        torch.cuda.synchronize()
        start, replays = time.time(), 0
        samples = []
        while time.time() - start < seconds:
            for _ in range(4):
                graph.replay()
            replays += 4
            samples.append((pynvml.nvmlDeviceGetClockInfo(device, 1), pynvml.nvmlDeviceGetPowerUsage(device) / 1e3))
            torch.cuda.synchronize()
        spent = time.time() - start
        half = samples[len(samples) // 2:]
        found[name] = (spent / replays / count * 1e6, statistics.median(s[0] for s in half), statistics.median(s[1] for s in half))
    return found


class Weights:
    """One [N, K] weight in every form that is timed, in enough copies to pass the L2."""

    def __init__(self, n, k, full_kinds, scale_bytes=2):
        self.n, self.k = n, k
        self.copies = min(24, max(1, int(200e6 / (n * k / 2))))
        self.codes, self.scale = problem(n, k, full_kinds == {True})
        self.packed = {}
        for full in full_kinds:
            first = pack(self.codes, self.scale, full, scale_bytes)
            self.packed[full] = [first] + [first.clone() for _ in range(self.copies - 1)]
        w = (self.codes.float().view(n, k // 128, 128) * self.scale[:, :, None]).view(n, k)
        self.row_scale = w.abs().amax(1, keepdim=True) / 448
        first = (w / self.row_scale).to(torch.float8_e4m3fn)
        self.fp8 = [first] + [first.clone() for _ in range(max(2, self.copies // 2) - 1)]
        self.bf16 = [w.bfloat16() for _ in range(max(2, self.copies // 4))]

    def baselines(self, x8, token_scale, bf16=False):
        """name → function of the copy's number."""
        row_scale, one = self.row_scale.t().contiguous(), torch.ones((), device="cuda")
        scaled = lambda i, a, b: torch._scaled_mm(x8, self.fp8[i % len(self.fp8)].t(), scale_a=a, scale_b=b,
                                                  out_dtype=torch.bfloat16, use_fast_accum=True)
        found = {"fp8 row": lambda i: scaled(i, token_scale[:, None], row_scale), "fp8 tensor": lambda i: scaled(i, one, one)}
        if bf16:
            x16 = (x8.float() * token_scale[:, None]).bfloat16()
            found["bf16"] = lambda i: torch.matmul(x16, self.bf16[i % len(self.bf16)].t())
        return found

    def fp8_error(self, x8, token_scale, rows):
        row_scale = self.row_scale.t().contiguous()
        out = torch._scaled_mm(x8, self.fp8[0].t(), scale_a=token_scale[:, None], scale_b=row_scale,
                               out_dtype=torch.bfloat16, use_fast_accum=True)
        exact = (x8[rows].double() * token_scale[rows, None].double()) @ (self.fp8[0].double() * self.row_scale.double()).t()
        return relative_error(out[rows], exact)


CASES = [  # N, K, M, weights, activations
    (512, 512, 256, "random", "random"), (512, 4096, 300, "random", "random"), (1024, 1152, 127, "random", "extreme"),
    (528, 384, 129, "wild", "random"), (2064, 128, 1, "random", "random"), (4096, 1024, 2047, "huge-group", "random"),
    (768, 11008, 255, "random", "random"), (512, 640, 513, "all-minus-8", "extreme"), (16, 128, 3, "random", "random"),
    (400, 2048, 17, "wild", "extreme"), (4096, 4096, 16, "random", "random"), (1040, 1664, 64, "huge-group", "random")]


QUICK = 1 << 28  # products of a case that compute-sanitizer ends with in seconds


def check(name, kernel, prepare=None, max_m=1 << 30, limit=6e-3, most=1 << 60):
    """Runs every case of at most `most` products into poisoned memory against the exact result; names the first bad element.
    → worst error."""
    worst, full = 0.0, bool(kernel.info.fullCodes)
    for n, k, m, kind, x_kind in CASES:
        if m > max_m or n * k * m > most or getattr(kernel, "split", 1) > k // 128:
            continue
        codes, scale = problem(n, k, full, kind=kind)
        x8, token_scale = activations(m, k, x_kind)
        guarded = poison(torch.empty(m + 8, n, device="cuda", dtype=torch.bfloat16))
        out = guarded[:m]
        (prepare or kernel.prepare)(x8, pack(codes, scale, full, kernel.info.scaleBytes), token_scale, out)()
        torch.cuda.synchronize()
        exact = reference(x8, token_scale, codes, scale)
        error = relative_error(out, exact)
        worst = max(worst, error)
        if not error < limit or not guarded[m:].isnan().all():
            bad = (~((out.double() - exact).abs() <= 1e-2 * exact.abs() + 3e-2 * exact.pow(2).mean().sqrt())).nonzero()
            at = bad[0].tolist() if len(bad) else None
            print(f"WRONG {name}: N={n} K={k} M={m} {kind} {x_kind}: error {error:.3g}, {len(bad)} bad, first {at}"
                  + (f": {out[tuple(at)].item()} for {exact[tuple(at)].item()}" if at else ""), flush=True)
    return worst
