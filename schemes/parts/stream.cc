#include "schemes/parts/stream.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "schemes/codec/exact.h"

namespace kvsweep {
namespace {

at::Tensor no_tokens(const CacheContext& context) {
  return at::empty({context.kv_heads, 0, context.head_dim}, at::dtype(context.dtype).device(context.device));
}

// Tokens leave a window one by one, so room for two of them is moved through before it is reused.
int64_t window_rows(const Residency& residency) {
  return residency.window == 0 && residency.block == 1 ? 0 : 2 * residency.window + residency.block;
}

}  // namespace

Stream::Stream(StreamPlan plan, const CacheContext& context)
    : plan_(std::move(plan)),
      exact_(std::make_shared<ExactCodec>(context.dtype)),
      sink_(no_tokens(context), plan_.residency.sink),
      window_(no_tokens(context), std::min(window_rows(plan_.residency), context.expected_tokens)),
      window_rows_(window_.capacity()) {
  const int64_t group = plan_.codec->group_tokens();
  plan_.residency.check();
  TORCH_CHECK(group == 1 || (plan_.residency.block % group == 0 && !plan_.residency.whole), "stream: blocks of ",
              plan_.residency.block, " tokens do not hold whole groups of ", group);
  for (const at::Tensor& part : plan_.codec->encode(no_tokens(context)))
    body_.emplace_back(part, context.expected_tokens / group);
}

void Stream::compress(const at::Tensor& x) {
  if (x.size(1) == 0) return;
  const at::Tensor stored = !plan_.basis.defined() ? x
                            : plan_.to_basis       ? plan_.to_basis(x.to(at::kFloat))
                                                   : x.to(at::kFloat).matmul(plan_.basis);
  const std::vector<at::Tensor> parts = plan_.codec->encode(stored);
  for (size_t i = 0; i < parts.size(); ++i) body_[i].append(parts[i]);
}

// A context that waits as a whole needs room once: that is given back.
void Stream::leave_window(int64_t rows) {
  window_.drop_front(rows);
  if (window_.size() == 0 && window_.capacity() > window_rows_) window_ = TokenBuffer(window_.rows(), window_rows_);
}

void Stream::append(const at::Tensor& x) {
  const int64_t before = tokens(), after = before + x.size(1);
  const int64_t to_sink = std::clamp<int64_t>(plan_.residency.sink - before, 0, x.size(1));
  const int64_t end = plan_.residency.next_end(end_, before, after);
  const at::Tensor rest = x.narrow(1, to_sink, x.size(1) - to_sink);
  sink_.append(x.narrow(1, 0, to_sink));
  const int64_t leaving = end - end_ - to_sink, waiting = window_.size();
  if (leaving > 0 && leaving >= waiting) {
    const int64_t fresh = leaving - waiting;
    const at::Tensor direct = rest.narrow(1, 0, fresh);
    compress(waiting == 0 ? direct : fresh == 0 ? window_.rows() : at::cat({window_.rows(), direct}, 1));
    leave_window(waiting);
    window_.append(rest.narrow(1, fresh, rest.size(1) - fresh));
  } else {
    window_.append(rest);
    if (leaving > 0) {
      compress(window_.rows().narrow(1, 0, leaving));
      leave_window(leaving);
    }
  }
  end_ = end;
}

void Stream::settle() {
  const int64_t leaving = plan_.residency.next_end(end_, tokens(), tokens() + 1) - end_;
  if (leaving <= 0 || leaving > window_.size()) return;
  compress(window_.rows().narrow(1, 0, leaving));
  leave_window(leaving);
  end_ += leaving;
}

c10::SmallVector<KvRun, 3> Stream::runs() const {
  c10::SmallVector<KvRun, 3> runs;
  const auto add = [&runs](const Codec* codec, std::vector<at::Tensor> parts, int64_t tokens,
                           const at::Tensor& basis = {}) {
    if (tokens == 0) return;
    KvRun& run = runs.emplace_back();
    run.basis = basis;
    run.codec = codec;
    run.parts = std::move(parts);
    run.tokens = tokens;
  };
  std::vector<at::Tensor> body;
  for (const TokenBuffer& part : body_) body.push_back(part.rows());
  add(exact_.get(), {sink_.rows()}, sink_.size());
  add(plan_.codec.get(), std::move(body), end_ - sink_.size(), plan_.basis);
  add(exact_.get(), {window_.rows()}, window_.size());
  return runs;
}

void Stream::account(ByteLedger& ledger) const {
  const std::vector<PartSpec> parts = plan_.codec->parts();
  ledger.add(ByteRole::kWindow, sink_.rows());
  for (size_t i = 0; i < parts.size(); ++i) ledger.add(parts[i].role, body_[i].rows());
  ledger.add(ByteRole::kWindow, window_.rows());
}

Stream Stream::clone() const {
  Stream copy(*this);
  copy.sink_ = sink_.clone();
  copy.window_ = window_.clone();
  for (TokenBuffer& part : copy.body_) part = part.clone();
  return copy;
}

}  // namespace kvsweep
