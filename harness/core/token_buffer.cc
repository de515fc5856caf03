#include "harness/core/token_buffer.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace kvsweep {
namespace {

at::Tensor with_rows(const at::Tensor& like, int64_t rows) {
  std::vector<int64_t> sizes = like.sizes().vec();
  sizes[1] = rows;
  return at::empty(sizes, like.options());
}

}  // namespace

TokenBuffer::TokenBuffer(const at::Tensor& prototype, int64_t capacity_rows)
    : storage_(with_rows(prototype, std::max<int64_t>(capacity_rows, 0))) {
  TORCH_CHECK(prototype.dim() >= 2, "TokenBuffer: prototype of sizes ", prototype.sizes(), " has no token dimension");
}

void TokenBuffer::make_room(int64_t rows) {
  const int64_t capacity = storage_.size(1);
  if (end_ + rows <= capacity) return;
  const int64_t used = size();
  // Half of the buffer free at the front: reuse it; the move is paid for by the rows that left.
  const bool fits = used + rows <= capacity && begin_ >= used;
  const at::Tensor target = fits ? storage_ : with_rows(storage_, std::max({used + rows, 2 * used, int64_t{16}}));
  if (used > 0) target.narrow(1, 0, used).copy_(this->rows());
  storage_ = target;
  begin_ = 0;
  end_ = used;
}

void TokenBuffer::append(const at::Tensor& rows) {
  const int64_t count = rows.size(1);
  if (count == 0) return;
  make_room(count);
  storage_.narrow(1, end_, count).copy_(rows);
  end_ += count;
}

void TokenBuffer::drop_front(int64_t rows) {
  TORCH_CHECK(rows >= 0 && rows <= size(), "TokenBuffer: drop_front(", rows, ") of ", size(), " rows");
  begin_ += rows;
}

at::Tensor TokenBuffer::rows() const {
  return storage_.narrow(1, begin_, size());
}

TokenBuffer TokenBuffer::clone() const {
  TokenBuffer copy(*this);
  copy.storage_ = with_rows(storage_, storage_.size(1));
  copy.storage_.narrow(1, begin_, size()).copy_(rows());
  return copy;
}

}  // namespace kvsweep
