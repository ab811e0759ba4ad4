"""cuBLASLt's FP8 and BF16 GEMMs through PyTorch, timed for `fireq-repro bench gemm` (see baselines.py)."""
import torch
from baselines import Baselines, serve


class GemmBaselines(Baselines):
    def weight(self, n, k, bytes):
        """Random weights in enough copies that a round through them is `bytes` long."""
        self.graphs = self.weights8 = self.weights16 = None
        torch.cuda.empty_cache()
        w = torch.randn(n, k, device="cuda", dtype=torch.bfloat16).mul_(0.02)
        self.row_scale = w.float().abs().amax(1) / 448
        w8 = (w / self.row_scale[:, None]).to(torch.float8_e4m3fn)
        copies = lambda size: min(24, max(2, -(-bytes // size)))
        self.weights8 = [w8] + [w8.clone() for _ in range(copies(n * k) - 1)]
        self.weights16 = [w] + [w.clone() for _ in range(copies(n * k * 2) - 1)]

    def tokens(self, m, count):
        """Captures graphs of `count` GEMMs of m tokens each."""
        self.graphs = None
        n, k = self.weights8[0].shape
        x = torch.randn(m, k, device="cuda", dtype=torch.bfloat16)
        token_scale = x.float().abs().amax(1, keepdim=True) / 448
        x8 = (x / token_scale).to(torch.float8_e4m3fn)
        one, row_scale = torch.ones((), device="cuda"), self.row_scale[None, :].contiguous()

        def fp8(i, a, b):
            weight = self.weights8[i % len(self.weights8)].t()
            return torch._scaled_mm(x8, weight, scale_a=a, scale_b=b, out_dtype=torch.bfloat16, use_fast_accum=True)

        runs = {"fp8Tensor": lambda i: fp8(i, one, one), "fp8Row": lambda i: fp8(i, token_scale, row_scale),
                "bf16": lambda i: torch.matmul(x, self.weights16[i % len(self.weights16)].t())}
        self.count, self.inputs = count, (x, x8, token_scale, one, row_scale)
        self.graphs = {name: self.capture(run) for name, run in runs.items()}
        rows = torch.linspace(0, m - 1, min(m, 32), device="cuda").long()
        features = torch.linspace(0, n - 1, 128, device="cuda").long()
        out = fp8(0, token_scale, row_scale)[rows][:, features].double()
        exact = (x8[rows].double() * token_scale[rows].double()) @ (self.weights8[0][features].double() * self.row_scale[features, None].double()).t()
        return {"fp8Error": ((out - exact).norm() / exact.norm()).item()}


serve(GemmBaselines())
