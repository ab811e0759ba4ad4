#pragma once

#include "vec.h"

namespace fireq::FIREQ_ISA {

/// Rows of activations that meet a 16-wide panel at once: as many as the registers hold accumulators for.
#if defined(__AVX512F__)
constexpr int kRows = 12;
#elif defined(__AVX2__) && FIREQ_WIDTH == 8
constexpr int kRows = 6;
#else
constexpr int kRows = 2;  // plain; emulated AVX-512 has no registers to spare either, and compiles faster
#endif

/// sums[r] += Σₖ x[r·rowStride + k·step] · panel[k·panelStride … + 16], k ascending: the inner loop of every matrix
/// product. A row's sum doesn't depend on the rows beside it.
template <int Rows>
FIREQ_INLINE void multiply(const float* x, int64_t rowStride, int64_t step, const float* panel, int64_t panelStride,
                           int64_t count, Row16 (&sums)[Rows]) {
  for (int64_t k = 0; k < count; k++) {
    const Row16 w = load16(panel + k * panelStride);
#pragma GCC unroll 16
    for (int r = 0; r < Rows; r++) {
      const VF value = splat(x[r * rowStride + k * step]);
#pragma GCC unroll 4
      for (int p = 0; p < kParts; p++) sums[r].part[p] = fma(value, w.part[p], sums[r].part[p]);
    }
  }
}

}  // namespace fireq::FIREQ_ISA
