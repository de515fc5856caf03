#include "harness/attention/fused.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "harness/core/dense_rows.h"
#include "harness/core/shared_tasks.h"

namespace kvsweep {
namespace {

constexpr int64_t kTaskRows = 96;           // of queries and heads that share unpacked tiles; their scores stay in L2
constexpr int64_t kTaskProducts = 1 << 20;  // below this a second thread costs more than it saves

// The bases of all keys or of all values: [D, D] or [H, D, D] float32, contiguous.
struct Spaces {
  std::vector<at::Tensor> given, bases;

  int64_t index_of(const at::Tensor& basis) {
    if (!basis.defined()) return 0;
    for (size_t i = 0; i < given.size(); ++i)
      if (given[i].is_same(basis)) return static_cast<int64_t>(i) + 1;
    given.push_back(basis);
    bases.push_back(basis.to(at::kFloat).contiguous());
    return static_cast<int64_t>(given.size());
  }
  int64_t count() const { return static_cast<int64_t>(bases.size()) + 1; }
  const float* of_head(int64_t space, int64_t head) const {
    const at::Tensor& basis = bases[static_cast<size_t>(space - 1)];
    const int64_t stride = basis.dim() == 3 ? basis.stride(0) : 0;
    return basis.const_data_ptr<float>() + head * stride;
  }
};

struct Planned {
  cpu::Job job;
  Spaces key_spaces, value_spaces;
  std::vector<at::Tensor> held;  // what the job points to, with the readers
  std::vector<std::unique_ptr<const RowReader>> readers;
  bool decoded = false;
};

// Float32 rows [H, n, D] that are dense.
void point_to(const at::Tensor& rows, cpu::Run& run) {
  run.data = reinterpret_cast<const uint8_t*>(rows.const_data_ptr<float>());
  run.head_bytes = rows.stride(0) * static_cast<int64_t>(sizeof(float));
  run.row_bytes = rows.size(2) * static_cast<int64_t>(sizeof(float));
}

std::optional<cpu::Metadata> metadata_of(const at::Tensor& x) {
  cpu::Metadata metadata;
  if (x.dim() != 3 || !rows_are_dense(x)) return std::nullopt;
  if (x.scalar_type() == at::kHalf)
    metadata.type = cpu::Narrow::kHalf;
  else if (x.scalar_type() == at::kBFloat16)
    metadata.type = cpu::Narrow::kBFloat16;
  else if (x.scalar_type() != at::kFloat)
    return std::nullopt;
  metadata.data = x.const_data_ptr();
  metadata.head_stride = x.stride(0);
  metadata.row = x.size(2);
  return metadata;
}

// Fills in codes and metadata; false: the run has to be decoded.
bool plan_codes(const KvRun& run, int64_t dim, cpu::Run& planned) {
  const std::optional<PackedLayout> layout = run.codec->layout();
  const size_t parts = layout && layout->zero ? 3 : 2;
  if (!layout || run.parts.size() != parts || !run.parts[0].is_cpu()) return false;
  const at::Tensor& codes = run.parts[0];
  if (codes.scalar_type() != at::kByte || !rows_are_dense(codes)) return false;
  const auto scale = metadata_of(run.parts[1]);
  const auto zero = layout->zero ? metadata_of(run.parts[2]) : cpu::Metadata{};
  if (!scale || !zero) return false;
  TORCH_CHECK(codes.size(-1) == (dim * layout->bits + 7) / 8 &&
                  scale->row == (layout->along_tokens ? dim : dim / layout->group),
              "attention: codes ", codes.sizes(), " and scales ", run.parts[1].sizes(), " of codec ", run.codec->name(),
              " are not of its layout");
  planned.packed = true;
  planned.data = codes.const_data_ptr<uint8_t>();
  planned.head_bytes = codes.stride(0);
  planned.row_bytes = codes.size(-1);
  planned.bits = layout->bits;
  planned.group = layout->group;
  planned.along_tokens = layout->along_tokens;
  planned.zero_point = layout->zero_point;
  planned.half_arithmetic = layout->half_arithmetic;
  planned.offset = layout->offset;
  planned.scale = *scale;
  planned.zero = *zero;
  return true;
}

cpu::Run plan_run(const KvRun& run, bool keys, int64_t first, int64_t dim, Planned& plan) {
  cpu::Run planned;
  planned.first = first;
  planned.tokens = run.tokens;
  planned.pending = keys && run.rotation == KeyRotation::kPending;
  const bool turned = planned.pending && run.basis.defined();  // neither the query nor a tile can be mapped
  if (!turned) planned.space = (keys ? plan.key_spaces : plan.value_spaces).index_of(run.basis);
  if (!turned && !run.codec->exact() && plan_codes(run, dim, planned)) {
    plan.job.heads = run.parts[0].size(0);
    return planned;
  }
  if (!turned && !run.codec->exact() && run.parts[0].is_cpu())
    if (auto reader = run.codec->reader(run.parts)) {
      planned.row_bytes = dim * static_cast<int64_t>(sizeof(float));
      planned.source = {reader.get(), [](const void* of, int64_t head, int64_t token, int64_t count, float* out) {
                          static_cast<const RowReader*>(of)->read(head, token, count, out);
                        }};
      plan.job.heads = reader->heads();
      plan.readers.push_back(std::move(reader));
      return planned;
    }
  plan.decoded = plan.decoded || !run.codec->exact();
  at::Tensor rows = run.codec->decode(run.parts);
  TORCH_CHECK(rows.dim() == 3 && rows.size(1) == run.tokens && rows.size(2) == dim, "attention: codec ",
              run.codec->name(), " decoded ", rows.sizes(), " for a run of ", run.tokens, " tokens of ", dim);
  if (turned) rows = rows.matmul(run.basis.to(at::kFloat).transpose(-1, -2));
  if (!rows_are_dense(rows)) rows = rows.contiguous();
  point_to(rows, planned);
  plan.held.push_back(rows);
  plan.job.heads = rows.size(0);  // a codec without a layout may pack heads together
  return planned;
}

int64_t plan_runs(const c10::SmallVector<KvRun, 3>& runs, bool keys, int64_t dim, Planned& plan) {
  int64_t first = 0;
  for (const KvRun& run : runs) {
    if (run.tokens > 0) (keys ? plan.job.keys : plan.job.values).push_back(plan_run(run, keys, first, dim, plan));
    first += run.tokens;
  }
  return first;
}

void check_positions(const cpu::Job& job, const Rope& rope) {
  for (const cpu::Run& run : job.keys) {
    if (!run.pending) continue;
    TORCH_CHECK(rope.head_dim() == job.dim, "attention: head dim ", job.dim, ", Rope is made for ", rope.head_dim());
    int64_t low = job.first_position + run.first, high = low + run.tokens - 1;
    if (job.positions != nullptr) {
      const auto range = std::minmax_element(job.positions + run.first, job.positions + run.first + run.tokens);
      low = *range.first;
      high = *range.second;
    }
    TORCH_CHECK(low >= 0 && high < rope.max_positions(), "attention: positions ", low, " to ", high,
                " are outside a table of ", rope.max_positions());
  }
}

// Of the runs that begin before token `end`.
int64_t align_of(const std::vector<cpu::Run>& keys, int64_t end) {
  const auto packed = std::find_if(keys.begin(), keys.end(), [](const cpu::Run& run) { return run.packed; });
  return packed == keys.end() || packed->first >= end ? 0 : packed->first % (cpu::kMostAlign + 1);
}

Planned plan_view(const KvView& view, const at::Tensor& q, int64_t position, const Rope& rope) {
  Planned plan;
  cpu::Job& job = plan.job;
  job.dim = q.size(2);
  job.queries = q.size(1);
  job.tokens = plan_runs(view.keys, true, job.dim, plan);
  const int64_t values = plan_runs(view.values, false, job.dim, plan);
  TORCH_CHECK(job.tokens > 0 && values == job.tokens, "attention: a view of ", job.tokens, " keys and ", values,
              " values");
  TORCH_CHECK(q.size(0) % job.heads == 0, "attention: ", q.size(0), " query heads over ", job.heads, " kv-heads");
  job.groups = q.size(0) / job.heads;
  job.align = align_of(job.keys, job.tokens);
  job.position = position;
  job.first_position = view.position;
  job.visible = std::clamp(position + 1 - view.position, -job.queries, job.tokens);
  if (view.positions.defined()) {
    plan.held.push_back(view.positions.to(at::kLong).contiguous());
    job.positions = plan.held.back().const_data_ptr<int64_t>();
  }
  if (view.keep.defined()) {
    plan.held.push_back(view.keep.to(at::kBool).contiguous());
    job.keep = plan.held.back().const_data_ptr<bool>();
  }
  job.value_spaces = plan.value_spaces.count();
  job.cos = rope.cos().const_data_ptr<float>();
  job.sin = rope.sin().const_data_ptr<float>();
  check_positions(job, rope);
  return plan;
}

// [key spaces, H, T * G, D]: scaled, and mapped into each space.
at::Tensor map_queries(const Planned& plan, const at::Tensor& q, const cpu::Kernels& kernels) {
  const cpu::Job& job = plan.job;
  const int64_t dim = job.dim, rows = job.queries * job.groups, spaces = plan.key_spaces.count();
  const at::Tensor from = q.stride(2) == 1 ? q : q.contiguous();
  at::Tensor mapped = at::empty({spaces, job.heads, rows, dim}, q.options());
  const auto* in = from.const_data_ptr<float>();
  auto* out = mapped.mutable_data_ptr<float>();
  const float scale = 1 / std::sqrt(static_cast<float>(dim));
  at::parallel_for(0, job.heads * rows, kTaskProducts / (spaces * dim * dim) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t head = i / rows, row = i % rows, query = row / job.groups;
      const float* x = in + (head * job.groups + row % job.groups) * from.stride(0) + query * from.stride(1);
      float* to = out + i * dim;
      kernels.scale_row(x, scale, dim, to);
      for (int64_t space = 1; space < spaces; ++space)
        kernels.multiply_row(to, plan.key_spaces.of_head(space, head), dim, to + space * job.heads * rows * dim);
    }
  });
  return mapped;
}

// One row's state -> its output.
void finish(const Planned& plan, const Spaces& back, int64_t head, const float* state, const cpu::Kernels& kernels,
            float* room, float* out) {
  const int64_t dim = plan.job.dim;
  const float* sums = state + 2;
  std::copy_n(sums, dim, out);
  for (int64_t space = 1; space < back.count(); ++space) {
    kernels.multiply_row(sums + space * dim, back.of_head(space, head), dim, room);
    for (int64_t d = 0; d < dim; ++d) out[d] += room[d];
  }
  kernels.divide_row(out, state[1], dim, out);
}

// A side's tokens while queries go by: runs as they are in the end, and when each became so.
struct Side {
  const int64_t* from = nullptr;  // [S]: the query that first reads a token of a lossy run as the run has it
  std::vector<bool> lossy;        // of each run
};

// Of queries that see tokens in forms of their own.
struct Forms {
  Side keys, values;
};

constexpr int64_t kWhole = cpu::Stretch::kNoToken;

// The first token that the query at `position` does not read as its run has it; past the position: there is none.
int64_t first_exact(const Side& side, const std::vector<cpu::Run>& runs, int64_t position) {
  for (size_t r = 0; r < runs.size(); ++r) {
    if (!side.lossy[r]) continue;
    const int64_t* begin = side.from + runs[r].first;
    const int64_t* at = std::upper_bound(begin, begin + runs[r].tokens, position);
    const int64_t token = runs[r].first + (at - begin);
    if (at != begin + runs[r].tokens) return token > position ? kWhole : token;
  }
  return kWhole;
}

// Consecutive queries with the same chunks.
struct Block {
  int64_t first = 0, queries = 0;
  int64_t align = 0;
  std::vector<cpu::Stretch> stretches;
};

// Of at most so many queries each.
std::vector<Block> blocks_of(const cpu::Job& job, const Forms& forms, int64_t most) {
  std::vector<Block> blocks;
  for (int64_t i = 0; i < job.queries; ++i) {
    const int64_t position = job.position + i;
    cpu::Stretch one{job.groups, first_exact(forms.keys, job.keys, position),
                     first_exact(forms.values, job.values, position)};
    const int64_t align = align_of(job.keys, std::min(one.keys, position + 1));
    if (blocks.empty() || blocks.back().queries == most || blocks.back().align != align) {
      blocks.push_back({i, 0, align, {}});
    }
    Block& block = blocks.back();
    ++block.queries;
    if (!block.stretches.empty() && block.stretches.back().keys == one.keys &&
        block.stretches.back().values == one.values)
      block.stretches.back().rows += one.rows;
    else
      block.stretches.push_back(one);
  }
  return blocks;
}

class Attention {
 public:
  Attention(const Planned& plan, const cpu::Kernels& kernels, const at::Tensor& output)
      : plan_(plan), job_(plan.job), kernels_(kernels), out_(output.mutable_data_ptr<float>()) {
    for (const at::Tensor& basis : plan.value_spaces.bases) {
      back_.given.push_back(basis);
      back_.bases.push_back(basis.transpose(-1, -2).contiguous());
    }
  }

  void run() const {
    if (job_.queries <= block())
      split_chunks();
    else
      split_queries();
  }

  // Queries that see tokens in forms of their own.
  void run(const Forms& forms) const {
    const std::vector<Block> blocks = blocks_of(job_, forms, block());
    share_blocks(std::ssize(blocks), [&](const auto& next) {
      cpu::Job job = job_;
      job.stretches = {{}};
      const Room room(*this, job, block());
      while (const std::optional<int64_t> task = next()) {
        const Block& block = blocks[static_cast<size_t>(*task / job_.heads)];
        job.tokens = job_.position + block.first + block.queries;
        job.align = block.align;
        job.stretches = block.stretches;
        attend_block(job, *task % job_.heads, block.first, block.queries, room);
      }
    });
  }

 private:
  int64_t block() const { return std::max<int64_t>(1, kTaskRows / job_.groups); }
  int64_t grain(int64_t rows, int64_t tokens) const {
    return std::max<int64_t>(1, kTaskProducts / (2 * rows * tokens * job_.dim));
  }
  at::Tensor floats(int64_t count) const { return at::empty({count}, at::kFloat); }

  // Few queries: every chunk by itself, then merged.
  void split_chunks() const {
    const int64_t rows = job_.queries * job_.groups, chunks = job_.chunks(), width = job_.state_floats();
    const at::Tensor states = floats(job_.heads * chunks * rows * width);
    auto* state = states.mutable_data_ptr<float>();
    at::parallel_for(0, job_.heads * chunks, grain(rows, cpu::kChunkTokens), [&](int64_t begin, int64_t end) {
      const at::Tensor scratch = floats(kernels_.scratch_floats(job_, rows));
      for (int64_t i = begin; i < end; ++i)
        kernels_.attend_chunk(job_, i / chunks, 0, rows, i % chunks, state + i * rows * width,
                              scratch.mutable_data_ptr<float>());
    });
    const int64_t work = 2 * chunks * width + job_.value_spaces * job_.dim * job_.dim;
    at::parallel_for(0, job_.heads * rows, kTaskProducts / work + 1, [&](int64_t begin, int64_t end) {
      std::vector<float> room(static_cast<size_t>(job_.dim));
      for (int64_t i = begin; i < end; ++i) {
        const int64_t head = i / rows, row = i % rows;
        float* first = state + (head * chunks * rows + row) * width;
        for (int64_t chunk = 1; chunk < chunks; ++chunk) kernels_.merge(first, first + chunk * rows * width, width);
        write(head, row, first, room.data());
      }
    });
  }

  // Many queries: blocks of them, each through all chunks.
  void split_queries() const {
    const int64_t block = this->block();
    share_blocks((job_.queries + block - 1) / block, [&](const auto& next) {
      const Room room(*this, job_, block);
      while (const std::optional<int64_t> task = next()) {
        const int64_t first = *task / job_.heads * block;
        attend_block(job_, *task % job_.heads, first, std::min(block, job_.queries - first), room);
      }
    });
  }

  // Calls work(next) on each thread; next() -> block * heads + head. Late blocks see the most and go first.
  template <class F>
  void share_blocks(int64_t blocks, const F& work) const {
    const int64_t tasks = job_.heads * blocks;
    const int64_t threads = at::divup(tasks, grain(block() * job_.groups, job_.tokens));
    share_tasks(tasks, std::min<int64_t>(threads, at::get_num_threads()), [&](const auto& next) {
      work([&]() -> std::optional<int64_t> {
        const std::optional<int64_t> task = next();
        return task ? std::optional(tasks - 1 - *task) : std::nullopt;
      });
    });
  }

  // What a thread computes a block of queries in.
  struct Room {
    Room(const Attention& of, const cpu::Job& job, int64_t block)
        : scratch(of.floats(of.kernels_.scratch_floats(job, block * job.groups))),
          states(of.floats(2 * block * job.groups * job.state_floats())),
          row(of.floats(job.dim)) {}
    at::Tensor scratch, states, row;
  };

  void attend_block(const cpu::Job& job, int64_t head, int64_t first, int64_t queries, const Room& room) const {
    const int64_t rows = queries * job.groups, width = job.state_floats();
    auto *all = room.states.mutable_data_ptr<float>(), *one = all + room.states.numel() / 2;
    for (int64_t chunk = 0; chunk < job.chunks(); ++chunk) {
      kernels_.attend_chunk(job, head, first * job.groups, rows, chunk, chunk == 0 ? all : one,
                            room.scratch.mutable_data_ptr<float>());
      if (chunk == 0) continue;
      for (int64_t row = 0; row < rows; ++row) kernels_.merge(all + row * width, one + row * width, width);
    }
    for (int64_t row = 0; row < rows; ++row)
      write(head, first * job.groups + row, all + row * width, room.row.mutable_data_ptr<float>());
  }

  void write(int64_t head, int64_t row, const float* state, float* room) const {
    const int64_t query = row / job_.groups, query_head = head * job_.groups + row % job_.groups;
    float* to = out_ + (query * job_.heads * job_.groups + query_head) * job_.dim;
    finish(plan_, back_, head, state, kernels_, room, to);
  }

  const Planned& plan_;
  const cpu::Job& job_;
  const cpu::Kernels& kernels_;
  Spaces back_;  // transposed bases of values
  float* out_;
};

// What the queries make of the plan, [T, Hq, D]; `forms`: where queries see their own.
at::Tensor attended(Planned& plan, const at::Tensor& q, const cpu::Kernels& kernels, const Forms* forms = nullptr) {
  const at::Tensor mapped = map_queries(plan, q, kernels);
  plan.job.q = mapped.const_data_ptr<float>();
  const at::Tensor output = at::empty({q.size(1), q.size(0), q.size(2)}, q.options());
  const Attention attention(plan, kernels, output);
  if (forms != nullptr)
    attention.run(*forms);
  else
    attention.run();
  return output;
}

bool takes(const cpu::Kernels& kernels, const at::Tensor& q) {
  return q.scalar_type() == at::kFloat && q.is_cpu() && q.size(2) % kernels.dim_multiple == 0;
}

}  // namespace

std::optional<FusedAttention> attend_fused(const KvView& view, const at::Tensor& q, int64_t position, const Rope& rope,
                                           const cpu::Kernels& kernels) {
  if (!takes(kernels, q)) return std::nullopt;
  Planned plan = plan_view(view, q, position, rope);
  const at::Tensor output = attended(plan, q, kernels);
  return FusedAttention{output, plan.decoded};
}

namespace {

// False: tokens are not compressed in their order.
bool plan_side(const c10::SmallVector<KvRun, 3>& runs, const at::Tensor& from, Side& side) {
  side.from = from.const_data_ptr<int64_t>();
  int64_t first = 0, latest = std::numeric_limits<int64_t>::min();
  for (const KvRun& run : runs) {
    if (run.tokens > 0) side.lossy.push_back(!run.codec->exact());
    for (int64_t t = first; !run.codec->exact() && t < first + run.tokens; ++t) {
      if (side.from[t] < latest) return false;
      latest = side.from[t];
    }
    first += run.tokens;
  }
  return true;
}

cpu::Run exact_rows(const at::Tensor& rows, int64_t first, bool pending) {
  cpu::Run run;
  run.first = first;
  run.tokens = rows.size(1);
  run.pending = pending;
  point_to(rows, run);
  return run;
}

bool has_rotation(const KvView& view, KeyRotation rotation) {
  return std::any_of(view.keys.begin(), view.keys.end(),
                     [&](const KvRun& run) { return run.tokens > 0 && run.rotation == rotation; });
}

}  // namespace

std::optional<FusedAttention> attend_fused_one_pass(const OnePass& tokens, const at::Tensor& q, int64_t position,
                                                    const Rope& rope, const cpu::Kernels& kernels) {
  if (!takes(kernels, q)) return std::nullopt;
  const KvView& view = tokens.after;
  const bool pending = has_rotation(view, KeyRotation::kPending);
  if (view.positions.defined() || view.keep.defined() || view.position != 0) return std::nullopt;
  if (pending && has_rotation(view, KeyRotation::kApplied)) return std::nullopt;
  const at::Tensor k = tokens.k.contiguous(), v = tokens.v.contiguous();
  const at::Tensor key_forms = tokens.forms.keys.contiguous(), value_forms = tokens.forms.values.contiguous();
  Forms forms;
  if (!plan_side(view.keys, key_forms, forms.keys) || !plan_side(view.values, value_forms, forms.values))
    return std::nullopt;
  Planned plan = plan_view(view, q, position, rope);
  const int64_t exact = plan.job.tokens - tokens.first;
  TORCH_CHECK(position + q.size(1) == plan.job.tokens && k.size(1) == exact && v.size(1) == exact, "one pass: queries ",
              position, " to ", position + q.size(1) - 1, " over ", plan.job.tokens, " tokens, exact ones from ",
              tokens.first);
  plan.job.exact_keys = exact_rows(k, tokens.first, pending);
  plan.job.exact_values = exact_rows(v, tokens.first, false);
  const at::Tensor output = attended(plan, q, kernels, &forms);
  return FusedAttention{output, plan.decoded};
}

std::optional<at::Tensor> attend_fused_exact(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                             const cpu::Kernels& kernels) {
  if (!takes(kernels, q)) return std::nullopt;
  const at::Tensor keys = k.contiguous(), values = v.contiguous();
  Planned plan;
  cpu::Job& job = plan.job;
  job.heads = k.size(0);
  job.groups = q.size(0) / job.heads;
  job.dim = q.size(2);
  job.queries = q.size(1);
  job.tokens = k.size(1);
  job.position = job.tokens - job.queries;
  job.visible = job.position + 1;
  job.keys = {exact_rows(keys, 0, false)};
  job.values = {exact_rows(values, 0, false)};
  return attended(plan, q, kernels);
}

const cpu::Kernels* best_kernels(int64_t dim) {
  for (const cpu::Kernels* kernels : {cpu::avx512_kernels(), cpu::avx2_kernels(), cpu::portable_kernels()})
    if (kernels != nullptr && dim % kernels->dim_multiple == 0) return kernels;
  return nullptr;
}

}  // namespace kvsweep
