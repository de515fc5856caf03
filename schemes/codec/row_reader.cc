#include "schemes/codec/row_reader.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>

#include "harness/core/dense_rows.h"

namespace kvsweep {
namespace {

constexpr int64_t kGrain = 16384;  // values that are worth a thread

}  // namespace

PartRows::PartRows(const at::Tensor& part)
    : part_(rows_are_dense(part) ? part : part.contiguous()),
      data_(static_cast<const uint8_t*>(part_.const_data_ptr())),
      head_bytes_(part_.stride(0) * part_.element_size()),
      row_bytes_(part_.element_size()) {
  for (int64_t i = 2; i < part_.dim(); ++i) row_bytes_ *= part_.size(i);
}

at::Tensor decode_all(const RowReader& reader, int64_t tokens, int64_t dim) {
  const at::Tensor out = at::empty({reader.heads(), tokens, dim}, at::kFloat);
  auto* to = out.mutable_data_ptr<float>();
  at::parallel_for(0, reader.heads() * tokens, kGrain / dim + 1, [&](int64_t begin, int64_t end) {
    while (begin < end) {
      const int64_t head = begin / tokens, token = begin % tokens, count = std::min(end - begin, tokens - token);
      reader.read(head, token, count, to + begin * dim);
      begin += count;
    }
  });
  return out;
}

}  // namespace kvsweep
