#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "harness/report/analysis/analysis.h"

namespace kvsweep {

// KL by position, mean over the samples of a point that have the position; buckets of equal width.
struct KlByPosition {
  int64_t width = 1;
  std::vector<double> kl;
  std::vector<int64_t> n;
};

// What the page's sample browser shows of a point.
struct PointChunk {
  // Packed (gzip.h): {"item": [..] or null, "scores": {metric: [..]}, "kl": [..], "kl_max": [..], "divergence": [..],
  // "generated": [..],
  //  "text": [..]}; a column an entry. item: index into the group's items, null when they are its first ones in order.
  // text: a string, null: equal to full precision's, 0: left out.
  std::string packed;
  int64_t samples = 0, texts = 0;
  KlByPosition kl;  // without buckets where texts were left out: those left in are no fair sample
};

struct GroupChunk {
  // Packed: {"id": [..], "tags": {name: [..]}, "context": [..], "text": [..]}: full precision's items, then those that
  // other points have besides. text: full precision's, null where it has none.
  std::string packed;
  std::vector<uint32_t> items;     // of Results::items()
  std::vector<PointChunk> points;  // of each row of the group
};

// Of every group, in their order. Packs each text once, see PageOptions::texts. Throws DataError when a file has
// changed.
std::vector<GroupChunk> sample_chunks(const Analysis& analysis, int64_t texts);

}  // namespace kvsweep
