#pragma once

#include <stdexcept>
#include <string>

namespace fireq {

/// Anything that goes wrong in native code; becomes a JavaScript Error with this message.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// A run that was asked to stop. Not a failure: the caller has its own reason to report.
struct Aborted : std::exception {
  const char* what() const noexcept override { return "aborted"; }
};

/// printf into a std::string.
[[gnu::format(printf, 1, 2)]] std::string format(const char* pattern, ...);

}  // namespace fireq
