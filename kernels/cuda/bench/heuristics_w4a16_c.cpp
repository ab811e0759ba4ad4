// chooseW4a16 for callers that are not C++: fills {family, features, tokens, split, sweep}.
#include "../heuristics_w4a16.hpp"

extern "C" void fireqChooseW4a16(int m, int n, int k, int sms, int (&out)[5]) {
  const fireq::GemmChoice c = fireq::chooseW4a16(m, n, k, sms);
  out[0] = static_cast<int>(c.family), out[1] = c.features, out[2] = c.tokens, out[3] = c.split, out[4] = c.sweep;
}
