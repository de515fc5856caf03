#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "harness/core/codec.h"

namespace kvsweep {

// A part [H, T, ...] in CPU memory. A head's rows lie densely behind one another, heads wherever they are: as a
// TokenBuffer gives them. Other tensors are copied.
class PartRows {
 public:
  explicit PartRows(const at::Tensor& part);

  int64_t heads() const { return part_.size(0); }
  int64_t row_bytes() const { return row_bytes_; }
  template <class T>
  const T* at(int64_t head, int64_t token) const {
    return reinterpret_cast<const T*>(data_ + head * head_bytes_ + token * row_bytes_);
  }

 private:
  at::Tensor part_;
  const uint8_t* data_;
  int64_t head_bytes_, row_bytes_;
};

// Everything that a reader has: [H, tokens, dim] float32. Threads share tokens.
at::Tensor decode_all(const RowReader& reader, int64_t tokens, int64_t dim);

}  // namespace kvsweep
