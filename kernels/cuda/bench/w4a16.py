"""Launches the kernels of gemm_w4a16.cu on PyTorch tensors, and packs weights for them (see ../int4_bf16.cuh)."""
import ctypes
import struct

import torch
from driver import BF16, SWIZZLE_64, SWIZZLE_128, tensor_map
from gemm import SMS, Launch, pointer

GROUP = 128


def pack(codes, scale, scale_bytes):
    """codes int8 [N, K] in −8…7, scale float [N, K/128] → uint8 [N/64, K/128, 4096 + 64·scale_bytes], N padded to 64."""
    n, k = codes.shape
    padded = (n + 63) // 64 * 64
    if padded != n:
        codes = torch.cat([codes, codes.new_zeros(padded - n, k)])
        scale = torch.cat([scale, scale.new_ones(padded - n, k // GROUP)])
    # Rows: warp, half, lane / 4. Columns: step / 4, step % 4, half of a step, lane % 4, parity.
    nibbles = (codes + 8).view(padded // 64, 4, 2, 8, k // GROUP, 2, 4, 2, 4, 2)
    # → block, group, step / 4, warp, lane / 4, lane % 4, step % 4, then nibbles: column parity, half of the step, half of the rows
    nibbles = nibbles.permute(0, 4, 5, 1, 3, 8, 6, 9, 7, 2).to(torch.uint8).reshape(padded // 64, k // GROUP, 4096, 2)
    blocks = nibbles[..., 0] | nibbles[..., 1] << 4
    dtype = {2: torch.bfloat16, 4: torch.float32}[scale_bytes]
    scales = scale.view(padded // 64, 64, k // GROUP).permute(0, 2, 1).to(dtype).contiguous().view(torch.uint8)
    return torch.cat([blocks, scales], dim=2).contiguous()


class W4a16:
    """w4a16_<small|large>_f…_t…[_silu]_<bf16|fp32>. split: parts of K, summed within a cluster; sweep: of the large kernels."""

    def __init__(self, module, name, split=1, sweep=8):
        self.kernel, self.name, self.split, self.sweep = module.kernel(name), name, split, sweep
        self.info, self.silu, self.large = self.kernel.info, "_silu_" in name, "_large_" in name

    def prepare(self, x, packed, out, bias=None, residual=None):
        """A launch of out[M, N] = x · Wᵀ + bias + residual (silu: out[M, N / 2]), its tensor maps encoded once."""
        (m, k), columns, info = x.shape, out.shape[1], self.info
        n = columns * (2 if self.silu else 1)
        params = tensor_map(x, BF16, [64, m, k // 64], [2 * k, 128], [64, info.tokens // info.cluster, info.batch])
        if self.large:
            params += tensor_map(out, BF16, [columns, m], [2 * columns], [32 if self.silu else 64, info.storeTokens],
                                 SWIZZLE_64 if self.silu else SWIZZLE_128)
            params += b"".join(map(pointer, (packed, bias, residual))) + struct.pack("<4i", m, n, k, self.sweep)
            tiles = -(-m // info.tokens) * -(-n // (info.features * info.cluster))
            grid, cluster = (min(tiles, SMS // info.cluster) * info.cluster, 1, 1), None
        else:
            params += b"".join(map(pointer, (packed, None, out, bias, residual))) + struct.pack("<3i", m, n, k)
            grid, cluster = (-(-n // info.features) * self.split, -(-m // info.tokens), 1), self.split
        params += b"\0" * (-len(params) % 128)
        return Launch(lambda: self.kernel.launch(grid, params, cluster=cluster, dependent=True), x, packed, out, bias, residual)


class Chooser:
    """What chooseW4a16 picks."""

    def __init__(self, module, library, scale_bytes):
        self.module, self.kind, self.library = module, {2: "bf16", 4: "fp32"}[scale_bytes], ctypes.CDLL(library)
        self.sms = torch.cuda.get_device_properties(0).multi_processor_count

    def choose(self, m, n, k, silu=False):
        picked = (ctypes.c_int * 5)()
        self.library.fireqChooseW4a16(m, n, k, self.sms, picked)
        family, features, tokens, split, sweep = picked
        name = f"w4a16_{['', 'small', 'large'][family]}_f{features}_t{tokens}{'_silu' if silu else ''}_{self.kind}"
        return W4a16(self.module, name, split, sweep)
