#include "harness/report/statistics/power.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/math/distributions/binomial.hpp>
#include <boost/math/distributions/normal.hpp>
#include <boost/math/distributions/students_t.hpp>
#include <cmath>
#include <limits>

#include "harness/core/error.h"

namespace kvsweep {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kClose = 1e-6;    // of an effect that is searched for
constexpr double kDeviations = 9;  // of a count of flips: what lies beyond has a probability below 1e-16

void require(bool holds, const char* what, double value, const char* allowed) {
  if (!holds) throw DataError(fmt::format("{} {}: allowed are {}", what, value, allowed));
}

void check(const PowerTarget& target) {
  require(target.alpha > 0 && target.alpha < 0.5, "alpha", target.alpha, "numbers between 0 and 0.5");
  require(target.power >= 0.5 && target.power < 1, "power", target.power, "numbers from 0.5 to below 1");
}

void check(int64_t items, double flips) {
  require(items >= 1, "items", static_cast<double>(items), "positive numbers");
  require(flips >= 0 && flips <= 1, "flips", flips, "shares from 0 to 1");
}

double one_tail(const PowerTarget& target) {
  return target.two_sided ? target.alpha / 2 : target.alpha;
}

// In double throughout: several times as fast, and good to 1e-13.
using Binomial =
    boost::math::binomial_distribution<double,
                                       boost::math::policies::policy<boost::math::policies::promote_double<false>>>;

double at_least(double trials, double chance, double k) {
  if (k <= 0) return 1;
  if (k > trials) return 0;
  return boost::math::cdf(boost::math::complement(Binomial(trials, chance), k - 1));
}

// Smallest value in [low, high] for which `holds`, which is monotone and true at high.
template <class Predicate>
double smallest(double low, double high, Predicate holds) {
  while (high - low > kClose) {
    const double middle = (low + high) / 2;
    (holds(middle) ? high : low) = middle;
  }
  return high;
}

int64_t rounded_up(double items) {
  require(items < 1e15, "items", items, "fewer than 1e15: the effect is too small");
  return std::max<int64_t>(1, static_cast<int64_t>(std::ceil(items - 1e-9)));
}

}  // namespace

double PowerTarget::factor() const {
  check(*this);
  const boost::math::normal z;
  return boost::math::quantile(boost::math::complement(z, one_tail(*this))) + boost::math::quantile(z, power);
}

double detectable_by_flips(int64_t items, double flips, const PowerTarget& target) {
  check(items, flips);
  return target.factor() * std::sqrt(flips / static_cast<double>(items));
}

double power_of_mcnemar(int64_t items, double flips, double loss, const PowerTarget& target) {
  check(target);
  check(items, flips);
  require(items <= 1000000, "items", static_cast<double>(items), "at most 1e6");
  require(loss >= 0 && loss <= flips, "loss", loss, "numbers from 0 to the share of flips");
  if (flips == 0) return 0;
  const auto n = static_cast<double>(items);
  const Binomial count(n, flips);
  const double centre = n * flips, deviation = std::sqrt(centre * (1 - flips));
  const double last = std::min(n, std::ceil(centre + kDeviations * (deviation + 1)));
  double power = 0, critical = 0;
  for (double m = std::max(0.0, std::floor(centre - kDeviations * (deviation + 1))); m <= last; ++m) {
    critical = std::max(critical, std::floor(m / 2));
    while (at_least(m, 0.5, critical) >= one_tail(target) && critical <= m) ++critical;  // rises with m
    power += boost::math::pdf(count, m) * at_least(m, (flips + loss) / (2 * flips), critical);
  }
  return power;
}

double detectable_by_mcnemar(int64_t items, double flips, const PowerTarget& target) {
  check(target);
  check(items, flips);
  const auto enough = [&](double share, double loss) {
    return power_of_mcnemar(items, share, loss, target) >= target.power;
  };
  if (enough(flips, flips)) return smallest(0, flips, [&](double loss) { return enough(flips, loss); });
  if (!enough(1, 1)) return kNaN;
  return smallest(flips, 1, [&](double loss) { return enough(loss, loss); });
}

double detectable_by_error(double standard_error, double degrees, const PowerTarget& target) {
  require(standard_error >= 0, "standard error", standard_error, "numbers from 0");
  require(degrees > 0, "degrees of freedom", degrees, "positive numbers");
  if (std::isinf(degrees)) return target.factor() * standard_error;
  check(target);
  const boost::math::students_t t(degrees);
  return standard_error *
         (boost::math::quantile(boost::math::complement(t, one_tail(target))) + boost::math::quantile(t, target.power));
}

double detectable_unpaired(int64_t items, double deviation, const PowerTarget& target) {
  check(items, 0);
  require(deviation >= 0, "deviation", deviation, "numbers from 0");
  return target.factor() * std::sqrt(2 / static_cast<double>(items)) * deviation;
}

int64_t items_for_flips(double flips, double effect, const PowerTarget& target) {
  check(1, flips);
  require(effect > 0 && effect * effect <= flips, "effect", effect,
          "numbers above 0 whose square is at most the flips");
  return rounded_up(std::pow(target.factor() / effect, 2) * (flips - effect * effect));
}

int64_t items_for_deviation(double deviation, double effect, const PowerTarget& target) {
  require(effect > 0, "effect", effect, "numbers above 0");
  require(deviation >= 0, "deviation", deviation, "numbers from 0");
  return rounded_up(std::pow(target.factor() * deviation / effect, 2));
}

}  // namespace kvsweep
