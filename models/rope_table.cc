#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "harness/core/error.h"
#include "models/llama_config.h"

namespace kvsweep {
namespace {

float as_float(double value) {
  return static_cast<float>(value);
}

// theta^(2i / D)
std::vector<float> periods(double theta, int64_t head_dim) {
  std::vector<float> periods;
  for (int64_t i = 0; i < head_dim; i += 2)
    periods.push_back(std::pow(as_float(theta), static_cast<float>(i) / static_cast<float>(head_dim)));
  return periods;
}

std::vector<float> llama3(const RopeConfig& rope, int64_t original, std::vector<float> inv_freq) {
  const double context = static_cast<double>(original);
  const float factor = as_float(rope.factor);
  const float low = as_float(rope.low_freq_factor);
  for (float& f : inv_freq) {
    const float wavelength = (1 / f) * as_float(2 * std::numbers::pi);
    if (wavelength > as_float(context / rope.low_freq_factor)) {
      f /= factor;
    } else if (wavelength >= as_float(context / rope.high_freq_factor)) {
      const float smooth =
          ((1 / wavelength) * as_float(context) - low) / as_float(rope.high_freq_factor - rope.low_freq_factor);
      f = (1 - smooth) * f / factor + smooth * f;
    }
  }
  return inv_freq;
}

// The dimension whose wavelength fits `rotations` times into the original context.
double yarn_dimension(double rotations, double head_dim, double theta, double original) {
  return head_dim * std::log(original / (rotations * 2 * std::numbers::pi)) / (2 * std::log(theta));
}

std::vector<float> yarn(const RopeConfig& rope, int64_t head_dim, int64_t original, const std::vector<float>& periods) {
  const double dim = static_cast<double>(head_dim);
  double low = yarn_dimension(rope.beta_fast, dim, rope.theta, static_cast<double>(original));
  double high = yarn_dimension(rope.beta_slow, dim, rope.theta, static_cast<double>(original));
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dim - 1);
  if (low == high) high += 0.001;
  std::vector<float> inv_freq;
  for (size_t i = 0; i < periods.size(); ++i) {
    const float ramp = std::clamp((static_cast<float>(i) - as_float(low)) / as_float(high - low), 0.0f, 1.0f);
    const float extrapolated = 1 - ramp;
    const float interpolation = 1 / (as_float(rope.factor) * periods[i]);
    inv_freq.push_back(interpolation * (1 - extrapolated) + 1 / periods[i] * extrapolated);
  }
  return inv_freq;
}

double yarn_attention_scaling(const RopeConfig& rope) {
  if (rope.attention_factor != 0) return rope.attention_factor;
  const auto scale = [&](double mscale) { return rope.factor <= 1 ? 1 : 0.1 * mscale * std::log(rope.factor) + 1; };
  if (rope.mscale != 0 && rope.mscale_all_dim != 0) return scale(rope.mscale) / scale(rope.mscale_all_dim);
  return scale(1);
}

}  // namespace

RopeTable rope_table(const RopeConfig& rope, int64_t head_dim, int64_t max_positions) {
  const int64_t original = rope.original_max_positions > 0 ? rope.original_max_positions : max_positions;
  const std::vector<float> periods = kvsweep::periods(rope.theta, head_dim);
  RopeTable table;
  for (float period : periods) table.inv_freq.push_back(1 / period);
  if (rope.type == "linear") {
    for (float& f : table.inv_freq) f /= as_float(rope.factor);
  } else if (rope.type == "llama3") {
    table.inv_freq = llama3(rope, original, std::move(table.inv_freq));
  } else if (rope.type == "yarn") {
    table.inv_freq = yarn(rope, head_dim, original, periods);
    table.attention_scaling = as_float(yarn_attention_scaling(rope));
  } else if (rope.type != "default") {
    throw DataError(fmt::format("rope type '{}' is not known; known: default, linear, llama3, yarn", rope.type));
  }
  if (!rope.freq_factors.empty() && rope.freq_factors.size() != table.inv_freq.size())
    throw DataError(fmt::format("{} rope frequency factors for a head_dim of {}; needed are {}",
                                rope.freq_factors.size(), head_dim, table.inv_freq.size()));
  for (size_t i = 0; i < rope.freq_factors.size(); ++i) table.inv_freq[i] /= as_float(rope.freq_factors[i]);
  return table;
}

}  // namespace kvsweep
