#pragma once

#include <filesystem>

namespace kvsweep {

// $XDG_CACHE_HOME/kvsweep, else $HOME/.cache/kvsweep: models, data and sampled texts that a user keeps.
std::filesystem::path user_cache();

}  // namespace kvsweep
