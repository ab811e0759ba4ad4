#pragma once

#include "vec.h"

namespace fireq::FIREQ_ISA {

/// e^x within 2 ulp for results that are normal; below 2⁻¹²⁶ it goes to 0, above FLT_MAX to infinity; NaN stays NaN.
/// Cephes' reduction: x = n·ln 2 + r, |r| ≤ ln 2 / 2, and a polynomial for e^r.
FIREQ_INLINE VF exp(VF x) {
  const VF limited = min(max(x, splat(-87.33654f)), splat(88.72283f));
  const VF shifted = fma(limited, splat(1.44269504088896341f), splat(0x1.8p23f));
  const VF n = shifted - 0x1.8p23f;
  VF r = fma(n, splat(-0.693359375f), limited);
  r = fma(n, splat(2.12194440e-4f), r);
  VF p = splat(1.9875691500e-4f);
  p = fma(p, r, splat(1.3981999507e-3f));
  p = fma(p, r, splat(8.3334519073e-3f));
  p = fma(p, r, splat(4.1665795894e-2f));
  p = fma(p, r, splat(1.6666665459e-1f));
  p = fma(p, r, splat(5.0000001201e-1f));
  p = fma(p, r * r, r) + 1.0f;
  // 2^n in two steps, since n = 128 has no FP32 of its own.
  const VI whole = reinterpret_cast<VI>(shifted) - 0x4b400000;
  const VI half = whole >> 1;
  const VF first = reinterpret_cast<VF>((half + 127) << 23);
  const VF second = reinterpret_cast<VF>((whole - half + 127) << 23);
  VF result = p * first * second;
  result = select(x < -87.33654f, VF{}, result);
  result = select(x > 88.72283f, splat(__builtin_inff()), result);
  return select(x != x, x, result);
}

}  // namespace fireq::FIREQ_ISA
