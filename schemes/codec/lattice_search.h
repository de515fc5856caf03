#pragma once

#include <cstdint>
#include <vector>

namespace kvsweep {

struct LatticeGrid;

// The points that can be nearest somewhere in one cell of the plane: in the order of the grid, empty places with a
// score that is less than any other.
struct alignas(64) LatticeCell {
  static constexpr int64_t kPoints = 4;
  float twice[2][kPoints];  // 2 g_j
  float square[kPoints];    // |g_j|^2
  int32_t code[kPoints];    // j
};

// What finds argmax_j 2 <y, g_j> - |g_j|^2 in float32, the first of equals: (y_0 2g_0 + y_1 2g_1 + ..) - |g|^2, each
// operation rounded.
struct LatticeSearch {
  static constexpr float kReach = 4;  // cells cover [-kReach, kReach) both ways

  explicit LatticeSearch(const LatticeGrid& grid);

  int64_t dim, points;
  std::vector<float> score_table;  // [points, dim + 1]: 2 g_j, then |g_j|^2
  // Of a grid of two dimensions, otherwise none.
  int64_t side = 0;                // a power of two
  std::vector<LatticeCell> cells;  // [side, side]
};

// The one of a grid of lattice_grids(), made when first asked for.
const LatticeSearch& lattice_search(const LatticeGrid& grid);

// y [vectors, dim] -> codes [vectors]. Any floats: where y has a NaN no score is larger than another, code 0.
void nearest_points(const LatticeSearch& search, const float* y, int64_t vectors, uint8_t* codes);
// The same without cells: every point is tried.
void nearest_of_all_points(const LatticeSearch& search, const float* y, int64_t vectors, uint8_t* codes);

}  // namespace kvsweep
