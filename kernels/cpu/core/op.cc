#include "op.h"

#include <cstdarg>
#include <cstdio>
#include <cstring>

namespace fireq {

void* Scratch::take(size_t bytes) {
  bytes = alignUp(bytes);
  wanted_ += bytes;
  if (used_ + bytes <= first_.bytes()) {
    void* piece = static_cast<char*>(first_.data()) + used_;
    used_ += bytes;
    return piece;
  }
  more_.emplace_back(bytes);
  return more_.back().data();
}

void Scratch::reset(bool poison) {
  if (!more_.empty()) {
    more_.clear();
    first_.atLeast(wanted_);
  }
  used_ = wanted_ = 0;
  if (poison && first_.bytes() > 0) std::memset(first_.data(), 0xff, first_.bytes());
}

OpContext::OpContext(const Op& op, const View* buffers, const std::shared_ptr<const Weight>* weights,
                     const std::vector<float>* constants, KvCache* kv, Pool& pool, Scratch& scratch,
                     const std::atomic<bool>& stop)
    : op_(op), buffers_(buffers), weights_(weights), constants_(constants), kv_(kv), pool_(pool), scratch_(scratch),
      stop_(stop) {}

const Operand* OpContext::find(const char* role, OperandKind kind) const {
  for (const Operand& operand : op_.operands) {
    if (operand.kind == kind && operand.role == role) return &operand;
  }
  return nullptr;
}

bool OpContext::has(const char* role) const {
  for (const Operand& operand : op_.operands) {
    if (operand.role == role) return true;
  }
  return false;
}

const View& OpContext::buffer(const char* role) const {
  const Operand* operand = find(role, OperandKind::Buffer);
  if (operand == nullptr) fail("operand '%s' is missing", role);
  return buffers_[operand->index];
}

const Weight& OpContext::weight(const char* role) const {
  const Operand* operand = find(role, OperandKind::Weight);
  if (operand == nullptr) fail("weight '%s' is missing", role);
  return *weights_[operand->index];
}

const float* OpContext::constant(const char* role, int64_t length) const {
  const Operand* operand = find(role, OperandKind::Constant);
  if (operand == nullptr) fail("constant '%s' is missing", role);
  const std::vector<float>& values = constants_[operand->index];
  if (static_cast<int64_t>(values.size()) != length) {
    fail("expected %lld values of constant '%s' but received %zu", static_cast<long long>(length), role, values.size());
  }
  return values.data();
}

const float* OpContext::vectorWeight(const char* role, int64_t length) const {
  const Weight& w = weight(role);
  if (!w.isVector() || w.rows != length) fail("expected weight '%s' to be a vector of %lld", role, static_cast<long long>(length));
  return w.vector.data();
}

double OpContext::number(const char* name) const {
  for (const Attribute& attribute : op_.attributes) {
    if (attribute.name == name) return attribute.number;
  }
  fail("attribute '%s' is missing", name);
}

bool OpContext::textIs(const char* name, const char* value) const {
  for (const Attribute& attribute : op_.attributes) {
    if (attribute.name == name) return attribute.text == value;
  }
  fail("attribute '%s' is missing", name);
}

KvCache& OpContext::kv() const {
  if (kv_ == nullptr) fail("needs a KV cache");
  return *kv_;
}

void OpContext::checkStopped() const {
  if (stop_.load(std::memory_order_relaxed)) throw Aborted();
}

void OpContext::fail(const char* pattern, ...) const {
  char text[512];
  va_list arguments;
  va_start(arguments, pattern);
  std::vsnprintf(text, sizeof text, pattern, arguments);
  va_end(arguments);
  throw Error(text);
}

void OpContext::expect(const char* role, int64_t rows, int64_t columns) const {
  const View& view = buffer(role);
  if (view.rows != rows || view.columns != columns) {
    fail("expected %s of shape [%lld, %lld] but received [%lld, %lld]", role, static_cast<long long>(rows),
         static_cast<long long>(columns), static_cast<long long>(view.rows), static_cast<long long>(view.columns));
  }
}

}  // namespace fireq
