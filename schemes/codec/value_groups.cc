#include "schemes/codec/value_groups.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "schemes/codec/bitpack.h"

namespace kvsweep {
namespace {

constexpr int64_t kStreamRow = 4096;  // codes of a bit stream that one thread packs; whole bytes at any width

}  // namespace

ValueGroups::ValueGroups(GroupCut how, int64_t size, int64_t row_count, int64_t row_length)
    : cut(how), group(size), rows(row_count), dim(row_length), full(size) {
  switch (cut) {
    case GroupCut::kConsecutive:
      full_groups = values() / group;
      rest = values() % group;
      rest_groups = rest > 0 ? 1 : 0;
      break;
    case GroupCut::kRows:
      full_groups = rows / group * dim;
      rest = rows % group;
      rest_groups = rest > 0 ? dim : 0;
      break;
    case GroupCut::kStrided:
      const int64_t groups = (values() + group - 1) / group;
      if (groups == 0) break;
      full = (values() + groups - 1) / groups;
      rest = full - 1;
      full_groups = values() - rest * groups;
      rest_groups = groups - full_groups;
  }
}

at::Tensor ValueGroups::gather(const at::Tensor& flat) const {
  if (cut == GroupCut::kConsecutive || flat.numel() == 0) return flat;
  if (cut == GroupCut::kRows) {
    const int64_t whole = full_groups * full, blocks = full_groups / dim;
    const at::Tensor first = flat.narrow(0, 0, whole).view({blocks, group, dim}).transpose(1, 2).reshape({-1});
    if (rest_groups == 0) return first;
    return at::cat({first, flat.narrow(0, whole, rest * dim).view({rest, dim}).t().reshape({-1})});
  }
  const at::Tensor even = flat.narrow(0, 0, rest * count()).view({rest, count()});
  const at::Tensor last = flat.narrow(0, rest * count(), full_groups).view({1, full_groups});
  const at::Tensor first = at::cat({even.narrow(1, 0, full_groups), last}).t().reshape({-1});
  if (rest_groups == 0) return first;
  return at::cat({first, even.narrow(1, full_groups, rest_groups).t().reshape({-1})});
}

at::Tensor ValueGroups::scatter(const at::Tensor& grouped) const {
  if (cut == GroupCut::kConsecutive || grouped.numel() == 0) return grouped;
  const int64_t whole = full_groups * full;
  const at::Tensor first = grouped.narrow(0, 0, whole), second = grouped.narrow(0, whole, rest_groups * rest);
  if (cut == GroupCut::kRows) {
    const at::Tensor rows_first = first.view({full_groups / dim, dim, group}).transpose(1, 2).reshape({-1});
    return rest_groups == 0 ? rows_first : at::cat({rows_first, second.view({dim, rest}).t().reshape({-1})});
  }
  const at::Tensor columns = first.view({full_groups, full}).t();
  const at::Tensor even = at::cat({columns.narrow(0, 0, rest), second.view({rest_groups, rest}).t()}, 1);
  return at::cat({even.reshape({-1}), columns.select(0, rest)});
}

at::Tensor ValueGroups::spread(const at::Tensor& metadata) const {
  const auto part = [&metadata](int64_t from, int64_t groups, int64_t times) {
    return metadata.narrow(0, from, groups).view({groups, 1}).expand({groups, times}).reshape({-1});
  };
  return at::cat({part(0, full_groups, full), part(full_groups, rest_groups, rest)});
}

int64_t ValueGroups::segment() const {
  return std::max<int64_t>(1, cut == GroupCut::kConsecutive ? group : cut == GroupCut::kRows ? dim : count());
}

int64_t ValueGroups::first_of(int64_t segment_index) const {
  return cut == GroupCut::kConsecutive ? segment_index : cut == GroupCut::kRows ? segment_index / group * dim : 0;
}

void check_values(const char* name, const at::Tensor& x, int64_t heads, int64_t head_dim) {
  TORCH_CHECK(x.dim() == 3 && x.size(0) == heads && x.size(2) == head_dim, name, ": needs [", heads, ", T, ", head_dim,
              "], got ", x.sizes());
}

at::Tensor flat_values(const char* name, const at::Tensor& x, int64_t heads, int64_t head_dim) {
  check_values(name, x, heads, head_dim);
  const at::Tensor flat = x.to(at::kFloat).reshape({-1});
  // A sum is NaN or infinite when an item is; one that merely overflows is looked at again item by item.
  TORCH_CHECK(flat.sum().isfinite().item<bool>() || flat.isfinite().all().item<bool>(), name,
              ": NaN or infinity in an input of sizes ", x.sizes());
  return flat;
}

at::Tensor pack_stream(const at::Tensor& codes, int64_t bits) {
  const int64_t count = codes.numel(), whole = count / kStreamRow * kStreamRow;
  const at::Tensor rows = pack_bits(codes.narrow(0, 0, whole).view({-1, kStreamRow}), bits).view({-1});
  if (whole == count) return rows;
  return at::cat({rows, pack_bits(codes.narrow(0, whole, count - whole), bits)});
}

at::Tensor unpack_stream(const at::Tensor& packed, int64_t bits, int64_t count) {
  const int64_t whole = count / kStreamRow * kStreamRow, bytes = packed_bytes(whole, bits);
  const at::Tensor rows = packed.narrow(0, 0, bytes).view({-1, packed_bytes(kStreamRow, bits)});
  const at::Tensor first = unpack_bits(rows, bits, kStreamRow).view({-1});
  if (whole == count) return first;
  return at::cat({first, unpack_bits(packed.narrow(0, bytes, packed.size(0) - bytes), bits, count - whole)});
}

}  // namespace kvsweep
