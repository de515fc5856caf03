#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <string>

#include "harness/files/safetensors.h"

namespace kvsweep {

using TensorMap = std::map<std::string, at::Tensor>;

// Tensors of a .safetensors file, copied to CPU memory in the dtype that they have there. Throws DataError that names
// file and tensor for a dtype that LibTorch has no counterpart of.
at::Tensor read_tensor(const SafetensorsFile& file, const std::string& name);
TensorMap read_tensors(const SafetensorsFile& file);

// See write_safetensors(). Tensors of any device and layout.
void write_tensors(const std::filesystem::path& path, const TensorMap& tensors,
                   const std::map<std::string, std::string>& metadata);

}  // namespace kvsweep
