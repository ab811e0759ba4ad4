#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "dtype.h"
#include "error.h"
#include "kv_cache.h"
#include "pool.h"
#include "weight.h"

namespace fireq {

class OpContext;
using OpFunction = void (*)(OpContext&);

enum class OperandKind : uint8_t { Buffer, Weight, Constant };

struct Operand {
  std::string role;
  OperandKind kind;
  int index;
};

struct Attribute {
  std::string name;
  double number = 0;
  std::string text;  ///< of a string attribute; numbers and booleans leave it empty
};

/// One op of a compiled program.
struct Op {
  std::string kind;
  std::vector<Operand> operands;
  std::vector<Attribute> attributes;
  OpFunction function = nullptr;
};

/// Memory for the time of one op: every scratch() call gives a piece, all are taken back together.
class Scratch {
 public:
  void* take(size_t bytes);
  /// Takes all pieces back; `poison` fills them with NaN.
  void reset(bool poison);
  size_t bytes() const { return first_.bytes(); }

 private:
  Memory first_;
  std::vector<Memory> more_;  ///< pieces that first_ had no room for; reset() makes first_ large enough for next time
  size_t used_ = 0;
  size_t wanted_ = 0;
};

/// What an op's kernel works on: its operands by role, the threads, temporary memory. Nothing in here is inlined into
/// code compiled for one instruction set (see CMakeLists.txt), except what the kernels' own templates need.
class OpContext {
 public:
  OpContext(const Op& op, const View* buffers, const std::shared_ptr<const Weight>* weights,
            const std::vector<float>* constants, KvCache* kv, Pool& pool, Scratch& scratch,
            const std::atomic<bool>& stop);

  bool has(const char* role) const;
  /// The buffer of a role; throws if the op has none.
  const View& buffer(const char* role) const;
  const Weight& weight(const char* role) const;
  /// A constant of exactly this length.
  const float* constant(const char* role, int64_t length) const;
  /// A rank-1 weight of exactly this length.
  const float* vectorWeight(const char* role, int64_t length) const;
  double number(const char* name) const;
  bool textIs(const char* name, const char* value) const;
  KvCache& kv() const;

  int threads() const { return pool_.threads(); }
  void* scratch(size_t bytes) { return scratch_.take(bytes); }
  float* scratchF32(int64_t count) { return static_cast<float*>(scratch(count * sizeof(float))); }

  /// body(index, worker) for all indices, spread over the threads; throws Aborted if the run was stopped meanwhile.
  template <class Body>
  void parallelFor(int64_t count, const Body& body) {
    pool_.parallelFor(count, &stop_, body);
    checkStopped();
  }
  void checkStopped() const;

  [[noreturn, gnu::format(printf, 2, 3)]] void fail(const char* pattern, ...) const;
  /// Throws unless the buffer has this shape.
  void expect(const char* role, int64_t rows, int64_t columns) const;

 private:
  const Operand* find(const char* role, OperandKind kind) const;

  const Op& op_;
  const View* buffers_;
  const std::shared_ptr<const Weight>* weights_;
  const std::vector<float>* constants_;
  KvCache* kv_;
  Pool& pool_;
  Scratch& scratch_;
  const std::atomic<bool>& stop_;
};

}  // namespace fireq
