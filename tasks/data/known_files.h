#pragma once

namespace kvsweep {

// Lines "<SHA-256> <path below a data root>", sorted by path: the versions that the project was tested with.
const char* known_file_lines();

}  // namespace kvsweep
