#include "schemes/codec/lattice_search.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "harness/core/cpu_clones.h"
#include "schemes/codec/lattice.h"

#define KVSWEEP_INLINE [[gnu::always_inline]] inline

namespace kvsweep {
namespace {

constexpr int64_t kLanes = 16, kVectors = 2 * kLanes;  // vectors that are looked up at a time
using Lanes = float __attribute__((vector_size(4 * kLanes)));
using IntLanes = int32_t __attribute__((vector_size(4 * kLanes)));
using CellLanes = float __attribute__((vector_size(4 * LatticeCell::kPoints)));

template <int kDim>
KVSWEEP_INLINE void nearest_of_all(const LatticeSearch& search, const float* y, int64_t vectors, uint8_t* codes) {
  for (int64_t first = 0; first < vectors; first += kVectors) {
    const int64_t count = std::min(kVectors, vectors - first);
    alignas(64) float columns[kDim][kVectors] = {};
    for (int64_t i = 0; i < count; ++i)
      for (int64_t d = 0; d < kDim; ++d) columns[d][i] = y[(first + i) * kDim + d];
    Lanes at[kDim][2], best[2];
    IntLanes index[2];
    for (int half = 0; half < 2; ++half)
      for (int d = 0; d < kDim; ++d) std::memcpy(&at[d][half], &columns[d][half * kLanes], sizeof(Lanes));
    const float* point = search.score_table.data();
    for (int32_t j = 0; j < search.points; ++j, point += kDim + 1) {
      for (int half = 0; half < 2; ++half) {
        Lanes score = at[0][half] * point[0];
        for (int d = 1; d < kDim; ++d) score += at[d][half] * point[d];
        score -= point[kDim];
        if (j == 0) {
          best[half] = score;
          index[half] = IntLanes{};
        } else {
          const IntLanes better = score > best[half];
          best[half] = better ? score : best[half];
          index[half] = better ? IntLanes{} + j : index[half];
        }
      }
    }
    int32_t found[kVectors];
    std::memcpy(found, index, sizeof(found));
    for (int64_t i = 0; i < count; ++i) codes[first + i] = static_cast<uint8_t>(found[i]);
  }
}

// The better one of each pair of neighbours, the first of equals. A difference's sign instead of a comparison: loops
// over it vectorise.
template <int64_t kPairs>
KVSWEEP_INLINE void better_of_pairs(const float* scores, const int32_t* codes, float* better_scores, int32_t* better) {
  for (int64_t i = 0; i < kPairs; ++i) {
    const float a = scores[2 * i], b = scores[2 * i + 1];
    const int32_t second = std::bit_cast<int32_t>(a - b) >> 31;  // all ones, or none
    better_scores[i] =
        std::bit_cast<float>((std::bit_cast<int32_t>(b) & second) | (std::bit_cast<int32_t>(a) & ~second));
    better[i] = (codes[2 * i + 1] & second) | (codes[2 * i] & ~second);
  }
}

// Scores of several vectors are written before they are compared: wide loads would wait for narrow stores.
KVSWEEP_INLINE void nearest_in_cells(const LatticeSearch& search, const float* y, int64_t vectors, uint8_t* codes) {
  constexpr int64_t kTile = 4 * kLanes, kPoints = LatticeCell::kPoints;
  static_assert(kPoints == 4);
  const auto side = static_cast<int32_t>(search.side);
  const float end = static_cast<float>(side), last = end - 1, cells_per_unit = end / (2 * LatticeSearch::kReach);
  const LatticeCell* cells = search.cells.data();
  alignas(64) float in[2 * kTile] = {}, scores[kTile * kPoints], half_scores[kTile * 2];
  alignas(64) int32_t cell[kTile], inside[kTile], of[kTile * kPoints], half[kTile * 2];
  for (int64_t first = 0; first < vectors; first += kTile, y += 2 * kTile, codes += kTile) {
    const int64_t count = std::min(kTile, vectors - first);
    std::copy_n(y, 2 * count, in);
    int32_t all_inside = 1;
    for (int64_t i = 0; i < kTile; ++i) {
      float row = (in[2 * i] + LatticeSearch::kReach) * cells_per_unit;
      float column = (in[2 * i + 1] + LatticeSearch::kReach) * cells_per_unit;
      inside[i] = static_cast<int32_t>(row >= 0) & static_cast<int32_t>(row < end) & static_cast<int32_t>(column >= 0) &
                  static_cast<int32_t>(column < end);
      all_inside &= inside[i];
      row = row > 0 ? row : 0;
      row = row < last ? row : last;
      column = column > 0 ? column : 0;
      column = column < last ? column : last;
      cell[i] = static_cast<int32_t>(row) * side + static_cast<int32_t>(column);
    }
    for (int64_t i = 0; i < kTile; ++i) {
      const LatticeCell& near = cells[cell[i]];
      CellLanes twice[2], square;
      std::memcpy(twice, near.twice, sizeof(twice));
      std::memcpy(&square, near.square, sizeof(square));
      const CellLanes score = (twice[0] * in[2 * i] + twice[1] * in[2 * i + 1]) - square;
      std::memcpy(scores + i * kPoints, &score, sizeof(score));
      std::memcpy(of + i * kPoints, near.code, sizeof(near.code));
    }
    better_of_pairs<2 * kTile>(scores, of, half_scores, half);
    better_of_pairs<kTile>(half_scores, half, scores, of);
    for (int64_t i = 0; i < count; ++i) codes[i] = static_cast<uint8_t>(of[i]);
    if (all_inside != 0) continue;
    float outside[2 * kTile];
    int64_t many = 0;
    for (int64_t i = 0; i < count; ++i)
      if (inside[i] == 0) {
        std::copy_n(in + 2 * i, 2, outside + 2 * many);
        cell[many++] = static_cast<int32_t>(i);
      }
    uint8_t found[kTile];
    nearest_of_all<2>(search, outside, many, found);
    for (int64_t i = 0; i < many; ++i) codes[cell[i]] = found[i];
  }
}

struct Corner {
  double x, y;
};

}  // namespace

// A point is left out of a cell when another one scores more by kMargin at its four corners: then, as scores are linear
// in y, everywhere in it. A float32 score is off by less than 4 roundings of |y_0 2g_0| + |y_1 2g_1| + |g|^2 < 128,
// that is 2^-15, and y + kReach is rounded by at most 2^-22 before it is cut, which moves a difference of scores by
// less than 2^-17: together less than kMargin, so that the other one's score is larger in float32 as well.
LatticeSearch::LatticeSearch(const LatticeGrid& grid) : dim(grid.dim), points(grid.points) {
  constexpr double kMargin = 0x1p-12;
  for (int64_t j = 0; j < points; ++j) {
    float square = 0;
    for (int64_t i = 0; i < dim; ++i) {
      const float value = grid.values[j * dim + i];
      score_table.push_back(2 * value);
      square += value * value;
    }
    score_table.push_back(square);
  }
  if (dim != 2) return;
  side = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(4 * std::sqrt(static_cast<double>(points)))));
  cells.resize(static_cast<size_t>(side * side));
  const double width = 2.0 * kReach / static_cast<double>(side);
  const auto score = [this](int64_t j, Corner at) {
    const float* point = &score_table[static_cast<size_t>(3 * j)];
    return at.x * point[0] + at.y * point[1] - point[2];
  };
  for (int64_t index = 0; index < side * side; ++index) {
    const double x = static_cast<double>(index / side) * width - kReach,
                 y = static_cast<double>(index % side) * width - kReach;
    const Corner corners[] = {{x, y}, {x, y + width}, {x + width, y}, {x + width, y + width}};
    const auto loses = [&](int64_t j, int64_t to) {
      return std::all_of(std::begin(corners), std::end(corners),
                         [&](Corner at) { return score(to, at) - score(j, at) > kMargin; });
    };
    const Corner middle = {x + width / 2, y + width / 2};
    int64_t first = 0;  // one that most others lose to
    for (int64_t j = 1; j < points; ++j)
      if (score(j, middle) > score(first, middle)) first = j;
    std::vector<int64_t> near, left;
    for (int64_t j = 0; j < points; ++j)
      if (!loses(j, first)) near.push_back(j);
    for (const int64_t j : near)
      if (std::none_of(near.begin(), near.end(), [&](int64_t to) { return loses(j, to); })) left.push_back(j);
    TORCH_CHECK(left.size() <= LatticeCell::kPoints, "lattice: ", left.size(), " points of ", grid.name, " in a cell");
    LatticeCell& cell = cells[static_cast<size_t>(index)];
    for (size_t k = 0; k < LatticeCell::kPoints; ++k) {
      const bool taken = k < left.size();
      const float* point = &score_table[static_cast<size_t>(taken ? 3 * left[k] : 0)];
      for (int64_t d = 0; d < 2; ++d) cell.twice[d][k] = taken ? point[d] : 0;
      cell.square[k] = taken ? point[2] : std::numeric_limits<float>::max();
      cell.code[k] = taken ? static_cast<int32_t>(left[k]) : 0;
    }
  }
}

const LatticeSearch& lattice_search(const LatticeGrid& grid) {
  static const std::vector<LatticeSearch> searches(lattice_grids().begin(), lattice_grids().end());
  return searches[static_cast<size_t>(&grid - lattice_grids().data())];
}

KVSWEEP_CPU_CLONES void nearest_points(const LatticeSearch& search, const float* y, int64_t vectors, uint8_t* codes) {
  if (search.cells.empty()) {
    nearest_of_all_points(search, y, vectors, codes);
  } else {
    nearest_in_cells(search, y, vectors, codes);
  }
}

KVSWEEP_CPU_CLONES void nearest_of_all_points(const LatticeSearch& search, const float* y, int64_t vectors,
                                              uint8_t* codes) {
  if (search.dim == 2) {
    nearest_of_all<2>(search, y, vectors, codes);
  } else {
    nearest_of_all<4>(search, y, vectors, codes);
  }
}

}  // namespace kvsweep
