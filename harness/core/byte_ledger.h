#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <map>
#include <string_view>

namespace kvsweep {

enum class ByteRole { kCodes, kScales, kZeros, kCodebook, kOutliers, kWindow, kIndex };
inline constexpr std::array<std::string_view, 7> kByteRoleNames = {"codes",    "scales", "zeros", "codebook",
                                                                   "outliers", "window", "index"};

// Bytes that a cache keeps alive, counted from its tensors and never from a formula. A storage is billed once however
// many tensors share it: `live` is the bytes of the elements in use, `reserved` the bytes of the storage behind them,
// also where no element is in use yet. Tokens kept exact are billed as kWindow.
class ByteLedger {
 public:
  // `used` is a view on a buffer's filled part; a second view that starts at the same element is an alias of the first,
  // and only what it shows beyond the first is billed. Throws c10::Error on a view that shows elements twice
  // (expand()): its size is not memory.
  void add(ByteRole role, const at::Tensor& used);
  // Memory that is held for speed and can be made again from what is billed (keys rebuilt from a prediction and a
  // residual): counts as reserved, not as live.
  void add_rebuilt(const at::Tensor& tensor);

  int64_t live(ByteRole role) const { return live_[static_cast<size_t>(role)]; }
  int64_t live_bytes() const;
  int64_t reserved_bytes() const;

 private:
  std::array<int64_t, kByteRoleNames.size()> live_{};
  std::map<const void*, int64_t> storages_;  // start of a storage -> its bytes
  std::map<const void*, int64_t> views_;     // first element of a view -> its bytes: an alias is billed once
};

}  // namespace kvsweep
