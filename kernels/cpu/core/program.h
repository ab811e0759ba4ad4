#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "op.h"
#include "registry.h"

namespace fireq {

constexpr int kSymbols = 4;  ///< tokens, sequences, outputs, pages

/// A dimension: a size, or if `symbol` ≥ 0 the run's value of that symbol.
struct Dim {
  int64_t size = 0;
  int symbol = -1;
};

enum class BufferRole : uint8_t { Input, Output, Scratch };

struct BufferSpec {
  std::string name;
  DType dtype = DType::F32;
  BufferRole role = BufferRole::Scratch;
  std::vector<Dim> shape;
};

/// Sizes of the symbolic dimensions in one run.
using Bindings = std::array<int64_t, kSymbols>;

/// The caller's memory for one input or output, in FP32 or i32 whatever the buffer's type.
struct HostArray {
  int buffer = 0;
  void* data = nullptr;
  int64_t count = 0;
};

/// A compiled program: ops with their kernels, buffers with their life spans, weights that it keeps alive.
class Program {
 public:
  Program(std::string name, std::vector<BufferSpec> buffers, std::vector<std::shared_ptr<const Weight>> weights,
          std::vector<std::vector<float>> constants, std::vector<Op> ops, Isa isa, bool poison);

  const std::vector<BufferSpec>& buffers() const { return buffers_; }
  View shapeOf(int buffer, const Bindings& bindings) const;

  /// Runs all ops; on a pool's job thread, one run at a time. Throws Aborted once `stop` is true, or an Error that names
  /// the op, its operands and the cause.
  void run(const Bindings& bindings, const std::vector<HostArray>& inputs, const std::vector<HostArray>& outputs,
           KvCache* kv, Pool& pool, const std::atomic<bool>& stop);

 private:
  std::vector<View> placeBuffers(const Bindings& bindings, const std::vector<HostArray>& inputs,
                                 const std::vector<HostArray>& outputs);
  std::string describe(size_t op, const std::vector<View>& views) const;

  std::string name_;
  std::vector<BufferSpec> buffers_;
  /// Buffers that begin and end at each step: 0 is before the first op, i + 1 is op i, the last is after all.
  std::vector<std::vector<int>> births_;
  std::vector<std::vector<int>> deaths_;
  std::vector<std::shared_ptr<const Weight>> weights_;
  std::vector<std::vector<float>> constants_;
  std::vector<Op> ops_;
  bool poison_;  ///< fill memory with NaN before each run, so that tests see a read of what nothing wrote
  Memory arena_;
  Scratch scratch_;
};

}  // namespace fireq
