"""The block formats of ggml number by number, as its C code states them: slow, and written apart from ours."""

import struct

NL = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
FP4 = (0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6)


def half(block, at):
    return struct.unpack_from("<e", block, at)[0]


def signed(byte):
    return byte - 256 if byte > 127 else byte


def q4_0(b):
    return [((b[2 + i % 16] >> (4 * (i // 16))) % 16 - 8) * half(b, 0) for i in range(32)]


def q4_1(b):
    return [(b[4 + i % 16] >> (4 * (i // 16))) % 16 * half(b, 0) + half(b, 2) for i in range(32)]


def fives(b, at):
    (high,) = struct.unpack_from("<I", b, at)
    return [(b[at + 4 + i % 16] >> (4 * (i // 16))) % 16 + 16 * (high >> i & 1) for i in range(32)]


def q5_0(b):
    return [(q - 16) * half(b, 0) for q in fives(b, 2)]


def q5_1(b):
    return [q * half(b, 0) + half(b, 2) for q in fives(b, 4)]


def q8_0(b):
    return [signed(b[2 + i]) * half(b, 0) for i in range(32)]


def q2_k(b):
    found = []
    for i in range(256):
        scale, part = b[i // 16], i // 128
        q = b[16 + 32 * part + i % 32] >> (2 * (i % 128 // 32)) & 3
        found.append(half(b, 80) * (scale % 16) * q - half(b, 82) * (scale >> 4))
    return found


def q3_k(b):
    found = []
    for i in range(256):
        j, part = i // 16, i // 128
        low = b[96 + j] % 16 if j < 8 else b[96 + j - 8] >> 4
        scale = low + 16 * (b[104 + j % 4] >> (2 * (j // 4)) & 3) - 32
        q = b[32 + 32 * part + i % 32] >> (2 * (i % 128 // 32)) & 3
        q -= 0 if b[i % 32] >> (i // 32) & 1 else 4
        found.append(half(b, 108) * scale * q)
    return found


def scale_and_shift(b, j):
    q = b[4:16]
    if j < 4:
        return q[j] & 63, q[j + 4] & 63
    return q[j + 4] % 16 | q[j - 4] >> 6 << 4, q[j + 4] >> 4 | q[j] >> 6 << 4


def four_or_five(b, packed, high):
    found = []
    for i in range(256):
        group = i // 32
        q = b[packed + 32 * (group // 2) + i % 32] >> (4 * (group % 2)) & 15
        q += 16 * (b[high + i % 32] >> group & 1) if high else 0
        scale, shift = scale_and_shift(b, group)
        found.append(half(b, 0) * scale * q - half(b, 2) * shift)
    return found


def q4_k(b):
    return four_or_five(b, 16, 0)


def q5_k(b):
    return four_or_five(b, 48, 16)


def q6_k(b):
    found = []
    for i in range(256):
        part, quarter, at = i // 128, i % 128 // 32, i % 32
        q = b[64 * part + at + 32 * (quarter % 2)] >> (4 * (quarter // 2)) & 15
        q += (b[128 + 32 * part + at] >> (2 * quarter) & 3) << 4
        found.append(half(b, 208) * signed(b[192 + i // 16]) * (q - 32))
    return found


def q8_k(b):
    return [struct.unpack_from("<f", b)[0] * signed(b[4 + i]) for i in range(256)]


def iq4_nl(b):
    return [NL[b[2 + i % 16] >> (4 * (i // 16)) & 15] * half(b, 0) for i in range(32)]


def iq4_xs(b):
    (high,) = struct.unpack_from("<H", b, 2)
    found = []
    for i in range(256):
        group = i // 32
        scale = b[4 + group // 2] >> (4 * (group % 2)) & 15 | (high >> (2 * group) & 3) << 4
        found.append(half(b, 0) * (scale - 32) * NL[b[8 + 16 * group + i % 16] >> (4 * (i % 32 // 16)) & 15])
    return found


def mxfp4(b):
    return [FP4[b[1 + i % 16] >> (4 * (i // 16)) & 15] * 2.0 ** (b[0] - 127) for i in range(32)]


KINDS = {
    2: q4_0,
    3: q4_1,
    6: q5_0,
    7: q5_1,
    8: q8_0,
    10: q2_k,
    11: q3_k,
    12: q4_k,
    13: q5_k,
    14: q6_k,
    15: q8_k,
    20: iq4_nl,
    23: iq4_xs,
    39: mxfp4,
}
HALVES = {10: (80, 82), 11: (108,), 12: (0, 2), 13: (0, 2), 14: (208,), 3: (0, 2), 7: (0, 2), 15: (), 39: ()}
"""Where the float16 of a block stand, if not at its beginning alone."""
