#pragma once

#include <napi.h>

#include <memory>

#include "backend.h"

namespace fireq {

/// A program bound to the backend that runs it.
struct Executable {
  std::shared_ptr<CpuBackend> backend;
  std::shared_ptr<Program> program;
};

WeightFormat weightFormatNamed(const std::string& name);
ScaleType scaleTypeNamed(const std::string& name);
KvShape kvShapeOf(const Napi::Object& spec);

std::shared_ptr<Executable> compileProgram(std::shared_ptr<CpuBackend> backend, const Napi::Object& program,
                                           const Napi::Array& weights);

Napi::Value startRun(Napi::Env env, const std::shared_ptr<Executable>& executable, const Napi::Array& sizes,
                     const Napi::Array& inputs, const Napi::Array& outputs, std::shared_ptr<KvCache> kv);

}  // namespace fireq
