"""Pages of the paged cache as kernels/cuda/kv_layout.cuh lays them out, from the text there alone."""
import torch

PAGE, BLOCK = 64, 32
FORMATS = ("sym", "asym", "e4m3", "bf16")
E4M3 = torch.float8_e4m3fn


def page_bytes(form, d):
    return PAGE * (2 * d * {"sym": 4, "asym": 4, "e4m3": 8, "bf16": 16}[form] // 8 + (0 if form == "bf16" else 4))


def grid(*sizes):
    return torch.meshgrid(*(torch.arange(n, device="cuda") for n in sizes), indexing="ij")


def key_places(form, d):
    """→ token of the block and channel of every code of a block's keys, in the order of memory."""
    if form in ("sym", "asym"):
        t, l, s, e, j = grid(BLOCK, 4, d // 32, 2, 4)
        return t.flatten(), (32 * s + 16 * (j // 2) + 8 * (j % 2) + 2 * l + e).flatten()
    width = 64 if form == "e4m3" else 32
    h, t, k = grid(d // width, BLOCK, width)
    return t.flatten(), (width * h + k).flatten()


def value_places(form, d):
    if form in ("sym", "asym"):
        i, l, x, c, e, j = grid(4, 4, 8, d // 32, 2, 4)
        return (8 * i + 2 * l + e).flatten(), (d // 4 * j + 8 * c + (x ^ 2 * l)).flatten()
    if form == "e4m3":
        i, h, l, x, c, j, e = grid(4, d // 64, 4, 8, 4, 2, 2)
        return (8 * i + 2 * l + e).flatten(), (64 * h + 32 * j + 8 * c + (x ^ 2 * l)).flatten()
    i, h, l, x, c, e = grid(4, d // 32, 4, 8, 4, 2)
    return (8 * i + 2 * l + e).flatten(), (32 * h + 8 * c + (x ^ 2 * l)).flatten()


def pack(form, k, v, ks=None, kz=None, vs=None, vz=None):
    """Codes [pages, heads, 64, d] (INT4: uint8 0…15; else float8_e4m3fn or bfloat16), scales float and zero points uint8 [pages, heads, 64]
    → uint8 [pages, heads, page_bytes]."""
    parts = []
    for codes, places in ((k, key_places), (v, value_places)):
        tokens, channels = places(form, codes.shape[-1])
        raw = codes if codes.dtype == torch.uint8 else codes.view(torch.uint8 if form == "e4m3" else torch.int16)
        ordered = raw.unflatten(2, (2, BLOCK))[..., tokens, channels]
        parts.append(ordered[..., ::2] | ordered[..., 1::2] << 4 if form in ("sym", "asym") else ordered.contiguous().view(torch.uint8))
    if form == "asym":
        scales = torch.stack([ks.to(E4M3).view(torch.uint8), kz, vs.to(E4M3).view(torch.uint8), vz], -1)
    elif form != "bf16":
        scales = torch.stack([ks.bfloat16(), vs.bfloat16()], -1).view(torch.uint8)
    if form != "bf16":
        parts.append(scales.flatten(2).unflatten(2, (2, 128)))
    return torch.cat(parts, -1).flatten(2).contiguous()


def unpack(form, d, pages):
    """uint8 [pages, heads, page_bytes] → raw codes of keys and of values [pages, heads, 64, d] (INT4: uint8; else as stored),
    uint8 scales' bytes [pages, heads, 64, 4] (none in BF16)."""
    blocks = pages.unflatten(-1, (2, -1))
    side = BLOCK * d * {"sym": 4, "asym": 4, "e4m3": 8, "bf16": 16}[form] // 8
    found = []
    for i, places in enumerate((key_places, value_places)):
        raw = blocks[..., i * side:(i + 1) * side].contiguous()
        if form in ("sym", "asym"):
            raw = torch.stack([raw & 15, raw >> 4], -1).flatten(-2)
        elif form == "bf16":
            raw = raw.view(torch.bfloat16)
        else:
            raw = raw.view(E4M3)
        tokens, channels = places(form, d)
        codes = torch.empty(*raw.shape[:-1], BLOCK, d, dtype=raw.dtype, device=raw.device)
        codes[..., tokens, channels] = raw
        found.append(codes.flatten(-3, -2))
    scales = None if form == "bf16" else blocks[..., 2 * side:].unflatten(-1, (BLOCK, 4)).flatten(-3, -2)
    return found[0], found[1], scales
