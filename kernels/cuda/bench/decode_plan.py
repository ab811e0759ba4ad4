"""The plan of a decode launch, as packages/kernels/src/cuda/decode-plan.ts makes it (kernels/cuda/attention_decode_plan.h says what it is)."""
import math

import torch

RUN, PIECE, MERGE, FIRST = 32, 8, 12, 20


def whole_segments(starts, blocks):
    most = math.ceil(starts[-1] / blocks * 1.04)
    ends, start = [], 0
    for s in range(1, len(starts)):
        if starts[s] - start <= most:
            continue
        if starts[s - 1] == start or starts[s] - starts[s - 1] > most:
            return None
        start = starts[s - 1]
        ends.append(start)
    ends.append(starts[-1])
    return ends if len(ends) <= blocks else None


def cut_runs(starts, blocks, warps):
    total = starts[-1]
    used = max(1, min(blocks, total // warps))
    ends = whole_segments(starts, used) or [(2 * (b + 1) * total + used) // (2 * used) for b in range(used)]
    cuts, start, segment = [total] * (blocks * warps + 1), 0, 0
    for b, end in enumerate(ends):
        while starts[segment] < start:
            segment += 1
        most = max(1, (end - start) // warps - 1)
        while not (found := fill_runs(starts, segment, start, end, most, warps)):
            most += 1
        cuts[b * warps:(b + 1) * warps] = found
        start = end
    return cuts


def fill_runs(starts, segment, start, end, most, warps):
    """Where a block's runs begin if each takes `most` units; None if that isn't all."""
    at, cuts = start, []
    for _ in range(warps):
        cuts.append(at)
        while starts[segment] < at:
            segment += 1
        at = min(end, at + most + int(starts[segment] == at))
    return cuts if at == end else None


def plan(lengths, pages, key_heads, parts, blocks, warps):
    """lengths and, of each sequence, its pages → runs, merges, pieces: int32 tensors."""
    per = key_heads * parts
    units_of = [-(-n // 32) for n in lengths]
    starts = [0]
    for s in range(len(lengths) * per):
        starts.append(starts[-1] + 1 + units_of[s // per])
    cuts = cut_runs(starts, blocks, warps)
    runs, pieces, segment = [], [], 0
    for v in range(blocks * warps):
        start, end, first_piece, units, places = cuts[v], cuts[v + 1], len(pieces), 0, []
        while segment < len(starts) - 1 and starts[segment] < end:
            sequence = segment // per
            total, first_unit = units_of[sequence], starts[segment] + 1
            first = max(0, start - first_unit)
            taken = max(0, min(total, end - first_unit) - first)
            if taken > 0 or (total == 0 and starts[segment] >= start):
                head, part = segment % per // parts, segment % parts
                for u in range(first, first + min(taken, FIRST - len(places))):
                    places.append((pages[sequence][u // 2] * key_heads + head) * 2 + u % 2)
                pieces.append([sequence, head, part, units, first, taken, lengths[sequence], int(taken < total)])
                units += taken
            if starts[segment + 1] > end:
                break
            segment += 1
        runs.append([len(pieces) - first_piece, first_piece, units, 0] + [0] * PIECE + places + [0] * (FIRST - len(places)))
    merges = [[] for _ in range(blocks)]
    group, name, crossing, slot = [], None, 0, 0

    def end_group():
        nonlocal crossing, slot
        if len(group) > 1:
            first = slot
            for merge in group:
                merge[6:10] = [crossing, slot, first, len(group)]
                slot += 1
            crossing += 1
        group.clear()

    for v, (count, first_piece, *_) in enumerate(runs):
        for i in range(count):
            piece = pieces[first_piece + i]
            if not piece[7]:
                continue
            if piece[:3] != name:
                end_group()
            name = piece[:3]
            if not group or v % warps == 0:
                group.append([*name, v % warps, 0, 0, -1, 0, 0, 0, 0, 0])
                merges[v // warps].append(group[-1])
            group[-1][4] += 1
            group[-1][5] = int(i + 1 < count)
            piece[7] = len(merges[v // warps])
    end_group()
    for run in runs:
        if run[0]:
            run[4:4 + PIECE] = pieces[run[1]]
    table = torch.zeros(blocks, 4 + (warps + 1) * MERGE, dtype=torch.int32)
    for b, found in enumerate(merges):
        table[b, 0] = len(found)
        for i, merge in enumerate(found):
            table[b, 4 + i * MERGE:4 + (i + 1) * MERGE] = torch.tensor(merge, dtype=torch.int32)
    return torch.tensor(runs, dtype=torch.int32), table, torch.tensor(pieces, dtype=torch.int32).view(-1, PIECE)
