"""Launches the plain kernels (../gemm_exact.cuh, ../gemm_dense.cuh) on PyTorch tensors."""
import struct

import torch
from driver import BF16, UINT8, tensor_map
from gemm import Launch, pointer
from weights import pack

OUT = {torch.bfloat16: 0, torch.float32: 1}


class Plain:
    def __init__(self, module, name, split=1):
        self.kernel, self.name, self.split = module.kernel(name), name, split
        self.info = self.kernel.info

    def launch(self, operands, tensors, m, n, k, token_scale, channel_scale, out, bias, residual, sweep=8):
        """operands: the parameters before PlainProblem."""
        params = operands + b"".join(map(pointer, (token_scale, channel_scale, out, bias, residual)))
        params += struct.pack("<5i", m, n, k, sweep, OUT[out.dtype])
        params += b"\0" * (-len(params) % 128)  # CUDA 13 aligns tensor maps so
        grid = (-(-m // self.info.tokens) * -(-n // self.info.features) * self.split, 1, 1)
        return Launch(lambda: self.kernel.launch(grid, params, cluster=self.split, dependent=True),
                      *tensors, token_scale, channel_scale, out, bias, residual)


class GemmExact(Plain):
    """i4_exact_<g32|g64|g128|lookup>_f128_t<tokens>_<codes>_<scale>"""

    BLOCK = 128

    def __init__(self, module, name, split=1):
        super().__init__(module, name, split)
        self.lookup = "_lookup_" in name
        self.group = 128 if self.lookup else int(name.split("_g")[1].split("_")[0])

    def pack(self, codes, scale):
        """codes int8 [N, K], scale float32 [N, K / group]."""
        n, k = codes.shape
        padded = -(-n // 64) * 64
        blocks = pack(codes, torch.ones(n, k // self.BLOCK, device="cuda"), bool(self.info.fullCodes), 2)[:, :, :4096]
        scale = torch.cat([scale, scale.new_ones(padded - n, k // self.group)])
        dtype = {2: torch.bfloat16, 4: torch.float32}[self.info.scaleBytes]
        scales = scale.view(padded // 64, 64, k // self.BLOCK, self.BLOCK // self.group).permute(0, 2, 3, 1).to(dtype).contiguous()
        return torch.cat([blocks, scales.view(torch.uint8).flatten(2)], dim=2).contiguous()

    def prepare(self, x8, packed, token_scale, channel_scale, out, bias=None, residual=None):
        (m, k), n = x8.shape, out.shape[1]
        operands = tensor_map(x8, UINT8, [k, m], [k], [128, self.info.tokens]) + pointer(packed)
        return self.launch(operands, (x8, packed), m, n, k, token_scale, channel_scale, out, bias, residual)


class GemmDense(Plain):
    """e4m3_<dense|precise>_f128_t<tokens>, bf16_dense_f128_t<tokens>"""

    def __init__(self, module, name, split=1):
        super().__init__(module, name, split)
        self.fp8, self.precise = name.startswith("e4m3"), "precise" in name or name.startswith("bf16")

    def prepare(self, x, w, out, token_scale=None, channel_scale=None, bias=None, residual=None):
        (m, k), n, size = x.shape, w.shape[0], x.element_size()
        dtype, slice_ = (UINT8, 128) if self.fp8 else (BF16, 64)
        operands = tensor_map(w, dtype, [k, n], [k * size], [slice_, self.info.features])
        operands += tensor_map(x, dtype, [k, m], [k * size], [slice_, self.info.tokens])
        return self.launch(operands, (x, w), m, n, k, token_scale, channel_scale, out, bias, residual)
