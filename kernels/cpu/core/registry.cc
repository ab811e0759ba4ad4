#include "registry.h"

#include <algorithm>

// The linker names the ends of a section whose name is an identifier.
extern "C" {
[[gnu::visibility("hidden")]] extern const fireq::OpEntry* const __start_fireq_ops[];
[[gnu::visibility("hidden")]] extern const fireq::OpEntry* const __stop_fireq_ops[];
[[gnu::visibility("hidden")]] extern const fireq::Probe* const __start_fireq_probes[];
[[gnu::visibility("hidden")]] extern const fireq::Probe* const __stop_fireq_probes[];
}

namespace fireq {

namespace {

bool isBuilt(Isa isa) {
  return std::any_of(__start_fireq_ops, __stop_fireq_ops, [isa](const OpEntry* entry) { return entry->isa == isa; });
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

OpFunction findOp(Isa isa, const std::string& kind) {
  const auto found = std::find_if(__start_fireq_ops, __stop_fireq_ops, [&](const OpEntry* entry) {
    return entry->isa == isa && entry->kind == kind;
  });
  return found == __stop_fireq_ops ? nullptr : (*found)->function;
}

std::vector<std::string> opKinds(Isa isa) {
  std::vector<std::string> kinds;
  std::for_each(__start_fireq_ops, __stop_fireq_ops, [&](const OpEntry* entry) {
    if (entry->isa == isa) kinds.push_back(entry->kind);
  });
  return kinds;
}

const Probe& probeOf(Isa isa) {
  return **std::find_if(__start_fireq_probes, __stop_fireq_probes, [isa](const Probe* probe) { return probe->isa == isa; });
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

bool isUsable(Isa isa) { return isBuilt(isa) && machineHas(isa); }

std::string whyNot(Isa isa) {
  if (isUsable(isa)) return "";
  return !isBuilt(isa) ? "this build has no kernels for it" : "this processor doesn't have it";
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
