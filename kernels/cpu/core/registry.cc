#include "registry.h"

#include <map>

namespace fireq {

namespace {

using Table = std::map<std::string, OpFunction>;

/// Never destroyed: threads may still look at it while the process exits.
Table& tableOf(Isa isa) {
  static auto* tables = new Table[kIsaCount];
  return tables[static_cast<int>(isa)];
}

Probe& probeSlot(Isa isa) {
  static Probe probes[kIsaCount];
  return probes[static_cast<int>(isa)];
}

bool machineHas(Isa isa) {
#if defined(__x86_64__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  switch (isa) {
    case Isa::Plain: return true;
    case Isa::Avx2:
    case Isa::Avx512Emulated: return avx2;
    case Isa::Avx512:
      return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  }
  return false;
#else
  return isa == Isa::Plain;
#endif
}

}  // namespace

RegisterOp::RegisterOp(Isa isa, const char* kind, OpFunction function) { tableOf(isa)[kind] = function; }

RegisterProbe::RegisterProbe(Isa isa, const Probe& probe) { probeSlot(isa) = probe; }

const Probe& probeOf(Isa isa) { return probeSlot(isa); }

OpFunction findOp(Isa isa, const std::string& kind) {
  const auto found = tableOf(isa).find(kind);
  return found == tableOf(isa).end() ? nullptr : found->second;
}

std::vector<std::string> opKinds(Isa isa) {
  std::vector<std::string> kinds;
  for (const auto& [kind, function] : tableOf(isa)) kinds.push_back(kind);
  return kinds;
}

const char* nameOf(Isa isa) {
  switch (isa) {
    case Isa::Plain: return "plain";
    case Isa::Avx2: return "avx2";
    case Isa::Avx512: return "avx512";
    case Isa::Avx512Emulated: return "avx512-emulated";
  }
  return "?";
}

bool isUsable(Isa isa) { return !tableOf(isa).empty() && machineHas(isa); }

std::string whyNot(Isa isa) {
  if (isUsable(isa)) return "";
  return tableOf(isa).empty() ? "this build has no kernels for it" : "this processor doesn't have it";
}

Isa bestIsa() {
  if (isUsable(Isa::Avx512)) return Isa::Avx512;
  return isUsable(Isa::Avx2) ? Isa::Avx2 : Isa::Plain;
}

Isa isaNamed(const std::string& name) {
  for (int i = 0; i < kIsaCount; i++) {
    if (name == nameOf(static_cast<Isa>(i))) return static_cast<Isa>(i);
  }
  throw Error("unknown instruction set '" + name + "'");
}

}  // namespace fireq
