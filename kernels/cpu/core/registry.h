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

/// An op's kernel for one instruction set.
struct OpEntry {
  Isa isa;
  const char* kind;
  OpFunction function;
};

/// Puts an op into the table; once in each op's file. The table is a section of the binary that the linker puts together:
/// nothing runs while the addon is loaded, when code for the wrong instruction set would be a crash.
#define FIREQ_OP(kind, function)                                               \
  constexpr OpEntry kind##Entry{Isa::FIREQ_ISA, #kind, function};              \
  [[gnu::section("fireq_ops"), gnu::used]] const OpEntry* const kind##InTable = &kind##Entry

/// Loops that measure the machine, for benchmarks: what an instruction set's vectors can do at most.
struct Probe {
  Isa isa;
  /// Runs `count` × 10 × 16 multiply-adds of FP32 numbers.
  void (*multiplyAdd)(int64_t count);
  /// Reads memory, a multiple of 256 bytes.
  void (*read)(const void* from, size_t bytes);
};
const Probe& probeOf(Isa isa);

#define FIREQ_PROBE(multiplyAdd, read)                             \
  constexpr Probe probeEntry{Isa::FIREQ_ISA, multiplyAdd, read};   \
  [[gnu::section("fireq_probes"), gnu::used]] const Probe* const probeInTable = &probeEntry

}  // namespace fireq
