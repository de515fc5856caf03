#include "harness/core/token_buffer.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>

#include "harness/core/dense_rows.h"

namespace kvsweep {
namespace {

at::Tensor with_rows(const at::Tensor& like, int64_t rows) {
  TORCH_CHECK(like.dim() >= 2, "TokenBuffer: a prototype of sizes ", like.sizes(), " has no token dimension");
  std::vector<int64_t> sizes = like.sizes().vec();
  sizes[1] = rows;
  return at::empty(sizes, like.options());
}

// Rows [first, ...) of `storage` become `rows`. One token is less than what a copy of tensors costs by itself.
void put_rows(const at::Tensor& storage, int64_t first, const at::Tensor& rows) {
  if (!storage.is_cpu() || !rows.is_cpu() || !rows_are_dense(rows)) {
    storage.narrow(1, first, rows.size(1)).copy_(rows);
    return;
  }
  if (rows.numel() == 0) return;  // memory that is not there is nothing to copy from
  const auto size = static_cast<int64_t>(storage.element_size());
  auto* to = static_cast<char*>(storage.mutable_data_ptr()) + first * storage.stride(1) * size;
  const auto* from = static_cast<const char*>(rows.const_data_ptr());
  for (int64_t head = 0; head < rows.size(0); ++head)
    std::memcpy(to + head * storage.stride(0) * size, from + head * rows.stride(0) * size,
                static_cast<size_t>(rows.size(1) * storage.stride(1) * size));
}

}  // namespace

TokenBuffer::TokenBuffer(const at::Tensor& prototype, int64_t capacity_rows)
    : storage_(with_rows(prototype, std::max<int64_t>(capacity_rows, 0))) {}

void TokenBuffer::make_room(int64_t rows) {
  const int64_t capacity = storage_.size(1);
  if (end_ + rows <= capacity) return;
  const int64_t used = size();
  // Source and target of the move must not overlap, and as many rows have left as are moved: a row costs one move.
  const bool fits = used + rows <= capacity && begin_ >= used;
  const at::Tensor target = fits ? storage_ : with_rows(storage_, std::max({used + rows, 2 * used, int64_t{16}}));
  if (used > 0) put_rows(target, 0, this->rows());
  storage_ = target;
  begin_ = 0;
  end_ = used;
}

void TokenBuffer::append(const at::Tensor& rows) {
  bool fits = rows.dim() == storage_.dim() && rows.scalar_type() == storage_.scalar_type();
  for (int64_t i = 0; fits && i < rows.dim(); ++i) fits = i == 1 || rows.size(i) == storage_.size(i);
  TORCH_CHECK(fits, "TokenBuffer: rows of ", rows.scalar_type(), " ", rows.sizes(), " do not go into ",
              storage_.scalar_type(), " ", storage_.sizes());
  const int64_t count = rows.size(1);
  if (count == 0) return;
  make_room(count);
  put_rows(storage_, end_, rows);
  end_ += count;
}

void TokenBuffer::drop_front(int64_t rows) {
  TORCH_CHECK(rows >= 0 && rows <= size(), "TokenBuffer: drop_front(", rows, ") of ", size(), " rows");
  begin_ += rows;
}

at::Tensor TokenBuffer::rows() const {
  return storage_.narrow(1, begin_, size());
}

int64_t TokenBuffer::capacity() const {
  return storage_.size(1);
}

TokenBuffer TokenBuffer::clone() const {
  TokenBuffer copy(*this);
  copy.storage_ = with_rows(storage_, storage_.size(1));
  put_rows(copy.storage_, begin_, rows());
  return copy;
}

}  // namespace kvsweep
