"""The CUDA driver API as far as these benchmarks need it, by ctypes, on PyTorch's context and current stream."""
import ctypes

import torch

cuda = ctypes.CDLL("libcuda.so.1")


def check(code, what):
    if code:
        text = ctypes.c_char_p()
        cuda.cuGetErrorString(code, ctypes.byref(text))
        raise RuntimeError(f"{what}: {text.value.decode() if text.value else code}")


class KernelInfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int32)
                for name in ("features", "tokens", "batch", "storeTokens", "cluster", "threads", "sharedBytes", "fullCodes", "scaleBytes", "keptBytes")]


class LaunchConfig(ctypes.Structure):
    _fields_ = [("grid", ctypes.c_uint * 3), ("block", ctypes.c_uint * 3), ("shared", ctypes.c_uint),
                ("stream", ctypes.c_void_p), ("attributes", ctypes.c_void_p), ("count", ctypes.c_uint)]


class LaunchAttribute(ctypes.Structure):
    _fields_ = [("id", ctypes.c_int), ("pad", ctypes.c_int), ("value", ctypes.c_uint * 16)]


CLUSTER_DIMENSION, PROGRAMMATIC_SERIALIZATION = 4, 6


class Module:
    def __init__(self, path):
        torch.cuda.init()
        torch.zeros(1, device="cuda")
        self.handle = ctypes.c_void_p()
        with open(path, "rb") as f:
            self.image = f.read()
        check(cuda.cuModuleLoadData(ctypes.byref(self.handle), self.image), f"loading {path}")

    def kernel(self, name):
        return Kernel(self, name)


class Kernel:
    def __init__(self, module, name):
        self.name, self.function = name, ctypes.c_void_p()
        check(cuda.cuModuleGetFunction(ctypes.byref(self.function), module.handle, name.encode()), name)
        address, size = ctypes.c_void_p(), ctypes.c_size_t()
        check(cuda.cuModuleGetGlobal_v2(ctypes.byref(address), ctypes.byref(size), module.handle, f"{name}_info".encode()),
              f"{name}_info")
        self.info = KernelInfo()
        check(cuda.cuMemcpyDtoH_v2(ctypes.byref(self.info), address, ctypes.sizeof(self.info)), name)
        check(cuda.cuFuncSetAttribute(self.function, 8, self.info.sharedBytes), f"{name}: shared memory")

    def launch(self, grid, params, cluster=None, dependent=False):
        """params: bytes of the one struct that the kernel takes; grid: blocks along x, y, z."""
        buffer = ctypes.create_string_buffer(params, len(params))
        pointers = (ctypes.c_void_p * 1)(ctypes.addressof(buffer))
        attributes = (LaunchAttribute * 2)()
        count = 0
        if cluster:
            attributes[count].id = CLUSTER_DIMENSION
            attributes[count].value[:3] = [cluster, 1, 1]
            count += 1
        if dependent:
            attributes[count].id = PROGRAMMATIC_SERIALIZATION
            attributes[count].value[0] = 1
            count += 1
        config = LaunchConfig((*grid,), (self.info.threads, 1, 1), self.info.sharedBytes,
                              torch.cuda.current_stream().cuda_stream, ctypes.addressof(attributes), count)
        check(cuda.cuLaunchKernelEx(ctypes.byref(config), self.function, pointers, None), f"launching {self.name}")


UINT8, FLOAT32, BF16 = 0, 7, 9
SWIZZLE_64, SWIZZLE_128 = 2, 3


def tensor_map(tensor, dtype, sizes, strides, box, swizzle=SWIZZLE_128):
    """128 bytes: a CUtensorMap. Innermost dimension first; strides in bytes, of all dimensions but the innermost."""
    rank = len(sizes)
    raw = ctypes.create_string_buffer(128 + 64)
    aligned = (ctypes.addressof(raw) + 63) // 64 * 64
    u64, u32 = ctypes.c_uint64, ctypes.c_uint32
    code = cuda.cuTensorMapEncodeTiled(
        ctypes.c_void_p(aligned), dtype, u32(rank), ctypes.c_void_p(tensor.data_ptr()), (u64 * rank)(*sizes),
        (u64 * (rank - 1))(*strides), (u32 * rank)(*box), (u32 * rank)(*[1] * rank), 0, swizzle, 2, 0)
    check(code, f"tensor map of {sizes}, box {box}")
    return ctypes.string_at(aligned, 128)
