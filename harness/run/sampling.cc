#include "harness/run/sampling.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>

#include "harness/core/error.h"
#include "harness/core/hash.h"
#include "harness/core/log.h"
#include "harness/core/random.h"
#include "harness/core/user_cache.h"
#include "harness/run/interrupt.h"
#include "harness/run/progress.h"

namespace kvsweep {
namespace {

namespace fs = std::filesystem;
using Texts = std::vector<std::vector<int32_t>>;

int32_t first_token(const Tokenizer& tokenizer) {
  if (tokenizer.bos()) return *tokenizer.bos();
  const std::vector<int32_t> ends = tokenizer.end_tokens();
  if (ends.empty()) throw DataError("the model's tokenizer has neither BOS nor an end token to start a text from");
  return ends.front();
}

// Inverse CDF in vocabulary order.
int32_t draw(const at::Tensor& probabilities, double uniform) {
  const float* p = probabilities.const_data_ptr<float>();
  double sum = 0;
  for (int64_t i = 0; i < probabilities.numel(); ++i) {
    sum += p[i];
    if (uniform < sum) return static_cast<int32_t>(i);
  }
  return static_cast<int32_t>(probabilities.numel() - 1);
}

std::optional<Texts> read_texts(const fs::path& path, int64_t sequences, int64_t tokens) {
  std::ifstream in(path);
  if (!in) return std::nullopt;
  const nlohmann::json json = nlohmann::json::parse(in, nullptr, false);
  if (!json.is_array()) return std::nullopt;
  Texts texts;
  for (const auto& row : json) {
    if (!row.is_array()) return std::nullopt;
    texts.emplace_back();
    for (const auto& id : row) {
      if (!id.is_number_integer()) return std::nullopt;
      texts.back().push_back(id.get<int32_t>());
    }
    if (static_cast<int64_t>(texts.back().size()) != tokens) return std::nullopt;
  }
  if (static_cast<int64_t>(texts.size()) != sequences) return std::nullopt;
  return texts;
}

// Written beside and renamed, so that a reader never sees half a file. Keeping it is a convenience: no error ends the
// run.
void write_texts(const fs::path& path, const Texts& texts) {
  std::error_code error;
  fs::create_directories(path.parent_path(), error);
  const fs::path beside = fmt::format("{}.{}", path.string(), getpid());
  std::ofstream out(beside);
  out << nlohmann::json(texts) << std::flush;
  if (out.good()) fs::rename(beside, path, error);
  if (!out.good() || error) {
    warn(fmt::format("{}: cannot be kept; the text is sampled again next time", path.string()));
    fs::remove(beside, error);
  }
}

Texts sample_texts(const Llama& llama, const Tokenizer& tokenizer, const Scheme& scheme, int64_t sequences,
                   int64_t tokens, uint64_t seed, Progress& progress) {
  Texts texts(static_cast<size_t>(sequences), {first_token(tokenizer)});
  std::vector<std::unique_ptr<KvCache>> caches;
  std::vector<Rng> rngs;
  for (int64_t i = 0; i < sequences; ++i) {
    caches.push_back(scheme.make_cache(llama.cache_context(tokens)));
    rngs.emplace_back(derive_seed(seed, fmt::format("model_text/{}", i)));
  }
  for (int64_t position = 0; position + 1 < tokens; ++position) {
    check_interrupt();
    std::vector<Row> rows(texts.size());
    for (size_t i = 0; i < rows.size(); ++i) {
      rows[i].cache = caches[i].get();
      rows[i].tokens = {texts[i].back()};
      rows[i].position = position;
      rows[i].slabs = {1};
    }
    const at::Tensor probabilities = at::softmax(llama.logits(llama.step(rows)), -1).to(at::kCPU);
    for (size_t i = 0; i < rows.size(); ++i)
      texts[i].push_back(draw(probabilities[static_cast<int64_t>(i)], rngs[i].uniform()));
    progress.advance(1, 1);
  }
  return texts;
}

}  // namespace

Texts model_texts(const LoadedModel& model, const Scheme& scheme, int64_t sequences, int64_t tokens, uint64_t seed) {
  const ModelOptions options = model.llama->options();
  const std::string key =
      sha256_hex(fmt::format("model_text/1/{}/{}/{}/{}/{}/{}", model.weights_sha256, options.device.str(),
                             c10::toString(options.dtype), sequences, tokens, seed));
  const fs::path path = user_cache() / "text" / (key.substr(0, 16) + ".json");
  if (auto texts = read_texts(path, sequences, tokens)) return *std::move(texts);
  Progress progress(static_cast<double>(tokens), tokens, "tokens");
  progress.label(fmt::format("sampling {} texts from {}", sequences, model.spec.name));
  Texts texts = sample_texts(*model.llama, *model.tokenizer, scheme, sequences, tokens, seed, progress);
  write_texts(path, texts);
  return texts;
}

void continue_text(const Llama& llama, const Tokenizer& tokenizer, const Scheme& scheme,
                   const std::vector<int32_t>& prompt, int64_t tokens, double temperature, uint64_t seed,
                   const std::function<void(int32_t)>& each_token) {
  const auto count = static_cast<int64_t>(prompt.size());
  const int64_t room = llama.config().max_positions - count;
  if (count == 0) throw ConfigError("the text has no tokens");
  if (room < 0) throw ConfigError(fmt::format("the text has {} tokens, the model allows {}", count, count + room));
  const std::unique_ptr<KvCache> cache = scheme.make_cache(llama.cache_context(count + std::min(tokens, room)));
  at::Tensor hidden = llama.prefill(
      prompt, [&](int64_t layer, const KvSlab& slab) { cache->append(layer, slab); }, 1);
  cache->finish_context();
  Rng rng(derive_seed(seed, "continue_text"));
  const std::vector<int32_t> ends = tokenizer.end_tokens();
  for (int64_t made = 0; made < tokens; ++made) {
    const at::Tensor logits = llama.logits(hidden).squeeze(0);
    const int32_t token = temperature > 0 ? draw(at::softmax(logits / temperature, -1).to(at::kCPU), rng.uniform())
                                          : static_cast<int32_t>(logits.argmax().item<int64_t>());
    if (std::find(ends.begin(), ends.end(), token) != ends.end()) return;
    each_token(token);
    if (made + 1 == tokens || made >= room) return;
    Row row;
    row.cache = cache.get();
    row.tokens = {token};
    row.position = count + made;
    row.slabs = {1};
    hidden = llama.step({&row, 1});
  }
}

}  // namespace kvsweep
