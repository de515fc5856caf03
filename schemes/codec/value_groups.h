#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace kvsweep {

// Which values of x [H, T, D] share metadata. x is flattened first, head by head, so groups may straddle tokens and
// heads and form anew when T grows.
enum class GroupCut {
  kConsecutive,  // `group` values that follow one another
  kRows,         // `group` neighbouring rows of [H * T, D], in one channel
  kStrided,      // every n-th value, n = ceil(H * T * D / group) groups
};

// The groups of a tensor of rows * dim values. Where `group` does not divide evenly, the last groups are shorter: the
// last one (kConsecutive), those of the last rows (kRows), those from some group on, by one value (kStrided).
//
// Order of groups, as metadata is stored: kConsecutive and kStrided as they start, kRows [rows / group, dim]. "Grouped
// order" of values: group after group; the first full_groups hold `full` values each, then rest_groups of `rest`.
struct ValueGroups {
  GroupCut cut = GroupCut::kConsecutive;
  int64_t group = 1, rows = 0, dim = 0;
  int64_t full_groups = 0, full = 0, rest_groups = 0, rest = 0;

  ValueGroups(GroupCut how, int64_t size, int64_t row_count, int64_t row_length);
  int64_t values() const { return rows * dim; }
  int64_t count() const { return full_groups + rest_groups; }

  // [values] in the order of the flattened tensor -> grouped order, and back. May share memory with what came.
  at::Tensor gather(const at::Tensor& flat) const;
  at::Tensor scatter(const at::Tensor& grouped) const;
  // Metadata [count()] -> one for each value, in grouped order.
  at::Tensor spread(const at::Tensor& metadata) const;

  // In the flattened order metadata runs along segments: values [s * segment(), (s + 1) * segment()) have the entries
  // from first_of(s), one for all when step() is 0, one each when it is 1.
  int64_t segment() const;
  int64_t step() const { return cut == GroupCut::kConsecutive ? 0 : 1; }
  int64_t first_of(int64_t segment_index) const;
};

// Throws c10::Error that begins with `name` for other sizes than [heads, T, head_dim].
void check_values(const char* name, const at::Tensor& x, int64_t heads, int64_t head_dim);

// x [H, T, D] -> [H * T * D] float32, contiguous; may share memory with x. Throws c10::Error that begins with `name`
// for other sizes (H and D as given) and for NaN and infinity.
at::Tensor flat_values(const char* name, const at::Tensor& x, int64_t heads, int64_t head_dim);

// Codes [n] uint8 as one bit stream (bitpack.h) [packed_bytes(n, bits)], and back.
at::Tensor pack_stream(const at::Tensor& codes, int64_t bits);
at::Tensor unpack_stream(const at::Tensor& packed, int64_t bits, int64_t count);

}  // namespace kvsweep
