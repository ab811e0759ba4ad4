#include "program.h"

#include <algorithm>
#include <cstring>

#include "numbers.h"

namespace fireq {

namespace {

/// Gives pieces of one arena to buffers that live at different times: first fit over the gaps between the living.
class Planner {
 public:
  size_t place(size_t bytes) {
    bytes = alignUp(std::max<size_t>(bytes, 1));
    size_t at = 0;
    auto next = living_.begin();
    for (; next != living_.end() && next->begin - at < bytes; ++next) at = next->end;
    living_.insert(next, {at, at + bytes});
    total_ = std::max(total_, at + bytes);
    return at;
  }
  void free(size_t at) {
    std::erase_if(living_, [at](const Piece& piece) { return piece.begin == at; });
  }
  size_t total() const { return total_; }

 private:
  struct Piece {
    size_t begin;
    size_t end;
  };
  std::vector<Piece> living_;  // in order
  size_t total_ = 0;
};

void toBuffer(const HostArray& from, const View& to) {
  const auto* source = static_cast<const float*>(from.data);
  switch (to.dtype) {
    case DType::F32:
    case DType::I32: std::memcpy(to.data, source, from.count * 4); break;
    case DType::BF16: std::transform(source, source + from.count, to.bf16(), f32ToBf16); break;
    case DType::E4M3: std::transform(source, source + from.count, to.e4m3(), f32ToE4m3); break;
  }
}

void fromBuffer(const View& from, const HostArray& to) {
  auto* target = static_cast<float*>(to.data);
  if (from.dtype == DType::BF16) std::transform(from.bf16(), from.bf16() + to.count, target, bf16ToF32);
  if (from.dtype == DType::E4M3) std::transform(from.e4m3(), from.e4m3() + to.count, target, e4m3ToF32);
}

/// Whether kernels can work in the caller's array itself.
bool isDirect(DType dtype) { return sizeOf(dtype) == 4; }

}  // namespace

Program::Program(std::string name, std::vector<BufferSpec> buffers, std::vector<std::shared_ptr<const Weight>> weights,
                 std::vector<std::vector<float>> constants, std::vector<Op> ops, Isa isa, bool poison)
    : name_(std::move(name)), buffers_(std::move(buffers)), weights_(std::move(weights)),
      constants_(std::move(constants)), ops_(std::move(ops)), poison_(poison) {
  const size_t end = ops_.size() + 1;
  struct Life {
    size_t first;
    size_t last;
  };
  std::vector<Life> lives(buffers_.size(), {end, 0});
  for (size_t b = 0; b < buffers_.size(); b++) {
    if (buffers_[b].role == BufferRole::Input) lives[b].first = 0;
    if (buffers_[b].role == BufferRole::Output) lives[b].last = end;
    if (buffers_[b].shape.empty() || buffers_[b].shape.size() > 2) {
      throw Error("buffer '" + buffers_[b].name + "' must have one or two dimensions");
    }
  }
  for (size_t i = 0; i < ops_.size(); i++) {
    Op& op = ops_[i];
    op.function = findOp(isa, op.kind);
    if (op.function == nullptr) {
      throw Error(format("op %zu: no kernel for '%s' (%s)", i, op.kind.c_str(), nameOf(isa)));
    }
    for (const Operand& operand : op.operands) {
      const size_t limit = operand.kind == OperandKind::Buffer   ? buffers_.size()
                           : operand.kind == OperandKind::Weight ? weights_.size()
                                                                 : constants_.size();
      if (operand.index < 0 || static_cast<size_t>(operand.index) >= limit) {
        throw Error(format("op %zu (%s): operand '%s' has index %d, outside of %zu", i, op.kind.c_str(),
                           operand.role.c_str(), operand.index, limit));
      }
      if (operand.kind != OperandKind::Buffer) continue;
      Life& life = lives[operand.index];
      life.first = std::min(life.first, i + 1);
      life.last = std::max(life.last, i + 1);
    }
  }
  births_.resize(end + 1);
  deaths_.resize(end + 1);
  for (size_t b = 0; b < buffers_.size(); b++) {
    if (lives[b].first > lives[b].last) continue;  // no op uses it
    births_[lives[b].first].push_back(static_cast<int>(b));
    deaths_[lives[b].last].push_back(static_cast<int>(b));
  }
}

View Program::shapeOf(int buffer, const Bindings& bindings) const {
  const BufferSpec& spec = buffers_[buffer];
  const auto resolve = [&](const Dim& dim) { return dim.symbol < 0 ? dim.size : bindings[dim.symbol]; };
  View view;
  view.dtype = spec.dtype;
  view.rows = resolve(spec.shape[0]);
  view.columns = spec.shape.size() > 1 ? resolve(spec.shape[1]) : 1;
  int64_t count = 0;
  if (view.rows < 0 || view.columns < 0 || __builtin_mul_overflow(view.rows, view.columns, &count) ||
      count > (int64_t{1} << 48)) {
    throw Error("buffer '" + spec.name + "' is too large");
  }
  return view;
}

std::vector<View> Program::placeBuffers(const Bindings& bindings, const std::vector<HostArray>& inputs,
                                        const std::vector<HostArray>& outputs) {
  std::vector<View> views(buffers_.size());
  for (size_t b = 0; b < buffers_.size(); b++) views[b] = shapeOf(static_cast<int>(b), bindings);
  const auto bind = [&](const std::vector<HostArray>& arrays) {
    for (const HostArray& array : arrays) {
      View& view = views[array.buffer];
      if (array.count != view.count()) {
        throw Error(format("buffer '%s' has %lld elements, but its array %lld", buffers_[array.buffer].name.c_str(),
                           static_cast<long long>(view.count()), static_cast<long long>(array.count)));
      }
      if (isDirect(view.dtype)) view.data = array.data;
    }
  };
  bind(inputs);
  bind(outputs);

  constexpr size_t kNowhere = ~size_t{0};
  std::vector<size_t> offsets(buffers_.size(), kNowhere);
  Planner planner;
  for (size_t step = 0; step < births_.size(); step++) {
    for (const int b : births_[step]) {
      if (views[b].data == nullptr) offsets[b] = planner.place(views[b].count() * sizeOf(views[b].dtype));
    }
    for (const int b : deaths_[step]) {
      if (offsets[b] != kNowhere) planner.free(offsets[b]);
    }
  }
  arena_.atLeast(planner.total());
  for (size_t b = 0; b < buffers_.size(); b++) {
    if (offsets[b] != kNowhere) views[b].data = static_cast<char*>(arena_.data()) + offsets[b];
  }
  if (poison_) {
    if (arena_.bytes() > 0) std::memset(arena_.data(), 0xff, arena_.bytes());
    for (const HostArray& array : outputs) std::memset(array.data, 0xff, array.count * 4);
  }
  return views;
}

void Program::run(const Bindings& bindings, const std::vector<HostArray>& inputs,
                  const std::vector<HostArray>& outputs, KvCache* kv, Pool& pool, const std::atomic<bool>& stop) {
  const std::vector<View> views = placeBuffers(bindings, inputs, outputs);
  for (const HostArray& array : inputs) {
    if (!isDirect(views[array.buffer].dtype)) toBuffer(array, views[array.buffer]);
  }
  for (size_t i = 0; i < ops_.size(); i++) {
    if (stop.load(std::memory_order_relaxed)) throw Aborted();
    scratch_.reset(poison_);
    OpContext context(ops_[i], views.data(), weights_.data(), constants_.data(), kv, pool, scratch_, stop);
    try {
      ops_[i].function(context);
    } catch (const Aborted&) {
      throw;
    } catch (const std::exception& error) {
      throw Error(describe(i, views) + ": " + error.what());
    }
  }
  for (const HostArray& array : outputs) fromBuffer(views[array.buffer], array);
}

std::string Program::describe(size_t index, const std::vector<View>& views) const {
  const Op& op = ops_[index];
  std::string text = format("op %zu (%s", index, op.kind.c_str());
  for (const Operand& operand : op.operands) {
    if (operand.kind == OperandKind::Constant) continue;
    const bool buffer = operand.kind == OperandKind::Buffer;
    const int64_t rows = buffer ? views[operand.index].rows : weights_[operand.index]->rows;
    const int64_t columns = buffer ? views[operand.index].columns : weights_[operand.index]->columns;
    text += format(", %s [%lld, %lld]", operand.role.c_str(), static_cast<long long>(rows), static_cast<long long>(columns));
    if (buffer) text += format(" %s", nameOf(views[operand.index].dtype));
  }
  return text + ")";
}

}  // namespace fireq
