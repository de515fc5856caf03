#include "harness/report/statistics/exponential_sum.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <vector>

namespace kvsweep {
namespace {

constexpr double kStep = 0.24;  // of the distance to the nearest pole: the rule's error is exp(-2 pi / 0.24) = 4e-12
constexpr double kNothing = 1e-12;  // of the integrand at the saddle point
constexpr double kLeast = -35;      // log of a probability that is as good as 0
constexpr int kLongest = 2'000'000;
constexpr int64_t kVanishes = 5000;  // as a power of two, of a divisor
constexpr double kMany = 16;         // equal factors are multiplied one by one up to here

struct Group {
  double y = 0, count = 0;
};

std::vector<Group> groups_of(std::span<const double> y, double sign) {
  std::vector<double> sorted(y.begin(), y.end());
  if (!std::is_sorted(sorted.begin(), sorted.end())) std::sort(sorted.begin(), sorted.end());
  std::vector<Group> groups;
  for (const double value : sorted) {
    if (value == 0) continue;
    if (groups.empty() || groups.back().y != sign * value) groups.push_back({sign * value, 0});
    ++groups.back().count;
  }
  return groups;
}

// Where K(s) - log(s) is least between its poles 0 and 1 / largest y; K(s) = -sum count log(1 - s y).
double saddle_point(const std::vector<Group>& groups, double largest) {
  double low = 0, high = 1 / largest, squares = 0;
  for (const Group& group : groups) squares += group.count * group.y * group.y;
  double s = std::min(1 / std::sqrt(squares), high / 2);
  for (int i = 0; i < 200; ++i) {
    double slope = -1 / s, curvature = 1 / (s * s);
    for (const Group& group : groups) {
      const double r = group.y / (1 - s * group.y);
      slope += group.count * r;
      curvature += group.count * r * r;
    }
    (slope > 0 ? high : low) = s;
    double next = s - slope / curvature;
    if (!(next > low && next < high)) next = (low + high) / 2;
    // Any line between the poles will do, and Newton's steps are small beside a pole, too.
    if (std::abs(next - s) <= 0.01 * std::min(s, 1 / largest - s)) return next;
    s = next;
  }
  return s;
}

// A complex number times a power of two. Plain numbers in place of std::complex, whose product looks for infinities.
struct Scaled {
  double real = 1, imaginary = 0;
  int64_t exponent = 0;

  void multiply(double by_real, double by_imaginary) {
    const double before = real;
    real = before * by_real - imaginary * by_imaginary;
    imaginary = before * by_imaginary + imaginary * by_real;
  }
  void multiply(const Scaled& by) {
    multiply(by.real, by.imaginary);
    exponent += by.exponent;
  }
  // Exact.
  void normalise() {
    const int by = std::ilogb(std::max(std::abs(real), std::abs(imaginary)));
    real = std::scalbn(real, -by);
    imaginary = std::scalbn(imaginary, -by);
    exponent += by;
  }
};

// (1 - i turn)^count
Scaled power(double turn, int64_t count) {
  Scaled out, square{1, -turn, 0};
  for (; count > 0; count /= 2) {
    square.normalise();
    if (count % 2 == 1) out.multiply(square);
    out.normalise();
    const Scaled factor = square;
    square.multiply(factor);
  }
  return out;
}

// The product of (1 - i t y)^count. Factors are 1 or more in size.
Scaled product(const std::vector<double>& single, const std::vector<Group>& many, double t) {
  Scaled out;
  for (size_t i = 0; i < single.size(); ++i) {
    out.multiply(1, -t * single[i]);
    if (i % 16 == 15) out.normalise();  // long before it overflows
  }
  out.normalise();
  for (const Group& group : many) {
    out.multiply(power(t * group.y, static_cast<int64_t>(group.count)));
    out.normalise();
  }
  return out;
}

// P(sum > 0), the expectation of which is not positive.
double upper_tail(const std::vector<Group>& groups, double largest) {
  const double s = saddle_point(groups, largest);
  double log_at_s = 0;
  std::vector<double> single;  // y / (1 - s y) in place of y
  std::vector<Group> many;
  for (const Group& group : groups) {
    log_at_s -= group.count * std::log1p(-s * group.y);
    const double y = group.y / (1 - s * group.y);
    if (group.count > kMany)
      many.push_back({y, group.count});
    else
      single.insert(single.end(), static_cast<size_t>(group.count), y);
  }
  if (log_at_s < kLeast) return 0;  // the saddle point bounds the probability
  const double step = kStep * std::min(s, 1 / largest - s);
  double sum = 0.5 / s;
  for (int i = 1; i < kLongest; ++i) {
    const double t = step * i;
    Scaled divisor = product(single, many, t);
    divisor.multiply(s, t);
    const double squares = divisor.real * divisor.real + divisor.imaginary * divisor.imaginary;
    const auto exponent = static_cast<int>(std::min<int64_t>(divisor.exponent, kVanishes));
    sum += std::scalbn(divisor.real / squares, -exponent);  // of 1 / divisor
    if (std::scalbn(1 / std::sqrt(squares), -exponent) * std::max(1.0, t / step) < kNothing / s) break;
  }
  return std::exp(log_at_s) * sum * step / std::numbers::pi;
}

}  // namespace

double probability_of_positive_sum(std::span<const double> y) {
  double total = 0, largest = 0, smallest = 0;
  for (const double value : y) {
    total += value;
    largest = std::max(largest, value);
    smallest = std::min(smallest, value);
  }
  if (!(largest > 0)) return 0;
  if (!(smallest < 0)) return 1;
  const double p = total > 0 ? 1 - upper_tail(groups_of(y, -1), -smallest) : upper_tail(groups_of(y, 1), largest);
  return std::clamp(p, 0.0, 1.0);
}

}  // namespace kvsweep
