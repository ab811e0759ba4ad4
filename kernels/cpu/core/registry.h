#pragma once

#include <string>
#include <vector>

#include "op.h"

namespace fireq {

/// Instruction sets that the kernels are compiled for. Avx512Emulated is the AVX-512 source (16 lanes) in AVX2
/// instructions, so that its logic can be tested on a machine without AVX-512.
enum class Isa : uint8_t { Plain, Avx2, Avx512, Avx512Emulated };
constexpr int kIsaCount = 4;

const char* nameOf(Isa isa);
/// Whether this build has kernels for it and this machine can run them.
bool isUsable(Isa isa);
/// Why not, for people.
std::string whyNot(Isa isa);
/// The fastest one usable.
Isa bestIsa();
/// Throws Error on an unknown name.
Isa isaNamed(const std::string& name);

/// The kernel of an op; null if there is none.
OpFunction findOp(Isa isa, const std::string& kind);
std::vector<std::string> opKinds(Isa isa);

/// A static one in each op's file puts the op into the table.
struct RegisterOp {
  RegisterOp(Isa isa, const char* kind, OpFunction function);
};

/// Loops that measure the machine, for benchmarks: what an instruction set's vectors can do at most.
struct Probe {
  /// Runs `count` × kProbeFlops floating-point operations (a multiply-add is two).
  void (*multiplyAdd)(int64_t count) = nullptr;
  /// Reads memory, a multiple of 256 bytes.
  void (*read)(const void* from, size_t bytes) = nullptr;
};
const Probe& probeOf(Isa isa);

struct RegisterProbe {
  RegisterProbe(Isa isa, const Probe& probe);
};

}  // namespace fireq
