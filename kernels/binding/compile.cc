#include "compile.h"

#include <cstring>

#include "values.h"

namespace fireq {

namespace {

DType dtypeNamed(const std::string& name) {
  for (const DType dtype : {DType::F32, DType::BF16, DType::E4M3, DType::I32}) {
    if (name == nameOf(dtype)) return dtype;
  }
  throw Error("unknown buffer type '" + name + "'");
}

BufferRole roleNamed(const std::string& name) {
  if (name == "input") return BufferRole::Input;
  if (name == "output") return BufferRole::Output;
  if (name == "scratch") return BufferRole::Scratch;
  throw Error("unknown buffer role '" + name + "'");
}

/// A size, or a symbol s as −1 − s.
Dim dimOf(const Napi::Value& value) {
  if (!value.IsNumber()) throw Error("expected a number for a dimension");
  const double number = value.As<Napi::Number>().DoubleValue();
  if (number >= 0) return {whole(value, "a dimension"), -1};
  for (int symbol = 0; symbol < kSymbols; symbol++) {
    if (number == -1 - symbol) return {0, symbol};
  }
  throw Error("unknown dimension symbol");
}

BufferSpec bufferOf(const Napi::Object& from) {
  BufferSpec spec{text(from, "name"), dtypeNamed(text(from, "dtype")), roleNamed(text(from, "role")), {}};
  const Napi::Array shape = array(from.Get("shape"), "shape");
  for (uint32_t i = 0; i < shape.Length(); i++) spec.shape.push_back(dimOf(shape.Get(i)));
  return spec;
}

OperandKind operandKindNamed(const std::string& name) {
  if (name == "buffer") return OperandKind::Buffer;
  if (name == "weight") return OperandKind::Weight;
  if (name == "constant") return OperandKind::Constant;
  throw Error("unknown operand kind '" + name + "'");
}

Op opOf(const Napi::Object& from) {
  Op op;
  op.kind = text(from, "kind");
  const Napi::Array operands = array(from.Get("operands"), "operands");
  for (uint32_t i = 0; i < operands.Length(); i++) {
    const Napi::Object operand = object(operands.Get(i), "an operand");
    const int64_t index = whole(operand, "index");
    if (index > 1 << 30) throw Error("an operand's index is out of range");
    op.operands.push_back({text(operand, "role"), operandKindNamed(text(operand, "kind")), static_cast<int>(index)});
  }
  const Napi::Object attributes = object(from.Get("attributes"), "attributes");
  const Napi::Array names = attributes.GetPropertyNames();
  for (uint32_t i = 0; i < names.Length(); i++) {
    Attribute attribute{Napi::Value(names.Get(i)).ToString().Utf8Value()};
    const Napi::Value value = attributes.Get(attribute.name);
    if (value.IsString()) {
      attribute.text = value.As<Napi::String>().Utf8Value();
    } else {
      attribute.number = value.ToNumber().DoubleValue();
    }
    op.attributes.push_back(std::move(attribute));
  }
  return op;
}

/// The arrays that buffers of a role get, in the order of the buffers; `visit(buffer, array)`.
template <class Visit>
void forArrays(const Program& program, BufferRole role, const Napi::Array& arrays, Visit&& visit) {
  uint32_t next = 0;
  for (size_t b = 0; b < program.buffers().size(); b++) {
    const BufferSpec& spec = program.buffers()[b];
    if (spec.role != role) continue;
    const Elements given = elements(arrays.Get(next++), spec.dtype == DType::I32 ? "i32" : "f32", "buffer '" + spec.name + "'");
    visit(HostArray{static_cast<int>(b), given.data, static_cast<int64_t>(given.count)});
  }
  if (arrays.Length() != next) throw Error("expected an array for each input and each output");
}

}  // namespace

WeightFormat weightFormatNamed(const std::string& name) {
  if (name == "f32") return WeightFormat::F32;
  if (name == "bf16") return WeightFormat::BF16;
  if (name == "f16") return WeightFormat::F16;
  if (name == "int4") return WeightFormat::Int4;
  if (name == "int4-lookup") return WeightFormat::Int4Lookup;
  throw Error("unknown weight format '" + name + "'");
}

ScaleType scaleTypeNamed(const std::string& name) {
  if (name == "f32") return ScaleType::F32;
  if (name == "bf16") return ScaleType::BF16;
  if (name == "e4m3") return ScaleType::E4M3;
  throw Error("unknown scale type '" + name + "'");
}

KvShape kvShapeOf(const Napi::Object& spec) {
  KvShape shape;
  shape.layers = whole(spec, "layers");
  shape.heads = whole(spec, "heads");
  shape.headDim = whole(spec, "headDim");
  shape.pages = whole(spec, "pages");
  shape.pageSize = whole(spec, "pageSize");
  const std::string type = text(spec, "type");
  if (type == "f32") {
    shape.format.type = KvType::F32;
  } else if (type == "bf16") {
    shape.format.type = KvType::BF16;
  } else if (type == "int4") {
    shape.format = {KvType::Int4, flag(spec, "symmetric"), scaleTypeNamed(text(spec, "scale")) == ScaleType::E4M3};
  } else {
    throw Error("unknown type '" + type + "' of a KV cache");
  }
  int64_t elements = 4;
  for (const int64_t dim : {shape.layers, shape.heads, shape.headDim, shape.pages, shape.pageSize + kKeyTile}) {
    if (dim < 1 || __builtin_mul_overflow(elements, dim, &elements) || elements > (int64_t{1} << 46)) {
      throw Error("expected positive sizes of a KV cache that fits in memory");
    }
  }
  return shape;
}

std::shared_ptr<Executable> compileProgram(std::shared_ptr<CpuBackend> backend, const Napi::Object& from,
                                           const Napi::Array& weightHandles) {
  std::vector<BufferSpec> buffers;
  const Napi::Array bufferList = array(from.Get("buffers"), "buffers");
  for (uint32_t i = 0; i < bufferList.Length(); i++) buffers.push_back(bufferOf(object(bufferList.Get(i), "a buffer")));
  std::vector<std::shared_ptr<const Weight>> weights;
  for (uint32_t i = 0; i < weightHandles.Length(); i++) weights.push_back(held<Weight>(weightHandles.Get(i)));
  std::vector<std::vector<float>> constants;
  const Napi::Array constantList = array(from.Get("constants"), "constants");
  for (uint32_t i = 0; i < constantList.Length(); i++) {
    const Elements values = elements(constantList.Get(i), "f32", "a constant");
    const auto* data = static_cast<const float*>(values.data);
    constants.emplace_back(data, data + values.count);
  }
  std::vector<Op> ops;
  const Napi::Array opList = array(from.Get("ops"), "ops");
  for (uint32_t i = 0; i < opList.Length(); i++) ops.push_back(opOf(object(opList.Get(i), "an op")));
  auto program = std::make_shared<Program>(text(from, "name"), std::move(buffers), std::move(weights),
                                           std::move(constants), std::move(ops), backend->isa(), backend->poison());
  return std::make_shared<Executable>(Executable{std::move(backend), std::move(program)});
}

Napi::Value startRun(Napi::Env env, const std::shared_ptr<Executable>& executable, const Napi::Array& sizes,
                     const Napi::Array& inputArrays, const Napi::Array& outputArrays, std::shared_ptr<KvCache> kv) {
  const std::shared_ptr<Program>& program = executable->program;
  Bindings bindings{};
  if (sizes.Length() != kSymbols) throw Error("expected a size for each symbol");
  for (int i = 0; i < kSymbols; i++) bindings[i] = whole(sizes.Get(i), "a size");
  const auto checkLength = [&](const HostArray& given) {
    if (program->shapeOf(given.buffer, bindings).count() != given.count) {
      throw Error("the array of buffer '" + program->buffers()[given.buffer].name + "' has a wrong length");
    }
  };
  // Inputs are copied: the caller may change or transfer them while the run is on. Outputs are the caller's to give out
  // only afterwards, so kernels write into them.
  auto copies = std::make_shared<std::vector<std::vector<float>>>();
  std::vector<HostArray> inputs, outputs;
  forArrays(*program, BufferRole::Input, inputArrays, [&](HostArray given) {
    checkLength(given);
    std::vector<float>& copy = copies->emplace_back(given.count);
    if (given.count > 0) std::memcpy(copy.data(), given.data, given.count * sizeof(float));
    given.data = copy.data();
    inputs.push_back(given);
  });
  std::vector<Napi::ObjectReference> kept;
  forArrays(*program, BufferRole::Output, outputArrays, [&](const HostArray& given) {
    checkLength(given);
    outputs.push_back(given);
  });
  kept.push_back(Napi::Persistent(outputArrays.As<Napi::Object>()));
  auto stop = std::make_shared<std::atomic<bool>>(false);
  Napi::Object result = Napi::Object::New(env);
  result.Set("done", executable->backend->submit(env, stop, std::move(kept),
                                                 [=](Pool& pool, const std::atomic<bool>& flag) {
                                                   program->run(bindings, inputs, outputs, kv.get(), pool, flag);
                                                   (void)copies;
                                                 }));
  result.Set("abort", Napi::Function::New(env, [stop](const Napi::CallbackInfo&) { stop->store(true); }));
  return result;
}

}  // namespace fireq
