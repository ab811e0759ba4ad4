#include "int4_pack.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <future>

#include "../../cpu/core/error.h"
#include "../../cpu/core/numbers.h"

namespace fireq::cuda {

namespace {

constexpr int64_t kColumns = 128, kRows = 64;  // of a block
constexpr int kPairs = 32;                     // 16-bit pieces of a block's row: four codes each
// Kernels divide by scales and keep sums in units of the current one: beyond these, FP32 would overflow.
constexpr float kLeast = 0x1p-126f, kMost = 0x1p126f, kWidestSpan = 0x1p96f;

/// A packed row's codes, scales and what it has seen.
struct Row {
  const uint8_t* codes = nullptr;  // null: beyond N
  const char* scales = nullptr;
  double channel = 1;
  float last = 1;
  float least = INFINITY, most = 0;
};

int64_t bytesOf(GroupScaleType type) { return type == GroupScaleType::kBf16 ? 2 : type == GroupScaleType::kE4m3 ? 1 : 4; }

Row rowOf(const Int4Slab& slab, int64_t row) {
  Row result;
  if (row >= slab.rows) return result;
  const bool interleaved = slab.parts.size() == 2;
  const Int4Rows& part = slab.parts[interleaved ? row / 8 % 2 : 0];
  const int64_t at = interleaved ? row / 16 * 8 + row % 8 : row;
  result.codes = part.codes + at * (slab.columns / 2);
  result.scales = part.scales + at * (slab.columns / slab.group) * bytesOf(slab.scaleType);
  if (part.channelScale != nullptr) result.channel = part.channelScale[at];
  return result;
}

template <GroupScaleType kType>
double scaleAt(const char* scales, int64_t group) {
  if constexpr (kType == GroupScaleType::kE4m3) return e4m3ToF32(static_cast<uint8_t>(scales[group]));
  if constexpr (kType == GroupScaleType::kFp32) {
    float value;
    std::memcpy(&value, scales + group * 4, sizeof value);
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, scales + group * 2, sizeof bits);
  return bf16ToF32(bits);
}

/// Has any of these codes another value than 0?
template <int kBytes>
bool anyBut0(const uint8_t* codes) {
  uint64_t others = 0;
  for (int i = 0; i < kBytes / 8; i++) {
    uint64_t word;
    std::memcpy(&word, codes + 8 * i, sizeof word);
    others |= word ^ 0x8888888888888888u;
  }
  return others != 0;
}

template <int kBytes>
bool anyMinus8(const uint8_t* codes) {
  uint64_t found = 0;
  for (int i = 0; i < kBytes / 8; i++) {
    uint64_t word;
    std::memcpy(&word, codes + 8 * i, sizeof word);
    found |= (word - 0x1111111111111111u) & ~word & 0x8888888888888888u;  // a nibble of 0
  }
  return found != 0;
}

uint32_t spread(uint32_t four) {
  four = (four | four << 8) & 0x00ff00ffu;
  return (four | four << 4) & 0x0f0f0f0fu;
}

/// Four codes of row r and four of row r + 8 as one word of int4.cuh.
template <bool kFull>
uint32_t packWord(uint32_t evenCodes, uint32_t oddCodes) {
  const uint32_t even = spread(evenCodes), odd = spread(oddCodes);
  const uint32_t evenSign = ~even >> 3 & 0x01010101u, oddSign = ~odd >> 3 & 0x01010101u;
  uint32_t evenMagnitude = (even ^ evenSign * 7) & 0x07070707u, oddMagnitude = (odd ^ oddSign * 7) & 0x07070707u;
  if (!kFull) evenMagnitude += evenSign, oddMagnitude += oddSign;
  return evenMagnitude | evenSign << 7 | oddMagnitude << 4 | (oddSign << 8 | oddSign >> 24) << 3;
}

using Four = uint32_t __attribute__((vector_size(16)));

/// Four threads' words of int4_bf16.cuh: one step, of eight bytes of row r and as many of row r + 8.
Four packStep(const uint8_t* even, const uint8_t* odd) {
  const auto four = [](const uint8_t* b) { return Four{b[0], b[1], b[2], b[3]}; };
  const auto lowNibbles = [](Four bytes) {
    bytes &= 0x0f0f0f0fu;
    bytes = (bytes | bytes >> 4) & 0x00ff00ffu;
    return (bytes | bytes >> 8) & 0xffffu;
  };
  const Four bytes = four(even) | four(odd) << 8 | four(even + 4) << 16 | four(odd + 4) << 24;
  return lowNibbles(bytes) | lowNibbles(bytes >> 4) << 16;
}

enum class Order { kSymmetric, kFull, kBf16 };

/// A group of rows r and r + 8, each as pieces of four codes; `out` is where thread 4 · (r % 8) of r's warp begins.
template <Order kOrder>
void packPair(const uint16_t (&even)[kPairs], const uint16_t (&odd)[kPairs], char* out) {
  uint32_t words[kPairs];
  if constexpr (kOrder == Order::kBf16) {
    for (int i = 0; i < kPairs; i += 4) {
      const Four step = packStep(reinterpret_cast<const uint8_t*>(even + i), reinterpret_cast<const uint8_t*>(odd + i));
      std::memcpy(words + i, &step, sizeof step);
    }
  } else {
    for (int i = 0; i < kPairs; i++) words[i] = packWord<kOrder == Order::kFull>(even[i], odd[i]);
  }
  for (int half = 0; half < 2; half++) {
    Four of[4];  // word w of four threads; a thread stores its four words together
    std::memcpy(of, words + half * 16, sizeof of);
    const Four low01 = __builtin_shuffle(of[0], of[1], Four{0, 4, 1, 5}), high01 = __builtin_shuffle(of[0], of[1], Four{2, 6, 3, 7});
    const Four low23 = __builtin_shuffle(of[2], of[3], Four{0, 4, 1, 5}), high23 = __builtin_shuffle(of[2], of[3], Four{2, 6, 3, 7});
    const Four threads[4] = {
        __builtin_shuffle(low01, low23, Four{0, 1, 4, 5}), __builtin_shuffle(low01, low23, Four{2, 3, 6, 7}),
        __builtin_shuffle(high01, high23, Four{0, 1, 4, 5}), __builtin_shuffle(high01, high23, Four{2, 3, 6, 7})};
    std::memcpy(out + half * 2048, threads, sizeof threads);
  }
}

/// kGroups: of a block's row.
template <GroupScaleType kType, int kGroups>
class Packer {
 public:
  Packer(const Int4Slab& slab, const PackedFormat& format, const std::string& what)
      : slab_(slab), format_(format), what_(what) {}

  /// The `strip`-th 64 rows.
  PackFindings pack(int64_t strip, const std::function<char*(int64_t)>& blockAt) {
    const int64_t blocks = slab_.columns / kColumns, first = strip * kRows;
    for (int64_t r = 0; r < kRows; r++) rows_[r] = rowOf(slab_, first + r);
    for (int64_t b = 0; b < blocks; b++) {
      packBlock(first, b, blockAt(strip * blocks + b));
      if (found_.needsFull || found_.needsFp32) break;
    }
    return found_;
  }

 private:
  static constexpr int kGroupBytes = kColumns / kGroups / 2;

  void packBlock(int64_t first, int64_t block, char* out) {
    for (int64_t r = 0; r < kRows; r++) {
      Row& row = rows_[r];
      auto* codes = reinterpret_cast<uint8_t*>(codes_[r]);
      for (int g = 0; g < kGroups; g++, codes += kGroupBytes) {
        const int64_t group = block * kGroups + g;
        const uint8_t* given = row.codes + group * kGroupBytes;
        if (row.codes != nullptr && takeScale(row, given, first + r, group)) {
          std::memcpy(codes, given, kGroupBytes);
        } else {
          std::memset(codes, 0x88, kGroupBytes);
        }
        writeScale(out + 4096, g * kRows + r, row.last);
      }
    }
    for (int64_t r = 0; r < kRows; r += r % 8 == 7 ? 9 : 1) {
      char* to = out + (r / 16 * 32 + r % 8 * 4) * 16;
      if (format_.forBf16) {
        packPair<Order::kBf16>(codes_[r], codes_[r + 8], to);
      } else if (format_.full) {
        packPair<Order::kFull>(codes_[r], codes_[r + 8], to);
      } else {
        packPair<Order::kSymmetric>(codes_[r], codes_[r + 8], to);
      }
    }
  }

  /// Whether the group has anything but zeros; then its scale is the row's last.
  bool takeScale(Row& row, const uint8_t* codes, int64_t index, int64_t group) {
    const double exact = scaleAt<kType>(row.scales, group) * row.channel;
    const float scale = static_cast<float>(exact), magnitude = std::abs(scale);
    const bool isUsual = magnitude >= kLeast && magnitude <= kMost;
    if (!isUsual && !std::isfinite(exact)) fail(exact, index, group, "a finite one");
    if (exact == 0 || !anyBut0<kGroupBytes>(codes)) return false;
    if (!isUsual) fail(exact, index, group, "one of 2⁻¹²⁶ to 2¹²⁶");
    if (magnitude < row.least || magnitude > row.most) {
      row.least = std::min(row.least, magnitude);
      row.most = std::max(row.most, magnitude);
      if (row.most / row.least > kWidestSpan) fail(exact, index, group, "all of a row within 2⁹⁶ of each other");
    }
    uint32_t bits;
    std::memcpy(&bits, &scale, sizeof bits);
    if (format_.scaleBytes == 2 && (bits & 0xffff) != 0) found_.needsFp32 = true;
    if (!format_.full && anyMinus8<kGroupBytes>(codes)) found_.needsFull = true;
    row.last = scale;
    return true;
  }

  void writeScale(char* scales, int64_t at, float value) const {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    const uint16_t bf16 = static_cast<uint16_t>(bits >> 16);
    if (format_.scaleBytes == 2) {
      std::memcpy(scales + at * 2, &bf16, sizeof bf16);
    } else {
      std::memcpy(scales + at * 4, &bits, sizeof bits);
    }
  }

  [[noreturn]] void fail(double scale, int64_t row, int64_t group, const char* wanted) const {
    throw Error(format("%s: expected every group scale times its row's to be %s, but received %g at row %lld, group %lld",
                       what_.c_str(), wanted, scale, static_cast<long long>(slab_.firstRow + row),
                       static_cast<long long>(group)));
  }

  const Int4Slab& slab_;
  const PackedFormat format_;
  const std::string& what_;
  PackFindings found_;
  Row rows_[kRows];
  uint16_t codes_[kRows][kPairs];
};

}  // namespace

size_t blockBytes(const Int4Slab& slab, const PackedFormat& format) {
  return static_cast<size_t>(kRows * kColumns / 2 + kColumns / slab.group * kRows * format.scaleBytes);
}

template <GroupScaleType kType, int kGroups>
static PackFindings packRows(const Int4Slab& slab, const PackedFormat& format, Pool& pool,
                             const std::function<char*(int64_t)>& blockAt, const std::string& what) {
  std::atomic<bool> stop{false}, needsFull{false}, needsFp32{false};
  const auto packStrip = [&](int64_t strip, int) {
    const PackFindings found = Packer<kType, kGroups>(slab, format, what).pack(strip, blockAt);
    if (found.needsFull) needsFull = stop = true;
    if (found.needsFp32) needsFp32 = stop = true;
  };
  const auto done = std::make_shared<std::promise<void>>();  // also the job's: it may still be telling when this thread goes on
  pool.submit([&, done] {
    try {
      pool.parallelFor((slab.rows + kRows - 1) / kRows, &stop, packStrip);
      done->set_value();
    } catch (...) {
      done->set_exception(std::current_exception());
    }
  });
  done->get_future().get();
  return {needsFull, needsFp32};
}

PackFindings packInt4(const Int4Slab& slab, const PackedFormat& format, Pool& pool,
                      const std::function<char*(int64_t)>& blockAt, const std::string& what) {
  const auto ofType = [&]<GroupScaleType kType>() {
    const auto pack = slab.group == 32 ? packRows<kType, 4> : slab.group == 64 ? packRows<kType, 2> : packRows<kType, 1>;
    return pack(slab, format, pool, blockAt, what);
  };
  if (slab.scaleType == GroupScaleType::kBf16) return ofType.operator()<GroupScaleType::kBf16>();
  if (slab.scaleType == GroupScaleType::kE4m3) return ofType.operator()<GroupScaleType::kE4m3>();
  return ofType.operator()<GroupScaleType::kFp32>();
}

}  // namespace fireq::cuda
