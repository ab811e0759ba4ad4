"""PyTorch's cuDNN and flash attention in BF16, timed for `fireq-repro bench attention` (see baselines.py)."""
import torch
from baselines import Baselines, serve
from torch.nn.attention import SDPBackend, sdpa_kernel

BACKENDS = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION}
D = 128


class AttentionBaselines(Baselines):
    def prepare(self, causal, batch, length, heads, key_heads, count, bytes):
        """Captures graphs of `count` attentions: of all tokens, or of the last; on so many keys and values in turn that they are
        `bytes` long. → why some can't run."""
        self.graphs = self.inputs = self.runs = None
        torch.cuda.empty_cache()
        new = lambda h, n: torch.randn(batch, h, n, D, device="cuda", dtype=torch.bfloat16)
        copies = min(48, max(1, -(-bytes // (2 * batch * key_heads * length * D * 2))))
        q, kv = new(heads, length if causal else 1), [(new(key_heads, length), new(key_heads, length)) for _ in range(copies)]
        self.count, self.inputs, self.causal, self.graphs, self.runs, missing = count, (q, *kv[0]), causal, {}, {}, {}
        for name, backend in BACKENDS.items():
            def run(i, backend=backend):
                with sdpa_kernel(backend):
                    return torch.nn.functional.scaled_dot_product_attention(q, *kv[i % copies], is_causal=causal, enable_gqa=heads != key_heads)

            try:
                self.graphs[name], self.runs[name] = self.capture(run), run
            except RuntimeError as error:
                missing[name] = (str(error).splitlines() or [type(error).__name__])[0]
        return missing

    def error(self, name):
        """‖out − exact‖ / ‖exact‖ in float64: of the last sequence some rows, of the last key-value head's queries two."""
        q, k, v = self.inputs
        group = q.shape[1] // k.shape[1]
        heads = sorted({q.shape[1] - group, q.shape[1] - 1})
        rows = sorted({int(i * (q.shape[2] - 1) / 3) for i in range(4)})
        found = self.runs[name](0)[-1, heads][:, rows].double()
        score = q[-1, heads][:, rows].double() @ k[-1, -1].double().t() * D**-0.5
        if self.causal:
            seen = torch.arange(k.shape[2], device="cuda") <= torch.tensor(rows, device="cuda")[:, None]
            score = score.masked_fill(~seen, float("-inf"))
        exact = score.softmax(-1) @ v[-1, -1].double()
        return ((found - exact).norm() / exact.norm()).item()


serve(AttentionBaselines())
