// What happens to a sum before it is stored, on 16 × 8 tiles in the fragment layout of wgmma: a lane holds features
// lane / 4 (x, y) and lane / 4 + 8 (z, w) of tokens 2 (lane % 4) (x, z) and the next (y, w).
#pragma once
#include <cstdint>

#include "ptx.cuh"

namespace fireq {

enum class Epilogue {
  kLinear,   // out[M, N] = sum + bias + residual
  kSiluMul,  // out[M, N / 2] = silu(gate) · up; of each 16 features the first eight are the gate's, the others up's
};

/// BF16; null where absent. The residual may be the output itself.
struct EpilogueOperands {
  const uint16_t* bias;      // [N]
  const uint16_t* residual;  // [M, N]
};

__device__ __forceinline__ float bf16ToFloat(uint16_t v) { return __uint_as_float(static_cast<uint32_t>(v) << 16); }

/// The bias of this lane's two features of a tile.
__device__ __forceinline__ float2 loadBias(const uint16_t* bias, int feature, int features) {
  if (bias == nullptr || feature >= features) return make_float2(0.f, 0.f);
  const uint16_t* at = bias + feature + threadIdx.x % 32 / 4;
  return make_float2(bf16ToFloat(at[0]), bf16ToFloat(at[8]));
}

/// A tile of a row-major BF16 [tokens, features] matrix as two words of a lane; zero outside.
__device__ __forceinline__ uint2 loadTile(const uint16_t* matrix, int features, int tokens, int feature, int token) {
  const int lane = threadIdx.x % 32, row = token + lane / 4;
  if (row >= tokens || feature >= features) return make_uint2(0, 0);
  const uint16_t* at = matrix + static_cast<size_t>(row) * features + feature + lane % 4 * 2;
  return make_uint2(*reinterpret_cast<const uint32_t*>(at), *reinterpret_cast<const uint32_t*>(at + 8));
}

/// d += a tile as pairs of tokens of this lane's two features.
__device__ __forceinline__ void addPairs(float4& d, uint32_t low, uint32_t high) {
  d.x += __uint_as_float(low << 16), d.y += __uint_as_float(low & 0xffff0000u);
  d.z += __uint_as_float(high << 16), d.w += __uint_as_float(high & 0xffff0000u);
}

/// d += a tile loaded by loadTile. All lanes of the warp take part.
__device__ __forceinline__ void addTile(float4& d, uint2 tile) { addPairs(d, ptx::transposeMatrix(tile.x), ptx::transposeMatrix(tile.y)); }

__device__ __forceinline__ float siluMul(float gate, float up) {
  constexpr float kLog2E = 1.44269504f;
  return gate * ptx::reciprocal(1.f + ptx::exp2Fast(-kLog2E * gate)) * up;
}

}  // namespace fireq
