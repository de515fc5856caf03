#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "harness/report/analysis/analysis.h"

namespace kvsweep {

struct PageOptions {
  // Texts of at most this many samples: 200 records x 1,000. Above it every point keeps an equal share, those that were
  // lost or gained first, then those that diverged, and the page says so. Scores are always of all samples.
  int64_t texts = 200000;
};

// A results directory as one HTML document that needs nothing else: analysis_json(), verdicts against the suggested
// margins, samples, provenance. Whatever comes from the directory is in it as JSON in script elements that no browser
// runs, `<` escaped, or packed; its own script shows it as text only, and a content security policy forbids every
// other script and every request. Neither order nor shards of the lines show. Throws DataError when a file of samples
// has changed since it was read.
std::string html_page(const Analysis& analysis, const PageOptions& options = {});

// In one step. Throws DataError.
void write_page(const std::filesystem::path& path, const Analysis& analysis, const PageOptions& options = {});

// JSON that may stand in a script element: `<` becomes \u003c, so that no text in it ends the element.
std::string script_safe(std::string json);

}  // namespace kvsweep
