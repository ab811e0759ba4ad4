// chooseGemm for callers that are not C++: fills {family, features, tokens, split, sweep, clusters, cut}.
#include "../heuristics.hpp"

extern "C" void fireqChooseGemm(int m, int n, int k, int sms, int (&out)[7]) {
  const fireq::GemmChoice c = fireq::chooseGemm(m, n, k, sms);
  out[0] = static_cast<int>(c.family), out[1] = c.features, out[2] = c.tokens, out[3] = c.split, out[4] = c.sweep, out[5] = c.clusters, out[6] = c.cut;
}
