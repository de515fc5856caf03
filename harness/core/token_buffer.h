#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace kvsweep {

// Rows along dimension 1 of a tensor [H, rows, ...] that grow at the end and may leave at the front. Storage grows by
// doubling, or once to the hint; a token appended costs its own bytes (`cat` would copy everything every time).
class TokenBuffer {
 public:
  // prototype: [H, any, ...], says shape, dtype and device; its rows are not taken. capacity_rows: rows to reserve.
  TokenBuffer(const at::Tensor& prototype, int64_t capacity_rows);

  // [H, n, ...] of the prototype's dtype; copied. Throws c10::Error on another shape or dtype.
  void append(const at::Tensor& rows);
  void drop_front(int64_t rows);  // moves nothing until room is needed
  at::Tensor rows() const;        // [H, size(), ...], a view: valid until the next append
  int64_t size() const { return end_ - begin_; }
  int64_t capacity() const;   // rows that are reserved
  TokenBuffer clone() const;  // deep

 private:
  void make_room(int64_t rows);

  at::Tensor storage_;  // [H, capacity, ...]
  int64_t begin_ = 0, end_ = 0;
};

}  // namespace kvsweep
