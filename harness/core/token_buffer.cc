#include "harness/core/token_buffer.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace kvsweep {
namespace {

at::Tensor with_rows(const at::Tensor& like, int64_t rows) {
  TORCH_CHECK(like.dim() >= 2, "TokenBuffer: a prototype of sizes ", like.sizes(), " has no token dimension");
  std::vector<int64_t> sizes = like.sizes().vec();
  sizes[1] = rows;
  return at::empty(sizes, like.options());
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
  if (used > 0) target.narrow(1, 0, used).copy_(this->rows());
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

int64_t TokenBuffer::capacity() const {
  return storage_.size(1);
}

TokenBuffer TokenBuffer::clone() const {
  TokenBuffer copy(*this);
  copy.storage_ = with_rows(storage_, storage_.size(1));
  copy.storage_.narrow(1, begin_, size()).copy_(rows());
  return copy;
}

}  // namespace kvsweep
