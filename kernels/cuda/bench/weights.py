"""Random and adversarial problems, and the packing of INT4 weights as the kernels read them (see ../int4.cuh)."""
import torch

GROUP = 128


def pack(codes, scale, full, scale_bytes):
    """codes int8 [N, K] in −8…7 (−7…7 unless full), scale float [N, K/128] → uint8 [N/64, K/128, 4096 + 64·scale_bytes].

    N is padded to 64 with zero codes.
    """
    n, k = codes.shape
    padded = (n + 63) // 64 * 64
    if padded != n:
        codes = torch.cat([codes, codes.new_zeros(padded - n, k)])
        scale = torch.cat([scale, scale.new_ones(padded - n, k // GROUP)])
    device = codes.device
    assert full or codes.min() >= -7
    blocks = codes.view(padded // 64, 64, k // GROUP, GROUP).permute(0, 2, 1, 3)
    negative = blocks < 0
    magnitude = torch.where(negative, -blocks.to(torch.int16) - 1 if full else -blocks.to(torch.int16), blocks.to(torch.int16))
    thread = torch.arange(128, device=device)
    lane, row = thread % 32, thread // 32 * 16 + thread % 32 // 4
    out = torch.zeros(padded // 64, k // GROUP, 2, 128, 4, 4, dtype=torch.uint8, device=device)  # half, thread, word, byte
    for word in range(8):
        byte_at = lambda r, b: (slice(None), slice(None), row + r, word // 2 * 32 + word % 2 * 16 + lane % 4 * 4 + b)
        for b in range(4):
            even_m, even_s = magnitude[byte_at(0, b)], negative[byte_at(0, b)]
            odd_m, odd_s = magnitude[byte_at(8, b)], negative[byte_at(8, (b - 1) % 4)]
            value = even_m + even_s.to(torch.int16) * 128 + odd_m * 16 + odd_s.to(torch.int16) * 8
            out[:, :, word // 4, :, word % 4, b] = value.to(torch.uint8)
    dtype = {2: torch.bfloat16, 4: torch.float32}[scale_bytes]
    scales = scale.view(padded // 64, 64, k // GROUP).permute(0, 2, 1).to(dtype).contiguous().view(torch.uint8)
    return torch.cat([out.view(padded // 64, k // GROUP, 4096), scales], dim=2).contiguous()


def problem(n, k, full, seed=0, kind="random", device="cuda"):
    """→ codes int8 [N, K], scale float32 [N, K/128] (BF16 values)."""
    g = torch.Generator(device=device).manual_seed(seed)
    codes = torch.randint(-8 if full else -7, 8, (n, k), device=device, dtype=torch.int8, generator=g)
    scale = (torch.rand(n, k // GROUP, device=device, generator=g) + 0.5) * 0.01
    if kind == "wild":  # 2⁻²⁰…2¹⁰, both signs
        scale = torch.exp2(torch.rand(n, k // GROUP, device=device, generator=g) * 30 - 20)
        scale *= torch.where(torch.rand(n, k // GROUP, device=device, generator=g) < 0.5, -1.0, 1.0)
    if kind == "huge-group":
        scale[:, k // GROUP // 2] *= 1e5
    if kind == "all-minus-8" and full:
        codes.fill_(-8)
    return codes, scale.bfloat16().float()


def activations(m, k, kind="random", seed=0, device="cuda"):
    """→ x8 E4M3 [M, K], token scale float32 [M]."""
    g = torch.Generator(device=device).manual_seed(seed + 1)
    x = torch.randn(m, k, device=device, generator=g)
    if kind == "extreme":  # ±448, subnormals, zero rows
        x8 = torch.where(torch.rand(m, k, device=device, generator=g) < 0.5, -448.0, 448.0)
        x8[::3] = torch.randint(-7, 8, (len(x8[::3]), k), device=device, generator=g).float() * 2.0**-9
        x8[::5] = 0
        return x8.to(torch.float8_e4m3fn), torch.rand(m, device=device, generator=g) + 0.5
    scale = x.abs().amax(1).clamp(min=1e-12) / 448
    return (x / scale[:, None]).clamp(-448, 448).to(torch.float8_e4m3fn), scale


def dequantize(codes, scale):
    n, k = codes.shape
    return (codes.double().view(n, k // GROUP, GROUP) * scale.double()[:, :, None]).view(n, k)
