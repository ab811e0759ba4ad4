"""Launches the GEMM kernels of a cubin on PyTorch tensors (the host side of ../gemm_large.cuh)."""
import struct

import torch
from driver import BF16, SWIZZLE_64, SWIZZLE_128, UINT8, Module, tensor_map

SMS = 132


def pointer(tensor):
    return struct.pack("<Q", 0 if tensor is None else tensor.data_ptr())


class Launch:
    """Launches when called, and keeps the tensors that its parameters point to: a graph replays what it captured."""

    def __init__(self, run, *tensors):
        self.run, self.tensors = run, tensors

    def __call__(self):
        self.run()


class GemmLarge:
    kept = None  # sums that blocks keep for each other, and whether they are there: shared by the launches of a stream

    def __init__(self, module: Module, name, sweep=8, dependent=True, clusters=SMS, cut=None, silu=False):
        """clusters: how many share the work, at most; cut: tiles that are cut among them, by default as many as serve."""
        self.kernel, self.sweep, self.name, self.dependent = module.kernel(name), sweep, name, dependent
        self.info, self.silu, self.clusters, self.cut = self.kernel.info, silu, clusters, cut
        if GemmLarge.kept is None:
            GemmLarge.kept = (torch.empty(SMS, 69632, device="cuda", dtype=torch.uint8), torch.zeros(SMS, 2, device="cuda", dtype=torch.int32))

    def prepare(self, x8, packed, token_scale, out, bias=None, residual=None):
        """A launch of out[M, N] = … (silu: out[M, N / 2]), its tensor maps encoded once."""
        (m, k), columns, info = x8.shape, out.shape[1], self.info
        n = columns * 2 if self.silu else columns
        params = tensor_map(x8, UINT8, [k, m], [k], [128, info.tokens // info.cluster])
        for result in (out, out if residual is None else residual):
            params += tensor_map(result, BF16, [columns, m], [2 * columns], [32 if self.silu else 64, info.storeTokens],
                                 SWIZZLE_64 if self.silu else SWIZZLE_128)
        params += pointer(packed) + pointer(token_scale) + pointer(bias) + pointer(residual)
        tiles, cut = -(-m // info.tokens) * -(-n // (info.features * info.cluster)), self.cut
        clusters = min(self.clusters, SMS // info.cluster, tiles if cut == 0 else tiles * (k // 128))
        if cut is None:
            cut = 0 if tiles % clusters == 0 else min(tiles, tiles % clusters + clusters)
        cut = min(cut, tiles)
        params += pointer(self.kept[0]) + pointer(self.kept[1]) + struct.pack("<6i", m, n, k, self.sweep, cut, self.silu)
        params += b"\0" * (-len(params) % 64)
        grid = clusters * info.cluster
        return Launch(lambda: self.kernel.launch((grid, 1, 1), params, dependent=self.dependent), x8, packed, token_scale, out, bias,
                      residual)


class GemmSmall:
    def __init__(self, module: Module, name, split, dependent=True):
        """split: parts of K, summed within a cluster."""
        self.kernel, self.name, self.split, self.dependent = module.kernel(name), name, split, dependent
        self.info, self.silu = self.kernel.info, "_silu_" in name

    def prepare(self, x8, packed, token_scale, out, bias=None, residual=None):
        (m, k), n, info = x8.shape, out.shape[1] * (2 if self.silu else 1), self.info
        params = tensor_map(x8, UINT8, [128, m, k // 128], [k, 128], [128, info.tokens // info.cluster, info.batch])
        params += pointer(packed) + pointer(token_scale) + pointer(out) + pointer(bias) + pointer(residual)
        params += struct.pack("<3i", m, n, k)
        params += b"\0" * (-len(params) % 64)
        grid = (-(-n // (info.features * info.cluster)) * info.cluster * self.split, -(-m // info.tokens), 1)
        return Launch(lambda: self.kernel.launch(grid, params, cluster=self.split * self.info.cluster, dependent=self.dependent),
                      x8, packed, token_scale, out, bias, residual)


def reference(x8, token_scale, codes, scale, rows=None):
    """Exact result in float64 → float64 [M, N]."""
    from weights import dequantize

    w = dequantize(codes, scale)
    return (x8.double() * token_scale.double()[:, None]) @ w.t()


def relative_error(out, ref):
    return ((out.double() - ref).norm() / ref.norm()).item()


def poison(out):
    out.fill_(float("nan"))
    return out
