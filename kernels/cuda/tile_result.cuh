// A finished tile on its way to global memory: scaled, with bias and residual or as SiLU(gate) · up, in shared memory as the copy
// engine wants it.
#pragma once
#include <cstdint>

#include "epilogue.cuh"
#include "ptx.cuh"

namespace fireq {

/// What a warpgroup finishes of a tile at once: 64 features × kResultTokens tokens, which the copy engine stores in one piece.
constexpr int kResultTokens = 128, kResultBytes = kResultTokens * 64 * 2;
constexpr int kPieceTokens = 32;  // scaled and put there at a time

template <Epilogue kEpilogue>
constexpr int kResultRowBytes = kEpilogue == Epilogue::kSiluMul ? 64 : 128;

/// Puts a warp's 16 features × 8 · kTiles tokens, rows of tokens, swizzled as the output's tensor map says. v: 16 × 8 tiles. kAdds:
/// what lies there is added first.
template <Epilogue kEpilogue, bool kAdds, int kTiles>
__device__ __forceinline__ void stagePiece(uint32_t to, float4 (&v)[kTiles], int warp, int lane) {
  if constexpr (kEpilogue == Epilogue::kSiluMul) {
    static_assert(kTiles == 4 && !kAdds, "half the features leave room for 32 tokens");
    uint32_t packed[4];
#pragma unroll
    for (int i = 0; i < 4; i++) packed[i] = ptx::packBf16(siluMul(v[i].x, v[i].z), siluMul(v[i].y, v[i].w));
    ptx::storeMatricesTransposed(to + lane * 64 + ((warp ^ (lane / 2 % 4)) * 16), packed[0], packed[1], packed[2], packed[3]);
  } else {
#pragma unroll
    for (int i = 0; i < kTiles; i += 2) {
      // Lane → matrix lane / 8: bit 0 picks features 8…15 of the warp's 16, bit 1 the second eight tokens.
      const int row = i * 8 + (lane / 16) * 8 + lane % 8, chunk = warp * 2 + (lane / 8) % 2;
      const uint32_t at = to + row * 128 + ((chunk ^ (row % 8)) * 16);
      if constexpr (kAdds) {
        const uint4 residual = ptx::loadMatricesTransposed(at);
        addPairs(v[i], residual.x, residual.y);
        addPairs(v[i + 1], residual.z, residual.w);
      }
      ptx::storeMatricesTransposed(at, ptx::packBf16(v[i].x, v[i].y), ptx::packBf16(v[i].z, v[i].w), ptx::packBf16(v[i + 1].x, v[i + 1].y),
                                   ptx::packBf16(v[i + 1].z, v[i + 1].w));
    }
  }
}

/// Finishes a warpgroup's accumulator of 64 features from `feature` on and 128 tokens, and puts it at `to`. scale: what d is to be
/// multiplied by, of this thread's rows; tokenScale: shared floats, the tokens'; kAdds: the residual lies at `to`.
template <Epilogue kEpilogue, bool kAdds, class Params>
__device__ __forceinline__ void stageResult(const Params& p, uint32_t to, const float (&d)[kResultTokens / 2], const float (&scale)[2],
                                            uint32_t tokenScale, int feature) {
  constexpr int kTiles = kPieceTokens / 8, kPieces = kResultTokens / kPieceTokens;
  const int thread = threadIdx.x % 128, lane = thread % 32, warp = thread / 32;
  const float2 bias = loadBias(p.operands.bias, feature + warp * 16, p.N);
  float2 scales[2][kTiles];  // a piece's tokens', a piece ahead
  auto loadScales = [&](int piece) {
#pragma unroll
    for (int i = 0; i < kTiles; i++) scales[piece % 2][i] = ptx::loadSharedFloat2(tokenScale + ((piece * kTiles + i) * 8 + lane % 4 * 2) * 4);
  };
  loadScales(0);
#pragma unroll
  for (int piece = 0; piece < kPieces; piece++) {
    if (piece + 1 < kPieces) loadScales(piece + 1);
    float4 v[kTiles];
#pragma unroll
    for (int i = 0; i < kTiles; i++) {
      const int c = piece * kTiles + i;
      const float2 t = scales[piece % 2][i];
      v[i] = make_float4(d[4 * c] * scale[0] * t.x + bias.x, d[4 * c + 1] * scale[0] * t.y + bias.x, d[4 * c + 2] * scale[1] * t.x + bias.y,
                         d[4 * c + 3] * scale[1] * t.y + bias.y);
    }
    stagePiece<kEpilogue, kAdds>(to + piece * (kPieceTokens * kResultRowBytes<kEpilogue>), v, warp, lane);
  }
}

}  // namespace fireq
