// A finished tile on its way to global memory: scaled, with bias and residual or as SiLU(gate) · up, in shared memory as the copy
// engine wants it.
#pragma once
#include <cstdint>

#include "epilogue.cuh"
#include "ptx.cuh"

namespace fireq {

/// What a warpgroup finishes of a tile at once: 64 features × kResultTokens tokens, in pieces that the copy engine stores.
constexpr int kResultTokens = 128, kPieceTokens = 32, kPieceBytes = 4096, kResultPieces = kResultTokens / kPieceTokens;
constexpr int kResultBytes = kResultPieces * kPieceBytes;

/// Puts a warp's 16 features × 8 · kTiles tokens, rows of tokens, swizzled as the output's tensor map says. v: 16 × 8 tiles.
template <Epilogue kEpilogue, int kTiles>
__device__ __forceinline__ void stagePiece(uint32_t to, const float4 (&v)[kTiles], int warp, int lane) {
  if constexpr (kEpilogue == Epilogue::kSiluMul) {
    static_assert(kTiles == 4, "half the features leave room for 32 tokens");
    uint32_t packed[4];
#pragma unroll
    for (int i = 0; i < 4; i++) packed[i] = ptx::packBf16(siluMul(v[i].x, v[i].z), siluMul(v[i].y, v[i].w));
    ptx::storeMatricesTransposed(to + lane * 64 + ((warp ^ (lane / 2 % 4)) * 16), packed[0], packed[1], packed[2], packed[3]);
  } else {
#pragma unroll
    for (int i = 0; i < kTiles; i += 2) {
      // Lane → matrix lane / 8: bit 0 picks features 8…15 of the warp's 16, bit 1 the second eight tokens.
      const int row = i * 8 + (lane / 16) * 8 + lane % 8, chunk = warp * 2 + (lane / 8) % 2;
      ptx::storeMatricesTransposed(to + row * 128 + ((chunk ^ (row % 8)) * 16), ptx::packBf16(v[i].x, v[i].y), ptx::packBf16(v[i].z, v[i].w),
                                   ptx::packBf16(v[i + 1].x, v[i + 1].y), ptx::packBf16(v[i + 1].z, v[i + 1].w));
    }
  }
}

/// stageResult with (kAdds) or without a residual.
template <Epilogue kEpilogue, bool kAdds, class Params>
__device__ __forceinline__ void stagePieces(const Params& p, uint32_t to, const float (&d)[kResultTokens / 2], const float (&scale)[2],
                                            uint32_t tokenScale, int feature, int token) {
  constexpr int kTiles = kPieceTokens / 8;
  const int thread = threadIdx.x % 128, lane = thread % 32, warp = thread / 32;
  feature += warp * 16;
  const float2 bias = loadBias(p.operands.bias, feature, p.N);
  uint2 residual[kTiles];
  float2 scales[2][kTiles];  // a piece's tokens', a piece ahead
  auto loadResidual = [&](int piece) {
#pragma unroll
    for (int i = 0; i < kTiles; i++) residual[i] = loadTile(p.operands.residual, p.N, p.M, feature, token + (piece * kTiles + i) * 8);
  };
  auto loadScales = [&](int piece) {
#pragma unroll
    for (int i = 0; i < kTiles; i++) scales[piece % 2][i] = ptx::loadSharedFloat2(tokenScale + ((piece * kTiles + i) * 8 + lane % 4 * 2) * 4);
  };
  if constexpr (kAdds) loadResidual(0);
  loadScales(0);
#pragma unroll
  for (int piece = 0; piece < kResultPieces; piece++) {
    const bool more = piece + 1 < kResultPieces;
    if (more) loadScales(piece + 1);
    float4 v[kTiles];
#pragma unroll
    for (int i = 0; i < kTiles; i++) {
      const int c = piece * kTiles + i;
      const float2 t = scales[piece % 2][i];
      v[i] = make_float4(d[4 * c] * scale[0] * t.x + bias.x, d[4 * c + 1] * scale[0] * t.y + bias.x, d[4 * c + 2] * scale[1] * t.x + bias.y,
                         d[4 * c + 3] * scale[1] * t.y + bias.y);
      if constexpr (kAdds) addTile(v[i], residual[i]);
    }
    if constexpr (kAdds)
      if (more) loadResidual(piece + 1);
    stagePiece<kEpilogue>(to + piece * kPieceBytes, v, warp, lane);
  }
}

/// Finishes a warpgroup's accumulator of 64 features from `feature` on and 128 tokens from `token` on, and puts it at `to`.
/// scale: what d is to be multiplied by, of this thread's rows; tokenScale: shared floats, the tokens'.
template <Epilogue kEpilogue, class Params>
__device__ __forceinline__ void stageResult(const Params& p, uint32_t to, const float (&d)[kResultTokens / 2], const float (&scale)[2],
                                            uint32_t tokenScale, int feature, int token) {
  // Each form is a row of instructions of its own: to jump over what only the other one needs costs fetches of them.
  if (kEpilogue == Epilogue::kLinear && p.operands.residual != nullptr)
    stagePieces<kEpilogue, kEpilogue == Epilogue::kLinear>(p, to, d, scale, tokenScale, feature, token);
  else
    stagePieces<kEpilogue, false>(p, to, d, scale, tokenScale, feature, token);
}

/// Stores what stageResult has put at `from`. One thread.
template <Epilogue kEpilogue>
__device__ __forceinline__ void storeResult(const CUtensorMap* out, uint32_t from, int feature, int token) {
#pragma unroll
  for (int piece = 0; piece < kResultPieces; piece++)
    ptx::storeTile(out, from + piece * kPieceBytes, kEpilogue == Epilogue::kSiluMul ? feature / 2 : feature, token + piece * kPieceTokens);
}

}  // namespace fireq
